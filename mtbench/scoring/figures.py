"""Scores as figures: normalized scores per task and performance profiles, or what each attempt returns.

PNG, SVG or PDF by the file's ending.
"""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mtbench.errors import unknown_name_error
from mtbench.records import write_atomically
from mtbench.scoring.intervals import Estimate, Floats
from mtbench.scoring.scores import PROFILE_THRESHOLDS, AgentScores, Scores
from mtbench.scoring.tables import LEAST, MOST, marked
from mtbench.text import plain

FORMATS = (".png", ".svg", ".pdf")

#: Okabe and Ito's palette: told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")
_MARGIN = 0.1
#: Characters of a name that a figure shows.
LONGEST_NAME = 40


def plain_text() -> AbstractContextManager[None]:
    """Names come from records: within this, they are never formulas, whatever the user's matplotlibrc says."""
    return mpl.rc_context({"text.usetex": False, "text.parse_math": False})


class ScoreFigure(Figure):
    """A figure that notebooks show, whether or not pyplot is loaded."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        with plain_text():
            self.savefig(buffer, format="png")
        return buffer.getvalue()


def draw(scores: Scores, scale: str | None = None, by: str = "task") -> Figure:
    """The figure of scores on one scale.

    Args:
        scores: What to draw.
        scale: One of the scales of these scores; by default the first.
        by: ``"task"``: scores per task, and performance profiles. ``"attempt"``: the return of each attempt, per task
            and over the tasks.

    Raises:
        ValueError: There is no such scale or figure.
    """
    if by not in _PANELS:
        raise unknown_name_error("figure", by, list(_PANELS), "mtbench plot --by")
    scale = scale or scores.references.first.name
    if scale not in scores.references.scales:
        raise unknown_name_error(
            "scale", scale, list(scores.references.scales), f"the scores of suite {scores.suite!r}"
        )
    with plain_text():
        figure = ScoreFigure(figsize=(9.5, max(3.2, 1.6 + 0.27 * len(scores.tasks))), dpi=120, layout="constrained")
        for axes, panel in zip(figure.subplots(1, 2, width_ratios=[3, 2]), _PANELS[by], strict=True):
            panel(axes, scores, scale)
            axes.spines[["top", "right"]].set_visible(False)
        figure.suptitle(plain(f"{scores.env_id}, {scores.split} split, {scale} scale"), fontsize=11)
        _legend(figure, scores)
    return figure


def save_figure(scores: Scores, path: Path, scale: str | None = None, by: str = "task") -> None:
    """Draw scores on one scale and write the figure, atomically.

    Args:
        scores: What to draw.
        path: Ends in one of :data:`FORMATS`.
        scale: As for :func:`draw`.
        by: As for :func:`draw`.

    Raises:
        ValueError: There is no such file format, scale or figure.
    """
    if path.suffix not in FORMATS:
        raise unknown_name_error("figure format", path.suffix, FORMATS, "mtbench plot")
    figure = draw(scores, scale, by)
    # A date in the file would make equal figures differ.
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix]
    with plain_text():
        write_atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], metadata=metadata))


def _draw_tasks(axes: Axes, scores: Scores, scale: str) -> None:
    height = 0.8 / len(scores.agents)
    limits = _limits([own.normalized[scale][task] for own in scores.agents for task in scores.tasks])
    for i, own in enumerate(scores.agents):
        estimates = [own.normalized[scale][task] for task in scores.tasks]
        values = [estimate.value for estimate in estimates]
        # A percentile interval can leave out its estimate; matplotlib wants lengths >= 0.
        errors = [
            [max(0.0, e.value - e.low) for e in estimates],
            [max(0.0, e.high - e.value) for e in estimates],
        ]
        positions = [row - 0.4 + height * (i + 0.5) for row in range(len(scores.tasks))]
        axes.barh(positions, values, height * 0.92, color=COLOURS[i % len(COLOURS)])
        axes.errorbar(values, positions, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8)
        for position, estimate in zip(positions, estimates, strict=True):
            _mark_cut(axes, position, estimate, limits)
    _name_tasks(axes, scores.tasks)
    axes.set_xlim(*limits)
    cut = any(_beyond(own.normalized[scale][task], limits) for own in scores.agents for task in scores.tasks)
    axes.set_xlabel("normalized score (95 % interval)" + ("; arrows: goes on beyond the axis" if cut else ""))


def _limits(estimates: list[Estimate]) -> tuple[float, float]:
    """The range of the axis: all scores and intervals, cut where tables begin to mark scores."""
    low, high = min(e.low for e in estimates), max(e.high for e in estimates)
    return max(min(low, 0.0), LEAST) - _MARGIN, min(max(high, 1.0), MOST) + _MARGIN


def _beyond(estimate: Estimate, limits: tuple[float, float]) -> list[bool]:
    """The sides on which a bar or its interval leaves the axis: False for the left, True for the right."""
    ends = (min(estimate.value, estimate.low) < limits[0], max(estimate.value, estimate.high) > limits[1])
    return [above for above in (False, True) if ends[above]]


def _mark_cut(axes: Axes, position: float, estimate: Estimate, limits: tuple[float, float]) -> None:
    """Draw an arrowhead where a bar or its interval leaves the axis, and the number where a bar does."""
    for above in _beyond(estimate, limits):
        mark = ">" if above else "<"
        axes.plot(limits[above], position, marker=mark, color="#333333", markersize=4, clip_on=False, zorder=5)
    if not marked(estimate.value):
        return
    above = estimate.value > 0
    axes.annotate(
        f"{estimate.value:.1f}",
        (limits[above], position),
        (-6 if above else 6, 0),
        textcoords="offset points",
        ha="right" if above else "left",
        va="center",
        fontsize=6.5,
        color="white",
        bbox={"boxstyle": "round,pad=0.15", "facecolor": "#333333", "edgecolor": "none"},
        zorder=5,
    )


def _draw_profiles(axes: Axes, scores: Scores, scale: str) -> None:
    for i, own in enumerate(scores.agents):
        curve, low, high = own.profiles[scale]
        colour = COLOURS[i % len(COLOURS)]
        axes.plot(PROFILE_THRESHOLDS, curve, color=colour)
        axes.fill_between(PROFILE_THRESHOLDS, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("normalized score")
    axes.set_ylabel("share of tasks above it")
    axes.set_ylim(-0.02, 1.02)


def _draw_attempts(axes: Axes, scores: Scores, scale: str) -> None:
    """A line for each task and agent, from the first attempt to a dot at the last; tasks by the last agent's dot."""
    of = scores.references.scales[scale]

    def returns(own: AgentScores, task: str) -> Floats:
        return of.normalize(task, np.array([attempt.value for attempt in own.attempts[task]]))

    ordered = sorted(scores.tasks, key=lambda task: -returns(scores.agents[-1], task)[-1])
    cut = False
    for i, own in enumerate(scores.agents):
        colour = COLOURS[i % len(COLOURS)]
        for row, task in enumerate(ordered):
            whole = returns(own, task)
            values = whole.clip(LEAST, MOST)
            cut |= bool((values != whole).any())
            place = row - 0.4 + 0.8 / len(scores.agents) * (i + 0.5)
            axes.plot(values, [place] * len(values), color=colour, marker="|", markersize=5, linewidth=1.2)
            axes.plot(values[-1], place, color=colour, marker="o", markersize=4)
    _name_tasks(axes, ordered)
    axes.set_xlabel("normalized return of each attempt; dot: the last" + (f"; cut at {LEAST}, {MOST}" if cut else ""))


