import numpy as np
import pytest
from PIL import Image

from mtbench.pictures import check_video_path, contact_sheet, write_image, write_video


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


def test_a_fast_gif_leaves_frames_out(tmp_path):
    write_video(frames(), tmp_path / "film.gif", fps=80)
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.info["duration"]) == (3, 20)  # 25 ms; the format counts in hundredths
        film.seek(2)
        assert np.asarray(film.convert("RGB")).mean() == pytest.approx(160, abs=25)


def test_mp4_names_its_extra(tmp_path, monkeypatch):
    import sys
    from pathlib import Path

    import gymnasium as gym

    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r"mtbench\[video\]"):
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
