"""Statistics over runs and tasks (Agarwal et al. 2021, "rliable").

They take scores of shape ``(..., runs, tasks)`` and reduce the last two axes, so that one call computes an estimate or
all of its replicates.

A new aggregate is a function here and an entry in :data:`AGGREGATES` (of normalized scores) or
:data:`SUCCESS_AGGREGATES` (of successes). Every table, format and data frame shows what these two list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def mean(scores: Floats) -> Floats:
    """Mean over runs and tasks. ``(..., runs, tasks) -> (...)``."""
    return np.asarray(scores.mean(axis=(-2, -1)))


def median(scores: Floats) -> Floats:
    """Median over tasks of the mean over runs. ``(..., runs, tasks) -> (...)``."""
    return np.asarray(np.median(scores.mean(axis=-2), axis=-1))


def interquartile_mean(scores: Floats) -> Floats:
    """Mean of the middle half of all run-task scores. ``(..., runs, tasks) -> (...)``.

    ``int(n / 4)`` of the n scores are dropped at each end, as ``scipy.stats.trim_mean(..., 0.25)`` does.
    """
    flat = np.sort(scores.reshape(*scores.shape[:-2], -1), axis=-1)
    cut = flat.shape[-1] // 4
    return np.asarray(flat[..., cut : flat.shape[-1] - cut].mean(axis=-1))


def optimality_gap(scores: Floats) -> Floats:
    """How far scores fall short of 1 on average; above 1 counts as 1. ``(..., runs, tasks) -> (...)``."""
    return np.asarray((1.0 - np.minimum(scores, 1.0)).mean(axis=(-2, -1)))


def coverage(successes: Floats) -> Floats:
    """Share of tasks whose attempts succeed at least two times in three (AMAGO-2, Figure 4), mean over runs.

    ``(..., runs, tasks, attempts) -> (...)``.
    """
    return np.asarray((successes.mean(axis=-1) >= 2 / 3 - 1e-9).mean(axis=(-2, -1)))


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One number for all tasks.

    Attributes:
        of: The statistic of normalized scores, ``(..., runs, tasks) -> (...)``.
        least: Its smallest possible value.
        smooth: As for :meth:`mtbench.scoring.intervals.Sample.estimate`.
        note: What readers must know of it, printed below tables; "" prints nothing.
    """

    of: Callable[[Floats], Floats]
    least: float = -np.inf
    smooth: bool = True
    note: str = ""


@dataclass(frozen=True, slots=True)
class SuccessAggregate:
    """One share, from 0 to 1, of what succeeded on all tasks.

    Attributes:
        of: The statistic of success rates over rollouts, ``(..., runs, tasks, attempts) -> (...)``.
        units: Of (tasks, rollouts, attempts), how many things one run's share counts: it is a multiple of one over
            this number.
        note: As for :class:`Aggregate`.
    """

    of: Callable[[Floats], Floats]
    units: Callable[[int, int, int], int]
    note: str = ""


#: In the order of tables: the IQM first, since no single task can dominate it.
AGGREGATES: dict[str, Aggregate] = {
    "IQM": Aggregate(interquartile_mean),
    "median": Aggregate(median, smooth=False),
    "mean": Aggregate(mean),
    "optimality gap": Aggregate(optimality_gap, least=0.0),
}

#: Where the suite defines success.
SUCCESS_AGGREGATES: dict[str, SuccessAggregate] = {
    "success": SuccessAggregate(
        lambda successes: np.asarray(successes.mean(axis=(-3, -2, -1))),
        lambda tasks, rollouts, attempts: tasks * rollouts * attempts,
    ),
    "coverage": SuccessAggregate(
        coverage,
        lambda tasks, rollouts, attempts: tasks,
        "the share of tasks whose attempts succeed at least two times in three, mean over runs.",
    ),
}


def performance_profile(scores: Floats, thresholds: Floats) -> Floats:
    """Share of run-task scores above each threshold. ``(..., runs, tasks), (t,) -> (..., t)``."""
    # One threshold at a time: all at once need hundreds of times the memory of the scores.
    return np.stack([(scores > threshold).mean(axis=(-2, -1)) for threshold in thresholds], axis=-1)