def _draw_attempt_means(axes: Axes, scores: Scores, scale: str) -> None:
    numbers = range(1, scores.k + 1)
    for i, own in enumerate(scores.agents):
        estimates = own.attempt_means[scale]
        values = [e.value for e in estimates]
        errors = [[max(0.0, e.value - e.low) for e in estimates], [max(0.0, e.high - e.value) for e in estimates]]
        axes.errorbar(
            numbers, values, yerr=errors, color=COLOURS[i % len(COLOURS)], marker="o", markersize=4, capsize=3
        )
    axes.set_xticks(numbers)
    axes.set_xlim(0.7, scores.k + 0.3)
    axes.set_xlabel("attempt (95 % interval)")
    axes.set_ylabel("mean over tasks")


#: What the left and the right of a figure show.
_PANELS = {"task": (_draw_tasks, _draw_profiles), "attempt": (_draw_attempts, _draw_attempt_means)}


def _name_tasks(axes: Axes, tasks: list[str]) -> None:
    for anchor in (0.0, 1.0):
        axes.axvline(anchor, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(tasks)), [plain(task, LONGEST_NAME) for task in tasks], fontsize=8)
    axes.set_ylim(len(tasks) - 0.4, -0.6)


def _legend(figure: Figure, scores: Scores) -> None:
    """Below the panels, so that it covers nothing."""
    handles = [Patch(color=COLOURS[i % len(COLOURS)]) for i in range(len(scores.agents))]
    legend = figure.legend(
        handles,
        [str(i) for i in range(len(handles))],
        loc="outside lower center",
        ncols=min(3, len(handles)),
        frameon=False,
        fontsize=9,
    )
    for text, own in zip(legend.get_texts(), scores.agents, strict=True):
        text.set_text(plain(own.agent, LONGEST_NAME))  # a label that begins with an underscore would not be shown
