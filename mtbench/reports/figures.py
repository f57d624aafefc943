"""The figures of reports. Agents differ in colour, marker and line, so that they are told apart in grey, too."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import EngFormatter

from mtbench.reports.curves import Curve
from mtbench.scoring.figures import COLOURS, LONGEST_NAME, draw, plain_text
from mtbench.scoring.scores import Scores
from mtbench.text import plain

_MARKERS = "osD^vP*X"
_LINES = ("-", "--", "-.", ":")


@dataclass(frozen=True)
class Figure:
    """A drawn figure.

    Attributes:
        name: Of its files.
        caption: What it shows, for readers and as its text where it cannot be seen.
        svg: To stand in a page.
        png: The same as pixels.
    """

    name: str
    caption: str
    svg: str
    png: bytes


def styled(i: int) -> dict[str, Any]:
    """The look of the ith agent."""
    colour, marker, line = COLOURS[i % len(COLOURS)], _MARKERS[i % len(_MARKERS)], _LINES[i % len(_LINES)]
    return {"color": colour, "marker": marker, "linestyle": line, "markersize": 4}


def rendered(canvas: Canvas, name: str, caption: str) -> Figure:
    """A figure as SVG and PNG; the same drawing gives the same files."""
    # Text stays text, to be searched and read aloud. The salt keeps the names in one SVG apart from those in others.
    with plain_text(), mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        vector, pixels = io.StringIO(), io.BytesIO()
        canvas.savefig(vector, format="svg", metadata={"Date": None, "Creator": None})
        canvas.savefig(pixels, format="png", metadata={"Software": None})
    svg = vector.getvalue()
    return Figure(name, caption, svg[svg.index("<svg") :], pixels.getvalue())


def tasks(scores: Scores, name: str) -> Figure:
    """Normalized scores by task, and performance profiles."""
    caption = (
        f"Normalized scores on {scores.env_id}, {scores.split} split, by task, and the share of tasks above a score"
    )
    return rendered(draw(scores), name, caption)


def attempts(scores: Scores, name: str) -> Figure:
    """The mean normalized return of each attempt."""
    scale = scores.references.first.name
    canvas, axes = _canvas()
    numbers = list(range(1, scores.k + 1))
    for i, own in enumerate(scores.agents):
        estimates = own.attempt_means[scale]
        values = [e.value for e in estimates]
        errors = [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]]
        axes.errorbar(numbers, values, yerr=errors, label=str(i), capsize=3, **styled(i))
    axes.set_xticks(numbers)
    axes.set_xlabel("attempt")
    axes.set_ylabel(f"mean over tasks, {scale} scale")
    _legend(axes, [own.agent for own in scores.agents])
    return rendered(canvas, name, f"What each attempt returns on {_where(scores)} (95 % intervals)")


def audit(scores: Scores, name: str) -> Figure:
    """What agents lose under the conditions of the adaptation audit."""
    scale = scores.references.first.name
    agents = [own for own in scores.agents if own.audit]
    canvas, axes = _canvas(height=1.4 + 0.5 * len(agents))
    names = list(dict.fromkeys(name for own in agents for name in own.audit))
    for i, measured in enumerate(names):
        shown = [(row, own.audit[measured].means[scale]) for row, own in enumerate(agents) if measured in own.audit]
        places = [row + (i - (len(names) - 1) / 2) * 0.3 for row, _ in shown]
        values = [e.value for _, e in shown]
        errors = [[max(0.0, e.value - e.low) for _, e in shown], [max(0.0, e.high - e.value) for _, e in shown]]
        axes.errorbar(values, places, xerr=errors, label=str(i), capsize=3, **{**styled(i), "linestyle": "none"})
    axes.axvline(0, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(agents)), [plain(own.agent, LONGEST_NAME) for own in agents])
    axes.set_ylim(len(agents) - 0.4, -0.6)
    axes.set_xlabel(f"lost, mean over tasks, {scale} scale")
    _legend(axes, names)
    caption = f"Adaptation audit on {_where(scores)}: what agents lose without each (95 % intervals)"
    return rendered(canvas, name, caption)


def learning(curves: Sequence[Curve], name: str) -> Figure:
    """Validation scores of training runs of one environment over environment steps, and over updates."""
    canvas = Canvas(figsize=(9.5, 3.4), dpi=120, layout="constrained")
    for axes, unit in zip(canvas.subplots(1, 2, sharey=True), ("steps", "updates"), strict=True):
        for i, curve in enumerate(curves):
            axes.plot(getattr(curve, unit), curve.scores, label=str(i), **styled(i))
        axes.set_xlabel("environment steps" if unit == "steps" else "updates")
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.spines[["top", "right"]].set_visible(False)
        if unit == "steps":
            axes.set_ylabel(f"validation, mean over tasks, {curves[0].scale} scale", fontsize=8)
            _legend(axes, [curve.name for curve in curves])
    return rendered(canvas, name, f"Learning on {curves[0].env_id}: validation scores while training")


def _where(scores: Scores) -> str:
    return f"{scores.env_id}, {scores.split} split"


def _canvas(height: float = 3.4) -> tuple[Canvas, Axes]:
    canvas = Canvas(figsize=(6.0, height), dpi=120, layout="constrained")
    axes = canvas.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return canvas, axes


def _legend(axes: Axes, names: Sequence[str]) -> None:
    """Labels are set as text afterwards: one that begins with an underscore would not be shown."""
    legend = axes.legend(frameon=False, fontsize=8, loc="best")
    for text, shown in zip(legend.get_texts(), names, strict=True):
        text.set_text(plain(shown, LONGEST_NAME))
