import re

import matplotlib as mpl
import numpy as np
import pytest

from mtbench.scoring import score
from mtbench.scoring.figures import save_figure
from tests.scoring.runs import made_up


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures_are_written_and_repeatable(two_agents, tmp_path, suffix):
    for name in ("one", "two"):
        save_figure(two_agents, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"one{suffix}").stat().st_size > 5000
    if suffix != ".svg":  # matplotlib numbers an SVG's clip paths at random
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_figures_cut_what_lies_far_outside(tmp_path):
    """The axis ends soon after 2, with the number where a bar goes on."""
    run = made_up(tasks=["AutoencodeHard", "RepeatFirstEasy"], value=lambda t, a, r: 1.0)
    with mpl.rc_context({"svg.fonttype": "none"}):
        save_figure(score([run]), tmp_path / "oracle.svg")
        save_figure(score([run]), tmp_path / "published.svg", scale="published")
    whole, cut = ((tmp_path / f"{name}.svg").read_text() for name in ("oracle", "published"))
    value = score([run]).agents[0].normalized["published"]["AutoencodeHard"].value
    assert value > 20
    assert f"{value:.1f}" in cut
    numbers = {float(text.replace("\u2212", "-")) for text in re.findall(r">([\u2212-]?[\d.]+)</text>", cut)}
    assert max(numbers - {round(value, 1)}) <= 2.1
    assert "beyond the axis" in cut
    assert "beyond the axis" not in whole


def test_wrong_figures_are_refused(two_agents, tmp_path):
    with pytest.raises(ValueError, match="figure format"):
        save_figure(two_agents, tmp_path / "x.bmp")
    with pytest.raises(ValueError, match="Did you mean 'published'"):
        save_figure(two_agents, tmp_path / "x.png", scale="publishd")
    with pytest.raises(ValueError, match="Did you mean 'attempt'"):
        save_figure(two_agents, tmp_path / "x.png", by="attempts")


def test_a_figure_by_attempt_shows_each_attempt_of_each_task():
    """A line a task and agent, whose last point is the last attempt; tasks by that of the last agent."""
    worth = {"RepeatFirstEasy": 0.2, "HigherLowerEasy": 0.5}
    own = score([made_up(tasks=list(worth), value=lambda t, a, r: worth[t] * a)])
    left, right = own.plot(by="attempt").axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["HigherLowerEasy", "RepeatFirstEasy"]
    scale = own.references.scales["oracle"]
    lines = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2 and line.get_marker() == "|"]
    for task, line in zip(("HigherLowerEasy", "RepeatFirstEasy"), lines, strict=True):
        returns = [estimate.value for estimate in own.agents[0].attempts[task]]
        assert line == pytest.approx(scale.normalize(task, np.array(returns)).clip(-1, 2))
        assert returns[1] > returns[0]
    means = right.containers[0].lines[0].get_ydata()
    assert list(means) == [estimate.value for estimate in own.agents[0].attempt_means["oracle"]]
