"""Two agents compared on the same cases: the difference of their scored returns, with an interval.

Every agent plays the same cases, so what makes a case hard or easy cancels. Where both agents have several runs, those
are compared: the interval follows Welch's t test on the runs' means. Where one of them has a single run, its rollouts
are resampled together with the other agent's mean on the same cases, and how much training runs differ is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from mtbench.errors import RecordError
from mtbench.records import Run
from mtbench.registration import find
from mtbench.scoring.intervals import Estimate, Floats, Sample, t_quantile
from mtbench.scoring.references import RAW, load_references
from mtbench.scoring.scored import scored
from mtbench.scoring.scores import check_comparable, run_values
from mtbench.scoring.tables import Table, bracket
from mtbench.text import plain


@dataclass(frozen=True)
class Comparison:
    """How much more the first agent scores than the second.

    Attributes:
        env_id: Gymnasium ID.
        split: Of the tasks.
        names: Of the two agents, made plain and unlike each other.
        runs: Of each.
        returns: By task, the difference of scored returns, on the default reward scale.
        scales: By scale that covers all tasks, then task, the difference of normalized scores.
        means: By scale, the mean difference over tasks.
        between_runs: Whether the intervals include how much training runs differ.
    """

    env_id: str
    split: str
    names: tuple[str, str]
    runs: tuple[int, int]
    returns: dict[str, Estimate]
    scales: dict[str, dict[str, Estimate]]
    means: dict[str, Estimate]
    between_runs: bool

    def table(self) -> Table:
        """A row for each task, and one for the mean."""
        scales = [scale for scale in self.scales if scale != RAW.name]
        rows = [
            [task, bracket(difference), *(bracket(self.scales[scale][task]) for scale in scales)]
            for task, difference in self.returns.items()
        ]
        mean = bracket(self.means[RAW.name]) if RAW.name in self.means else ""
        rows.append(["mean over tasks", mean, *(bracket(self.means[scale]) for scale in scales)])
        title = f"{self.names[0]} minus {self.names[1]} on {plain(self.env_id)}, {self.split} split"
        return Table(title, ["task", "return", *scales], rows)

    @property
    def note(self) -> str:
        """What the intervals are."""
        if self.between_runs:
            one, two = self.runs
            return f"Brackets are 95 % intervals over {one} and {two} runs, paired by case (Welch's t)."
        return (
            "Brackets are 95 % intervals over rollouts, paired by case; one of the agents has a single run, so they do "
            "not include how much training runs differ."
        )


def compare(one: Sequence[Run], two: Sequence[Run], *, seed: int = 0, replicates: int = 2000) -> Comparison:
    """Compare two agents, case by case.

    Args:
        one: The runs of an agent, with different training seeds.
        two: Those of another, of the same environment and as many rollouts.
        seed: Seeds the bootstrap.
        replicates: Of the bootstrap, where a single run needs one.

    Raises:
        RecordError: The runs cannot be compared; the message names what differs.
    """
    check_comparable([*one, *two])
    values = [run_values(list(runs)) for runs in (one, two)]
    if values[0].shape[2] != values[1].shape[2]:
        raise RecordError(
            f"{one[0].name} has {values[0].shape[2]} rollouts per task and {two[0].name} {values[1].shape[2]}: "
            "only the same cases can be paired."
        )
    m = one[0].manifest
    tasks, objective = m["tasks"], m["objective"]
    several = len(one) > 1 and len(two) > 1
    if several:
        estimate = _between_runs(*(v.mean(axis=2) for v in values))
    else:
        estimate = _within(values[0].mean(axis=0) - values[1].mean(axis=0), replicates, np.random.default_rng(seed))
    by_task = estimate(lambda v: scored(v, objective))
    scales, means = {}, {}
    for name, scale in load_references(find(m["env_id"]).suite).covering(tasks).scales.items():
        normalized = _times(scale.slopes(tasks), objective)
        scales[name] = dict(zip(tasks, estimate(normalized), strict=True))
        (means[name],) = estimate(_mean(normalized))
    names = [plain(runs[0].manifest["agent"]) or "(no name)" for runs in (one, two)]
    if names[0] == names[1]:
        names = [f"{name} ({i})" for i, name in enumerate(names, 1)]
    return Comparison(
        env_id=m["env_id"],
        split=m["split"],
        names=(names[0], names[1]),
        runs=(len(one), len(two)),
        returns=dict(zip(tasks, by_task, strict=True)),
        scales=scales,
        means=means,
        between_runs=several,
    )


def on_other_cases(fixed: Sequence[Run], other: Sequence[Run]) -> tuple[str, Estimate]:
    """How much more the same agents score on other cases: the mean over tasks, on the suite's first scale.

    Args:
        fixed: The runs of an agent.
        other: The same agents, in the same order, on other cases of the same tasks; rollouts may be more or fewer.

    Returns:
        The scale's name, and the difference with Welch's interval over rollouts. Both sides are of the same training
        runs, so how much those differ plays no part.
    """
    m = fixed[0].manifest
    scale = load_references(find(m["env_id"]).suite).covering(m["tasks"]).first
    normalized = _times(scale.slopes(m["tasks"]), m["objective"])
    means, variances, freedom = [], [], []
    for runs in (other, fixed):
        scores = normalized(run_values(list(runs)).swapaxes(1, 2))  # (runs, rollouts, tasks)
        rollouts = scores.shape[1]
        means.append(float(scores.mean()))
        # Of the part that each task of each run has in the mean.
        parts = scores.var(axis=1, ddof=1) / rollouts / (scores.shape[0] * scores.shape[2]) ** 2
        variances.append(float(parts.sum()))
        freedom.append(float((parts**2).sum()) / (rollouts - 1))
    difference, variance = means[0] - means[1], sum(variances)
    half = 0.0 if variance == 0 else t_quantile(variance**2 / sum(freedom)) * math.sqrt(variance)
    return scale.name, Estimate(difference, difference - half, difference + half)


# Takes returns (..., tasks, attempts) to statistics (..., n); all of them are linear.
_Linear = Callable[[Floats], Floats]


def _times(slopes: Floats, objective: str) -> _Linear:
    """Scored returns, task by task, times what a return of 1 adds on a scale."""
    return lambda v: scored(v, objective) * slopes


def _mean(statistic: _Linear) -> _Linear:
    """Its mean over tasks."""
    return lambda v: statistic(v).mean(axis=-1, keepdims=True)


def _between_runs(one: Floats, two: Floats) -> Callable[[_Linear], list[Estimate]]:
    """Estimates of differences between runs' means ``(runs, tasks, attempts)``."""

    def estimate(statistic: _Linear) -> list[Estimate]:
        a, b = statistic(one), statistic(two)
        difference = a.mean(axis=0) - b.mean(axis=0)
        parts = [v.var(axis=0, ddof=1) / len(v) for v in (a, b)]
        found = []
        for value, part, other in zip(difference, *parts, strict=True):
            variance = float(part + other)
            if variance == 0:
                found.append(Estimate(float(value), float(value), float(value)))
                continue
            df = variance**2 / (float(part) ** 2 / (len(a) - 1) + float(other) ** 2 / (len(b) - 1))
            half = t_quantile(max(round(df, 3), 1.0)) * math.sqrt(variance)
            found.append(Estimate(float(value), float(value) - half, float(value) + half))
        return found

    return estimate


def _within(difference: Floats, replicates: int, rng: np.random.Generator) -> Callable[[_Linear], list[Estimate]]:
    """Estimates of the mean of paired differences ``(tasks, rollouts, attempts)``."""
    sample = Sample(difference[None], replicates=replicates, rng=rng)

    def estimate(statistic: _Linear) -> list[Estimate]:
        found = sample.estimate(lambda v: statistic(v).mean(axis=-2))
        return [found[i] for i in range(len(found.value))]

    return estimate
