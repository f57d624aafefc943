"""Scores as figures: normalized score per task, and performance profiles. PNG, SVG or PDF by the file's ending."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mtbench.records import write_atomically
from mtbench.scoring.scores import PROFILE_THRESHOLDS, Scores

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's palette: told apart by colour-blind readers too.
_COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000")


def save_figure(scores: Scores, path: Path, scale: str | None = None) -> None:
    """Draw scores on one scale and write the figure, atomically.

    Args:
        scores: What to draw.
        path: Ends in one of :data:`FORMATS`.
        scale: A scale of the suite; by default its first.

    Raises:
        ValueError: Another ending or scale.
    """
    from matplotlib.figure import Figure

    from mtbench.errors import unknown

    if path.suffix not in FORMATS:
        raise unknown("figure format", path.suffix, FORMATS, "mtbench plot")
    scale = scale or next(iter(scores.references.scales))
    if scale not in scores.references.scales:
        raise unknown("scale", scale, list(scores.references.scales), f"suite {scores.suite!r}")
    figure = Figure(figsize=(9.5, 1.6 + 0.27 * len(scores.tasks)), dpi=120, layout="constrained")
    tasks, profile = figure.subplots(1, 2, width_ratios=[3, 2])
    _draw_tasks(tasks, scores, scale)
    _draw_profiles(profile, scores, scale)
    figure.suptitle(f"{scores.env_id}, {scores.split} split, {scale} scale", fontsize=11)
    # A date in the file would make equal figures differ.
    metadata = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}[path.suffix]
    write_atomically(path, lambda temporary: figure.savefig(temporary, format=path.suffix[1:], metadata=metadata))


def _draw_tasks(axes: Axes, scores: Scores, scale: str) -> None:
    height = 0.8 / len(scores.agents)
    for i, own in enumerate(scores.agents):
        estimates = [own.normalized[scale][task] for task in scores.tasks]
        values = [estimate.value for estimate in estimates]
        # A percentile interval can exclude its point estimate by rounding; matplotlib wants lengths >= 0.
        errors = [
            [max(0.0, e.value - e.low) for e in estimates],
            [max(0.0, e.high - e.value) for e in estimates],
        ]
        positions = [row - 0.4 + height * (i + 0.5) for row in range(len(scores.tasks))]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.barh(positions, values, height * 0.92, color=colour, label=own.agent)
        axes.errorbar(values, positions, xerr=errors, fmt="none", ecolor="#333333", elinewidth=0.8)
    for anchor in (0.0, 1.0):
        axes.axvline(anchor, color="#888888", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(scores.tasks)), scores.tasks, fontsize=8)
    axes.set_ylim(len(scores.tasks) - 0.4, -0.6)
    axes.set_xlabel("normalized score (95 % interval)")
    axes.spines[["top", "right"]].set_visible(False)


def _draw_profiles(axes: Axes, scores: Scores, scale: str) -> None:
    for i, own in enumerate(scores.agents):
        curve, low, high = own.profiles[scale]
        colour = _COLOURS[i % len(_COLOURS)]
        axes.plot(PROFILE_THRESHOLDS, curve, color=colour, label=own.agent)
        axes.fill_between(PROFILE_THRESHOLDS, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.set_xlabel("normalized score")
    axes.set_ylabel("share of tasks above it")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, loc="best")
    axes.spines[["top", "right"]].set_visible(False)
