"""Write frames as videos, and as contact sheets of many tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mtbench.errors import UsageError, missing_extra_error, unknown_name_error
from mtbench.records import write_atomically
from mtbench.suite import Frame, Progress, Task

if TYPE_CHECKING:
    from PIL import Image

VIDEO_FORMATS = (".mp4", ".gif")

# More frames per second make files larger and show little more.
_ENOUGH_FPS = 25
# Browsers slow down faster GIFs.
_FASTEST_GIF = 50
# The largest error of a colour that is not visible, on a scale of 255.
_VISIBLE = 16


def check_video_path(path: Path) -> None:
    """Check that a video can be written, before anything is played.

    Raises:
        UsageError: The ending is no video format.
        gymnasium.error.DependencyNotInstalled: MP4 needs a package that is missing.
    """
    if path.suffix not in VIDEO_FORMATS:
        raise unknown_name_error("video format", path.suffix, VIDEO_FORMATS, "mtbench play")
    if path.suffix == ".mp4":
        try:
            import imageio_ffmpeg  # noqa: F401
        except ModuleNotFoundError:
            raise missing_extra_error("imageio-ffmpeg", "video", "Writing MP4") from None


def check_every(path: Path, fps: int, every: int | None) -> int:
    """Number of steps per frame of a video.

    Args:
        path: The video.
        fps: Steps per second, at real speed.
        every: The requested number; None takes the smallest that gives at most 25 frames per second.

    Raises:
        UsageError: The format cannot show so many frames per second.
    """
    if every is None:
        return -(-fps // _ENOUGH_FPS)
    least = -(-fps // _FASTEST_GIF) if path.suffix == ".gif" else 1
    if every < least:
        raise UsageError(
            f"A GIF shows at most {_FASTEST_GIF} frames per second, and this is {fps} steps per second: "
            f"use --every {least} or more, or write an .mp4 file."
        )
    return every


def write_video(frames: Iterable[Frame], path: Path, fps: float) -> None:
    """Write frames of equal shape as MP4 or GIF, atomically.

    Args:
        frames: At least one, of shape (height, width, 3).
        path: Ends in ``.mp4`` or ``.gif``.
        fps: Frames per second; at most 50 for GIF.
    """
    check_video_path(path)
    write = _write_gif if path.suffix == ".gif" else _write_mp4
    write_atomically(path, lambda temporary: write(iter(frames), temporary, fps))


def captioned(frame: Frame, task: Task, progress: Progress, shape: tuple[int, int, int], second: str = "") -> Frame:
    """A frame over a line with task, attempt, step and reward, and an optional second line, as a picture of `shape`."""
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


def _write_gif(frames: Iterable[Frame], path: Path, fps: float) -> None:
    images = _with_palettes(frames)
    first = next(images)
    # Pillow wants a list of durations before it has seen the frames: `_Durations` computes them on demand.
    first.save(path, format="GIF", save_all=True, append_images=images, duration=_Durations(fps), loop=0)


class _Durations(list[int]):
    """Milliseconds for which each frame is shown, in whole hundredths of a second, without drift from `fps`."""

    def __init__(self, fps: float) -> None:
        super().__init__()
        self._fps = fps

    def __getitem__(self, index: Any) -> Any:
        return 10 * (round(100 * (index + 1) / self._fps) - round(100 * index / self._fps))


def _with_palettes(frames: Iterable[Frame]) -> Iterator[Image.Image]:
    """Reduce frames to at most 256 colours. A frame reuses the previous palette unless that shows wrong colours.

    If every frame had its own palette, consecutive frames would differ at every pixel, and a video of a robot would be
    30 times as large. Dithering is off, so that flat areas keep their colours and do not flicker.
    """
    from PIL import Image

    no_dither = Image.Dither.NONE
    palette, allowed = None, 0.0
    for frame in frames:
        image = Image.fromarray(frame)
        if palette is not None:
            shown = image.quantize(palette=palette, dither=no_dither)
            if _errors(shown, frame)[1] <= allowed:
                yield shown
                continue
        # Maximum coverage keeps rare colours, such as a goal's; a k-means step brings the palette closer to the others.
        palette = image.quantize(256, method=Image.Quantize.MAXCOVERAGE, kmeans=1, dither=no_dither)
        shown = image.quantize(palette=palette, dither=no_dither)
        worst, wrong = _errors(shown, frame)
        # If the palette is exact for its frame, later frames may have no wrong pixel; else about as many as that one.
        allowed = 1.5 * wrong + image.width * image.height / 4000 if worst else 0
        yield shown


def _errors(shown: Image.Image, frame: Frame) -> tuple[int, int]:
    """The largest error of a colour, and the number of pixels with a visible error."""
    errors = np.abs(np.asarray(shown.convert("RGB")).astype(np.int16) - frame).max(axis=-1)
    return int(errors.max()), int((errors > _VISIBLE).sum())


def _write_mp4(frames: Iterable[Frame], path: Path, fps: float) -> None:
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
