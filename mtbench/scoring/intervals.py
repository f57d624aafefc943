"""Intervals of 95 % around estimates.

One training run plays all tasks, so its scores on them go up and down together. Intervals therefore resample whole
runs:

several runs
    The delete-one-run jackknife: an estimate plus or minus Student's t (runs - 1 degrees of freedom) times its
    jackknife standard error. The median is not smooth: deleting one run of many moves it too little or too much, so
    with more than :data:`MOST_DELETED_SINGLY` runs half of them are deleted at a time.
one run
    Its rollouts are resampled (a bootstrap within each task): the estimate plus or minus the 95 % quantile of the
    distance between replicates and estimate. This leaves out how much training runs differ.

Both are symmetric about the estimate, so they contain it, also where replicates are biased (an optimality gap near 0).
``"stratified-bootstrap"`` is the method of Agarwal et al. 2021 ("rliable"): percentiles of replicates that draw runs
anew for every task. ``results/intervals`` has the simulated coverage of both.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Statistic = Callable[[Floats], Floats]

INTERVAL = 0.95
METHODS = ("jackknife", "stratified-bootstrap")
MOST_DELETED_SINGLY = 5
_MOST_SUBSETS = 1000
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(100)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Estimates:
    """An array of numbers with their 95 % intervals, all of one shape."""

    value: Floats
    low: Floats
    high: Floats

    def __getitem__(self, at: int | tuple[int, ...]) -> Estimate:
        return Estimate(float(self.value[at]), float(self.low[at]), float(self.high[at]))


class Sample:
    """One agent's values, from which statistics are estimated with intervals."""

    def __init__(
        self, values: Floats, method: str = "jackknife", *, replicates: int = 2000, rng: np.random.Generator
    ) -> None:
        """Draw the replicates, which all statistics share.

        Args:
            values: Shape (runs, tasks, rollouts, attempts). Attempts of a rollout stay together.
            method: One of :data:`METHODS`.
            replicates: Of a bootstrap.
            rng: Where its draws come from.
        """
        self.means: Floats = values.mean(axis=2)
        runs, rollouts = len(values), values.shape[2]
        self._percentiles = method == "stratified-bootstrap"
        self._by_run = runs > 1 and not self._percentiles
        self._rng = rng
        # A bootstrap of n values has (n - 1) / n of the variance it should have.
        self._widened = math.sqrt(rollouts / (rollouts - 1)) if runs == 1 and rollouts > 1 else 1.0
        self._replicated = None if self._by_run else bootstrap(values, replicates, rng)

    def estimate(
        self,
        statistic: Statistic,
        least: float = -math.inf,
        most: float = math.inf,
        *,
        smooth: bool = True,
        step: float = 0.0,
    ) -> Estimates:
        """A statistic and its interval.

        Args:
            statistic: Takes means over rollouts, of shape ``(..., runs, tasks, attempts)``; it reduces the last three
                axes to any others.
            least: The statistic cannot be smaller; intervals end here.
            most: It cannot be larger.
            smooth: False for a statistic whose slope jumps, such as a median.
            step: One run's value is a multiple of this, such as 1 / 27 of a share of 27 tasks. Runs that tie may
                differ by less than a step, so a run's standard deviation is taken to be at least that of rounding.
        """
        value = np.asarray(statistic(self.means), dtype=np.float64)
        if self._replicated is not None and self._percentiles:
            low, high = percentiles(np.asarray(statistic(self._replicated)))
            return Estimates(value, low, high)
        if self._replicated is not None:
            distance = np.abs(np.asarray(statistic(self._replicated)) - value)
            half = self._widened * np.quantile(distance, INTERVAL, axis=0)
        else:
            runs = len(self.means)
            deleted = 1 if smooth or runs <= MOST_DELETED_SINGLY else runs // 2
            error = jackknife(statistic, self.means, deleted, self._rng)
            half = t_quantile(runs - 1) * np.maximum(error, step / math.sqrt(12 * runs))
        low = np.minimum(np.maximum(value - half, least), value)
        high = np.maximum(np.minimum(value + half, most), value)
        return Estimates(value, low, high)


def jackknife(statistic: Statistic, means: Floats, deleted: int = 1, rng: np.random.Generator | None = None) -> Floats:
    """The standard error of a statistic over runs, from its values without `deleted` of the runs at a time.

    Args:
        statistic: As for :meth:`Sample.estimate`.
        means: Shape ``(runs, ...)``.
        deleted: Runs left out at a time. One is the classic jackknife; the delete-d jackknife (Shao and Wu 1989)
            serves statistics that are not smooth.
        rng: Draws the subsets where there are too many to take them all.
    """
    runs = len(means)
    if math.comb(runs, deleted) <= _MOST_SUBSETS or rng is None:
        kept = np.array(list(itertools.combinations(range(runs), runs - deleted)))
    else:
        order = rng.permuted(np.tile(np.arange(runs), (_MOST_SUBSETS, 1)), axis=1)
        kept = order[:, : runs - deleted]
    values = np.asarray(statistic(means[kept]), dtype=np.float64)
    return np.asarray(np.sqrt((runs - deleted) / deleted * values.var(axis=0)))


@lru_cache(maxsize=4096)
def t_quantile(df: float) -> float:
    """Half the width of the central 95 % of Student's t distribution, in standard errors."""
    high = 2.0
    while _within(high, df) < INTERVAL:
        high *= 2
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (middle, high) if _within(middle, df) < INTERVAL else (low, middle)
    return middle


def _within(t: float, df: float) -> float:
    """P(-t < T < t) for Student's T: with T = sqrt(df) tan(angle), the integral of cos(angle) ** (df - 1)."""
    most = math.atan(t / math.sqrt(df))
    integral = most / 2 * float(_WEIGHTS @ np.cos(most * (_NODES + 1) / 2) ** (df - 1))
    return 2 / math.sqrt(math.pi) * math.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2)) * integral


def bootstrap(values: Floats, replicates: int, rng: np.random.Generator) -> Floats:
    """Replicates of run means, resampled within each task.

    Args:
        values: Shape (runs, tasks, rollouts, attempts). With several runs, runs are resampled; with one, its rollouts
            are. Attempts of a rollout stay together.
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
            replicated[:, 0, task] = counts(rollouts, replicates, rng) @ values[0, task] / rollouts
    return replicated


def percentiles(replicated: Floats) -> tuple[Floats, Floats]:
    """The central 95 % of replicates along the first axis."""
    tail = (1 - INTERVAL) / 2
    low, high = np.quantile(replicated, [tail, 1 - tail], axis=0)
    return low, high


def counts(n: int, replicates: int, rng: np.random.Generator) -> Floats:
    """How often each of n items is drawn in a sample of n with replacement. Shape (replicates, n)."""
    drawn = rng.integers(n, size=(replicates, n)) + n * np.arange(replicates)[:, None]
    return np.bincount(drawn.ravel(), minlength=n * replicates).reshape(replicates, n).astype(np.float64)
