from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtbench.errors import UsageError
from mtbench.pictures import check_every, check_video_path, contact_sheet, write_image, write_video
from mtbench.play import Playthrough, contact_sheet_frames
from mtbench.policy import load_policy
from mtbench.rollout import MetaRollout
from tests.toy import Toy


def frames(n=6):
    return [np.full((40, 60, 3), 40 * i, dtype=np.uint8) for i in range(n)]


@pytest.mark.parametrize("name", ["film.gif", "film.mp4"])
def test_a_film_shows_its_frames(tmp_path, name):
    path = tmp_path / name
    write_video(frames(), path, fps=10)
    if name.endswith("gif"):
        with Image.open(path) as film:
            assert film.n_frames == 6
            shades = []
            for i in range(6):
                film.seek(i)
                shades.append(np.asarray(film.convert("RGB")).mean())
    else:
        import imageio_ffmpeg

        reader = imageio_ffmpeg.read_frames(str(path))
        assert next(reader)["size"] == (60, 40)
        shades = [np.frombuffer(frame, dtype=np.uint8).mean() for frame in reader]
    assert shades == pytest.approx([0, 40, 80, 120, 160, 200], abs=25 if name.endswith("gif") else 3)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("fps", [20, 80 / 3, 30, 45])
def test_a_gif_has_the_speed_it_should(tmp_path, fps):
    write_video(frames(6) * 7, tmp_path / "film.gif", fps=fps)
    with Image.open(tmp_path / "film.gif") as film:
        shown = 0
        for i in range(film.n_frames):
            film.seek(i)
            shown += film.info["duration"]
    assert shown == pytest.approx(1000 * 42 / fps, abs=10)


def test_how_many_steps_lie_between_two_frames():
    gif, mp4 = Path("a.gif"), Path("a.mp4")
    assert [check_every(gif, fps, None) for fps in (10, 25, 26, 80)] == [1, 1, 2, 4]
    assert check_every(mp4, 80, 1) == 1
    assert check_every(gif, 80, 2) == 2
    with pytest.raises(UsageError, match="--every 2 or more"):
        check_every(gif, 80, 1)


def test_a_gif_keeps_its_palette_while_that_shows_the_right_colours(tmp_path):
    """A noisy picture in which little moves, then another one: as robots and games look."""
    rng = np.random.default_rng(0)
    noise = [rng.integers(low, low + 60, (120, 160, 3)).astype(np.uint8) for low in (0, 160)]
    scenes = [[noise[k].copy() for _ in range(10)] for k in (0, 1)]
    for scene in scenes:
        for i, frame in enumerate(scene):
            frame[10:20, 10 * i : 10 * i + 10] = (0, 0, 255)
    film = [frame for scene in scenes for frame in scene]
    write_video(film, tmp_path / "film.gif", fps=10)
    with Image.open(tmp_path / "film.gif") as read:
        assert read.n_frames == 20
        for i, frame in enumerate(film):
            read.seek(i)
            wrong = np.abs(np.asarray(read.convert("RGB")).astype(int) - frame).max(axis=-1)
            assert np.median(wrong) < 16
            assert wrong[12:18, 10 * i % 100 + 2 : 10 * i % 100 + 8].max() < 16, "the small one keeps its colour"
    whole = 120 * 160
    assert (tmp_path / "film.gif").stat().st_size < 4 * whole, "two whole pictures and what moves in them"


class Counted(MetaRollout):
    drawn = 0

    def render(self):
        self.drawn += 1
        return super().render()


def counted():
    env = Counted(Toy(), k=2, render_mode="rgb_array")
    return env, Playthrough(env, load_policy("random"), 0, {})


def test_frames_that_are_left_out_are_not_rendered():
    whole = list(counted()[1].frames())
    env, played = counted()
    some = list(played.frames(every=3))
    assert played.steps == len(whole) - 1
    assert played.steps % 3
    kept = [*range(0, len(whole), 3), len(whole) - 1]
    assert [frame.tolist() for frame in some] == [whole[i].tolist() for i in kept]
    assert env.drawn == len(kept)
    env, played = counted()
    assert np.array_equal(played.frame_after(4), whole[4])
    assert (env.drawn, played.steps) == (1, 4)


def test_a_contact_sheet_renders_each_task_once():
    env, _ = counted()
    (frame,) = contact_sheet_frames(env)
    assert env.drawn == 1
    assert frame[0, 0, 0] == 8 // 3 - 1


def test_mp4_names_its_extra(tmp_path, monkeypatch):
    import sys

    import gymnasium as gym

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"mtbench-rl\[video\]"):
        check_video_path(Path("a.mp4"))
    check_video_path(Path("a.gif"))


def test_a_contact_sheet_is_a_grid(tmp_path):
    sheet = contact_sheet(frames(5), columns=2, width=30)
    assert sheet.shape == (3 * 24 - 4, 2 * 34 - 4, 3)
    assert sheet[5, 40].tolist() == [40, 40, 40]
    assert sheet[-5, -5].tolist() == [255, 255, 255], "an empty place is white"
    write_image(sheet, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert np.array_equal(np.asarray(image), sheet)
