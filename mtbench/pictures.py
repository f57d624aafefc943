"""Frames to files people can open: videos, and contact sheets of many tasks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np

from mtbench.errors import missing_extra, unknown
from mtbench.records import write_atomically
from mtbench.suite import Frame, Progress, Task

VIDEO_FORMATS = (".mp4", ".gif")


def check_video_path(path: Path) -> None:
    """Refuse a video that could not be written, before anything is played.

    Raises:
        UsageError: The ending is no video format.
        gymnasium.error.DependencyNotInstalled: MP4 needs a package that is missing.
    """
    if path.suffix not in VIDEO_FORMATS:
        raise unknown("video format", path.suffix, VIDEO_FORMATS, "mtbench play")
    if path.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ModuleNotFoundError:
            raise missing_extra("imageio-ffmpeg", "video", "Writing MP4") from None


def write_video(frames: Iterable[Frame], path: Path, fps: int) -> None:
    """Write frames of equal shape as MP4 or GIF, atomically.

    Args:
        frames: At least one, of shape (height, width, 3).
        path: Ends in ``.mp4`` or ``.gif``.
        fps: Frames per second.
    """
    check_video_path(path)
    write = _write_gif if path.suffix == ".gif" else _write_mp4
    write_atomically(path, lambda temporary: write(iter(frames), temporary, fps))


def captioned(frame: Frame, task: Task, progress: Progress, shape: tuple[int, int, int], second: str = "") -> Frame:
    """A picture over a line that says what is played and how far it is, and a second one, filling `shape`."""
    from PIL import Image, ImageDraw, ImageFont

    height, width = shape[:2]
    image = Image.new("RGB", (width, height), (24, 26, 29))
    image.paste(Image.fromarray(frame), ((width - frame.shape[1]) // 2, 0))
    line = [task.name, f"step {progress.attempt_steps}", f"reward {progress.reward:.4g}"]
    if progress.k > 1:
        line.insert(1, f"attempt {progress.attempt + 1} of {progress.k}")
    lines = ["   ".join(line), *([second] if second else [])]
    space = (height - frame.shape[0]) / len(lines)
    for number, text in enumerate(lines):
        middle = frame.shape[0] + space * (number + 0.5)
        fitting = min(16.0, 16 * (width - 20) / ImageFont.load_default(16).getlength(text))
        ImageDraw.Draw(image).text((10, middle), text, (230, 232, 235), ImageFont.load_default(fitting), "lm")
    return np.array(image)


def contact_sheet(frames: Sequence[Frame], columns: int, width: int) -> Frame:
    """Frames of equal shape in a grid, row by row, each scaled to `width` pixels."""
    from PIL import Image

    height = round(width * frames[0].shape[0] / frames[0].shape[1])
    gap = 4
    rows = -(-len(frames) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for i, frame in enumerate(frames):
        tile = Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS)
        sheet.paste(tile, ((i % columns) * (width + gap), (i // columns) * (height + gap)))
    return np.asarray(sheet)


def write_image(frame: Frame, path: Path) -> None:
    """Write one frame, atomically; the format follows the ending."""
    from PIL import Image

    image = Image.fromarray(frame)
    write_atomically(path, lambda temporary: image.save(temporary, format=path.suffix[1:].upper()))


def _write_gif(frames: Iterable[Frame], path: Path, fps: int) -> None:
    from PIL import Image

    each = -(-fps // 50)  # browsers slow down what is faster
    # A palette for each frame: without dithering, flat pictures keep their colours and do not flicker.
    shown = islice(frames, 0, None, each)
    images = (Image.fromarray(frame).quantize(256, dither=Image.Dither.NONE) for frame in shown)
    first = next(images)
    first.save(path, format="GIF", save_all=True, append_images=images, duration=round(1000 * each / fps), loop=0)


def _write_mp4(frames: Iterable[Frame], path: Path, fps: int) -> None:
    import imageio_ffmpeg

    frames = iter(frames)
    first = next(frames)
    size = (first.shape[1], first.shape[0])
    writer = imageio_ffmpeg.write_frames(
        str(path), size, fps=fps, macro_block_size=2, ffmpeg_log_level="error", output_params=["-f", "mp4"]
    )
    writer.send(None)
    for frame in chain([first], frames):
        writer.send(np.ascontiguousarray(frame))
    writer.close()
