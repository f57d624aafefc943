"""Probability of improvement: how likely agent X scores above agent Y on a random task (Agarwal et al. 2021).

Runs are compared by their means where both agents have several. Otherwise single rollouts are compared, since one run
against others has no spread; the agent that has several runs is still resampled by run, the other by rollout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from mtbench.scoring.intervals import Estimate, Floats, counts, percentiles, t_quantile


def improvement(
    x: Floats, y: Floats, method: str = "jackknife", *, replicates: int = 2000, rng: np.random.Generator
) -> Estimate:
    """P(X > Y) with its interval.

    Args:
        x: Scored returns of X, of shape (runs, tasks, rollouts).
        y: Those of Y.
        method: One of :data:`mtbench.scoring.intervals.METHODS`.
        replicates: Of the stratified bootstrap.
        rng: Where its draws come from.
    """
    if len(x) > 1 and len(y) > 1:
        x, y = x.mean(axis=-1, keepdims=True), y.mean(axis=-1, keepdims=True)
    if method == "stratified-bootstrap":
        pooled = [[np.concatenate(list(v[:, task])) for task in range(v.shape[1])] for v in (x, y)]
        value, replicated = stratified(pooled[0], pooled[1], replicates, rng)
        low, high = percentiles(replicated)
        return Estimate(value, float(low), float(high))
    return _by_run(x, y)


def _by_run(x: Floats, y: Floats) -> Estimate:
    """The interval from the variances over X's and over Y's runs, on the scale of log-odds.

    The variance of a mean of shares over pairs is, to first order, that of X's part plus that of Y's: the jackknife
    over the runs of each. Degrees of freedom are Welch and Satterthwaite's. Log-odds keep the interval inside 0 to 1.
    """
    tasks = x.shape[1]
    wins = [[_beaten(own[:, t], other[:, t].ravel()) for t in range(tasks)] for own, other in ((x, y), (y, x))]
    value = float(np.mean([share.mean() for share in wins[0]]))
    parts = [_variance(np.stack(shares, axis=1)) for shares in wins]
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return Estimate(value, value, value)
    df = variance**2 / sum(part**2 / freedom for part, freedom in parts)
    pairs = x.size * y.size / tasks
    inside = (pairs * value + 0.5) / (pairs + 1)  # away from 0 and 1, where log-odds have no end
    middle = math.log(inside / (1 - inside))
    half = t_quantile(max(round(df, 3), 1.0)) * math.sqrt(variance) / (inside * (1 - inside))
    low, high = (0.5 * (1 + math.tanh((middle + sign * half) / 2)) for sign in (-1, 1))
    return Estimate(value, min(low, value), max(high, value))


def _variance(shares: Floats) -> tuple[float, float]:
    """Variance of the mean of ``(runs, tasks, rollouts)`` and its degrees of freedom: over runs, or one's rollouts."""
    runs, tasks, rollouts = shares.shape
    if runs > 1:
        return float(shares.mean(axis=(1, 2)).var(ddof=1)) / runs, runs - 1
    if rollouts == 1:
        return 0.0, 1
    return float(shares[0].var(axis=-1, ddof=1).sum()) / rollouts / tasks**2, tasks * (rollouts - 1)


def _beaten(own: Floats, other: Floats) -> Floats:
    """The share of `other` that lies below each of `own`, a tie counting one half. Shape of `own`."""
    other = np.sort(other)
    below, upto = np.searchsorted(other, own, "left"), np.searchsorted(other, own, "right")
    return np.asarray((below + upto) / (2 * len(other)))


def stratified(
    x: Sequence[Floats], y: Sequence[Floats], replicates: int, rng: np.random.Generator
) -> tuple[float, Floats]:
    """The mean over tasks of Mann-Whitney's U / (n m), and its replicates of a bootstrap within each task.

    Args:
        x: By task, the exchangeable scores of X, of shape (n,). A tie counts one half.
        y: By task, those of Y, of shape (m,).
        replicates: How many.
        rng: Where the draws come from.

    Returns:
        The estimate and its replicates, of shape (replicates,).
    """
    estimates, replicated = [], np.zeros(replicates)
    for own, other in zip(x, y, strict=True):
        estimates.append(float(_beaten(own, other).mean()))
        other = np.sort(other)
        below, upto = np.searchsorted(other, own, "left"), np.searchsorted(other, own, "right")
        x_counts, y_counts = (counts(len(v), replicates, rng) for v in (own, other))
        cumulative = np.concatenate([np.zeros((replicates, 1)), np.cumsum(y_counts, axis=1)], axis=1)
        beaten = (cumulative[:, below] + cumulative[:, upto]) / 2
        replicated += (x_counts * beaten).sum(axis=1) / (len(own) * len(other))
    return float(np.mean(estimates)), replicated / len(estimates)
