"""Statistics over runs and tasks, with stratified-bootstrap intervals (Agarwal et al. 2021, "rliable").

Aggregates take scores of shape ``(..., runs, tasks)`` and reduce the last two axes, so that one call serves a point
estimate and all bootstrap replicates. Every draw comes from a Generator that the caller passes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

INTERVAL = 0.95


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
    return np.asarray(1.0 - np.minimum(scores, 1.0).mean(axis=(-2, -1)))


AGGREGATES: dict[str, Callable[[Floats], Floats]] = {
    "mean": mean,
    "median": median,
    "IQM": interquartile_mean,
    "optimality gap": optimality_gap,
}


def performance_profile(scores: Floats, thresholds: Floats) -> Floats:
    """Share of run-task scores above each threshold. ``(..., runs, tasks), (t,) -> (..., t)``."""
    flat = scores.reshape(*scores.shape[:-2], -1)
    return np.asarray((flat[..., None, :] > thresholds[:, None]).mean(axis=-1))


def bootstrap(values: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Replicates of run means, resampled within each task.

    Args:
        values: Shape (runs, tasks, rollouts, attempts). With several runs, runs are resampled (the spread of
            training); with one, its rollouts are (the spread of evaluation). Attempts of a rollout stay together.
        replicates: How many.
        rng: Where the draws come from.

    Returns:
        Shape (replicates, runs, tasks, attempts): mean over rollouts of each resampled run.
    """
    runs, tasks, rollouts, attempts = values.shape
    replicated = np.empty((replicates, runs, tasks, attempts))
    means = values.mean(axis=2)
    for task in range(tasks):
        if runs > 1:
            replicated[:, :, task] = means[:, task][rng.integers(runs, size=(replicates, runs))]
        else:
            replicated[:, 0, task] = _counts(rollouts, replicates, rng) @ values[0, task] / rollouts
    return replicated


def probability_of_improvement(
    x: Sequence[Floats], y: Sequence[Floats], replicates: int, rng: np.random.Generator
) -> tuple[float, Floats]:
    """How likely agent X scores above agent Y on a random task: the mean over tasks of Mann-Whitney's U / (n m).

    Args:
        x: By task, the exchangeable scores of X, of shape (n,). A tie counts one half.
        y: By task, those of Y, of shape (m,).
        replicates: Bootstrap replicates; X and Y are resampled within each task.
        rng: Where the draws come from.

    Returns:
        The estimate and its replicates, of shape (replicates,).
    """
    estimates, replicated = [], np.zeros(replicates)
    for own, other in zip(x, y, strict=True):
        other = np.sort(other)
        # Of `other`, so many lie below and so many at or below each of X's scores.
        below, upto = np.searchsorted(other, own, "left"), np.searchsorted(other, own, "right")
        estimates.append(float((below + upto).mean()) / (2 * len(other)))
        x_counts, y_counts = (_counts(len(v), replicates, rng) for v in (own, other))
        cumulative = np.concatenate([np.zeros((replicates, 1)), np.cumsum(y_counts, axis=1)], axis=1)
        beaten = (cumulative[:, below] + cumulative[:, upto]) / 2
        replicated += (x_counts * beaten).sum(axis=1) / (len(own) * len(other))
    return float(np.mean(estimates)), replicated / len(estimates)


def interval(replicated: Floats) -> tuple[Floats, Floats]:
    """The central 95 % of replicates along the first axis."""
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(replicated, [tail, 1 - tail], axis=0)
    return low, high


def _counts(n: int, replicates: int, rng: np.random.Generator) -> Floats:
    """How often each of n items is drawn in a sample of n with replacement. Shape (replicates, n)."""
    drawn = rng.integers(n, size=(replicates, n)) + n * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * replicates).reshape(replicates, n).astype(np.float64)
