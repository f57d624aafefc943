"""Runs -> scores: per task and in aggregate, on every scale that covers the tasks, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtbench.audit import MEASURES, Condition, condition_of
from mtbench.errors import UsageError, unknown_name_error
from mtbench.provenance import COMMON
from mtbench.records import RecordError, Run, row_order
from mtbench.registration import find
from mtbench.scoring.adaptation import Lost, lost
from mtbench.scoring.aggregates import AGGREGATES, SUCCESS_AGGREGATES, Aggregate, performance_profile
from mtbench.scoring.improvement import improvement
from mtbench.scoring.intervals import METHODS, Estimate, Estimates, Floats, Sample, Statistic
from mtbench.scoring.references import References, Scale, load_references
from mtbench.scoring.scored import scored
from mtbench.text import plain

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# What two runs must share for their scores to be comparable.
_SAME = ("env_id", "suite", "split", "cases", "condition", "tasks", "k", "objective", "evaluation_version")

PROFILE_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(-0.2, 1.2, 141, dtype=np.float64)


@dataclass(frozen=True)
class AgentScores:
    """One agent's scores.

    Attributes:
        agent: Name, made plain (:func:`mtbench.text.plain`) and unlike that of every other agent.
        runs: Training runs (or evaluations of a scripted policy).
        rollouts: Rollouts per task and run.
        privileged: It reads hidden state.
        task_label_exposed: It was told the task.
        defines: By scale, the end (0 or 1) that this agent's own policy defines on every task.
        returns: By task, the scored return on the default reward scale.
        attempts: By task, the return of each attempt.
        adaptation: By task, last attempt minus first.
        normalized: By scale, then task.
        aggregates: By scale, then aggregate.
        new: `aggregates` over the test tasks that do not repeat a training task; empty where none does.
        success: By task, the share of successes in each attempt; empty where the suite defines none.
        successes: By aggregate of :data:`~mtbench.scoring.aggregates.SUCCESS_AGGREGATES`; empty where the suite defines
            no success.
        profiles: By scale, the share of run-task scores above each of :data:`PROFILE_THRESHOLDS`, an array of
            shape (3, thresholds): estimate, low, high.
        attempt_means: By scale, the mean over tasks of the normalized return of each attempt.
        by_run: By scale, the normalized scores of each run, of shape (runs, tasks).
        audit: What the adaptation audit measures, by name (:data:`mtbench.audit.MEASURES`), where all runs have one.
    """

    agent: str
    runs: int
    rollouts: int
    privileged: bool
    task_label_exposed: bool
    defines: dict[str, int] = field(default_factory=dict)
    returns: dict[str, Estimate] = field(default_factory=dict)
    attempts: dict[str, list[Estimate]] = field(default_factory=dict)
    adaptation: dict[str, Estimate] = field(default_factory=dict)
    normalized: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    aggregates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    new: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    success: dict[str, list[Estimate]] = field(default_factory=dict)
    successes: dict[str, Estimate] = field(default_factory=dict)
    profiles: dict[str, Floats] = field(default_factory=dict)
    attempt_means: dict[str, list[Estimate]] = field(default_factory=dict)
    by_run: dict[str, Floats] = field(default_factory=dict)
    audit: dict[str, Lost] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Scores:
    """Comparable scores of one or more agents on one environment.

    Attributes:
        env_id: Gymnasium ID.
        suite: Suite name.
        split: ``"train"`` or ``"test"``.
        tasks: In the suite's order.
        k: Attempts per rollout.
        objective: ``"k-shot"``: the last attempt is scored; ``"k-episode"``: the mean of all.
        condition: Of the adaptation audit; ``"normal"`` unless it is its runs that are scored.
        agents: In the order given.
        improvement: By ordered pair of agents, the probability that the first scores above the second.
        references: The constants used; every scale covers all tasks.
        left_out: The suite's other scales, and the tasks that each has no reference for.
        interval: How intervals are computed, one of :data:`mtbench.scoring.intervals.METHODS`.
        replicates: Bootstrap replicates, where one is used.
        repeated: Held-out tasks that are the same environment as one of training, and which.
        seen: By task, the share of its evaluation variants that training plays too, where that is known and not 0.
        remarks: By task, a sentence of its suite that is printed with its scores.
        versions: By package (mtbench too) of which the runs had several versions: these, and the agents of each.
    """

    env_id: str
    suite: str
    split: str
    tasks: list[str]
    k: int
    objective: str
    condition: Condition
    agents: list[AgentScores]
    improvement: dict[tuple[str, str], Estimate]
    references: References
    left_out: dict[str, list[str]]
    interval: str
    replicates: int
    repeated: dict[str, str]
    seen: dict[str, float]
    remarks: dict[str, str]
    versions: dict[str, dict[str, list[str]]]

    def table(self, format: str = "md") -> str:
        """Every table and note as text, as ``mtbench score`` prints them.

        Args:
            format: One of :data:`mtbench.scoring.report.FORMATS`: ``"md"``, ``"csv"``, ``"json"``, ``"latex"`` or
                ``"html"``.

        Raises:
            ValueError: There is no such format.
        """
        from mtbench.scoring.report import render

        return render(self, format)

    def to_dataframe(self, rows: str = "tasks") -> pd.DataFrame:
        """The scores as a tidy table; :mod:`mtbench.scoring.frames` documents its columns.

        Args:
            rows: ``"tasks"``: one row per agent, scale and task. ``"aggregates"``: one row per agent, scale and
                aggregate over tasks. ``"all"``: both, and the return and success of each attempt.

        Raises:
            ValueError: There are no such rows.
        """
        from mtbench.scoring.frames import frame

        return frame(self, rows)

    def plot(self, scale: str | None = None, by: str = "task") -> Figure:
        """Normalized scores and performance profiles on one scale (by default the first), as a Matplotlib figure.

        Args:
            scale: One of the scales.
            by: ``"attempt"`` shows what each attempt returns instead.

        Raises:
            ValueError: There is no such scale or figure.
        """
        from mtbench.scoring.figures import draw

        return draw(self, scale, by)

    def save_figure(self, path: Path | str, scale: str | None = None, by: str = "task") -> None:
        """Write the figure of :meth:`plot` to a ``.png``, ``.svg`` or ``.pdf`` file.

        Raises:
            ValueError: There is no such file format, scale or figure.
        """
        from mtbench.scoring.figures import save_figure

        save_figure(self, Path(path), scale, by)

    def __str__(self) -> str:
        from mtbench.scoring.report import summary

        return summary(self)

    def __repr__(self) -> str:
        agents = ", ".join(own.agent for own in self.agents)
        return f"<mtbench scores of {agents} on {plain(self.env_id)}, {plain(self.split)} split>"

    def _repr_html_(self) -> str:
        """The scores as notebooks show them."""
        from mtbench.scoring.report import fragment

        return fragment(self)


def score(runs: Sequence[Run], *, seed: int = 0, replicates: int = 2000, interval: str = "jackknife") -> Scores:
    """Score runs; several runs of one agent are its training seeds.

    Args:
        runs: At least one; all of one environment, split and protocol.
        seed: Seeds the bootstrap.
        replicates: Bootstrap replicates.
        interval: ``"jackknife"`` resamples whole runs, or the rollouts of an agent with one run;
            ``"stratified-bootstrap"`` draws runs anew for every task (see :mod:`mtbench.scoring.intervals`).

    Raises:
        RecordError: Runs cannot be compared or pooled; the message names what differs.
        ValueError: There is no run, or no such interval.
    """
    if not runs:
        raise UsageError("There is no run to score.")
    if interval not in METHODS:
        raise unknown_name_error("interval", interval, METHODS, "scores")
    check_comparable(runs)
    first = runs[0].manifest
    tasks = list(first["tasks"])
    suite = find(first["env_id"]).suite  # the registry's, whatever a record says
    known = load_references(suite)
    repeats = suite.repeats if first["split"] == "test" else {}
    seen = suite.seen_variants.get(first["split"], {})
    repeated = {task: repeats[task] for task in tasks if task in repeats}
    by_agent: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_agent[run.manifest["agent"]].append(run)

    rng = np.random.default_rng(seed)
    returns = [run_values(own) for own in by_agent.values()]
    samples = [Sample(values, interval, replicates=replicates, rng=rng) for values in returns]
    names = _shown_names(list(by_agent))
    references = known.covering(tasks)
    agents = []
    for name, own, sample, values in zip(names, by_agent.values(), samples, returns, strict=True):
        agents.append(_score_agent(name, own, sample, references, set(repeated)))
        if all(run.episodes["success"].notna().all() for run in own):
            successes = Sample(run_values(own, "success"), interval, replicates=replicates, rng=rng)
            _add_successes(agents[-1], tasks, successes)
        _add_audit(agents[-1], own, values, references, interval, replicates, rng)
    counted = [scored(values, first["objective"]) for values in returns]
    pairs = {
        (names[i], names[j]): improvement(counted[i], counted[j], interval, replicates=replicates, rng=rng)
        for j in range(len(names))
        for i in range(j)
    }
    return Scores(
        env_id=first["env_id"],
        suite=first["suite"],
        split=first["split"],
        tasks=tasks,
        k=int(first["k"]),
        objective=first["objective"],
        condition=condition_of(first),
        agents=agents,
        improvement=pairs,
        references=references,
        left_out=known.missing(tasks),
        interval=interval,
        replicates=replicates,
        repeated=repeated,
        seen={task: seen[task] for task in tasks if seen.get(task)},
        remarks={task: suite.remarks[task] for task in tasks if task in suite.remarks},
        versions=_other_versions(
            dict(zip(names, by_agent.values(), strict=True)), ("mtbench", *COMMON, *suite.distributions)
        ),
    )


def _other_versions(runs: dict[str, list[Run]], packages: Sequence[str]) -> dict[str, dict[str, list[str]]]:
    """By package of which the runs had several versions: the agents of each version, in order."""
    found: dict[str, dict[str, list[str]]] = {package: defaultdict(list) for package in packages}
    for agent, own in runs.items():
        for run in own:
            had = run.manifest.get("versions")
            for package, by_version in found.items():
                version = plain(str(had[package]))[:40] if isinstance(had, dict) and package in had else "not recorded"
                if agent not in by_version[version]:
                    by_version[version].append(agent)
    return {package: dict(sorted(had.items())) for package, had in found.items() if len(had) > 1}


def check_comparable(runs: Sequence[Run]) -> None:
    """Check that scores of these runs mean the same.

    Raises:
        RecordError: They do not; the message names what differs.
    """
    first = runs[0].manifest
    for run in runs[1:]:
        for key in _SAME:
            if run.manifest.get(key) != first.get(key):
                unlike = _difference(key, first.get(key), run.manifest.get(key))
                raise RecordError(f"{runs[0].name} and {run.name} cannot be compared: {unlike}.")
        if _arguments(run) != _arguments(runs[0]):
            raise RecordError(
                f"{runs[0].name} and {run.name} cannot be compared: the environment's arguments are "
                f"{_arguments(runs[0])} in one and {_arguments(run)} in the other."
            )


def _difference(key: str, mine: Any, theirs: Any) -> str:
    if key != "tasks" or set(mine) == set(theirs):
        return f"{key} is {mine!r} in one and {theirs!r} in the other"
    apart = [task for task in [*mine, *theirs] if (task in mine) != (task in theirs)]
    return f"only one of them has {', '.join(apart[:8])}" + (f", ... ({len(apart)} tasks)" if len(apart) > 8 else "")


def protocol(run: Run) -> list[object]:
    """What scores of a run mean: runs with equal ones can be compared."""
    return [*(run.manifest.get(key) for key in _SAME), _arguments(run)]


def _arguments(run: Run) -> dict[str, object]:
    """Arguments of the environment that change what a score means. The task label is told in a note instead."""
    kwargs = run.manifest["env_kwargs"]
    return {key: value for key, value in kwargs.items() if key not in ("split", "tasks", "expose_task_label")}


def _shown_names(agents: list[str]) -> list[str]:
    """Plain names, numbered where two would look the same."""
    shown: list[str] = []
    for agent in agents:
        name = plain(agent) or "(no name)"
        number = 1
        while (unlike := name if number == 1 else f"{name} ({number})") in shown:
            number += 1
        shown.append(unlike)
    return shown


def run_values(runs: list[Run], column: str = "return") -> Floats:
    """Returns of one agent, or another column of the records, of shape (runs, tasks, rollouts, attempts).

    Raises:
        RecordError: The runs have other numbers of rollouts, or one train seed twice.
    """
    first = runs[0].manifest
    for run in runs[1:]:
        if run.manifest["rollouts_per_task"] != first["rollouts_per_task"]:
            raise RecordError(
                f"{runs[0].name} has {first['rollouts_per_task']} rollouts per task and {run.name} "
                f"{run.manifest['rollouts_per_task']}: an agent's runs must have equally many."
            )
        if run.manifest.get("train_seed") in [r.manifest.get("train_seed") for r in runs if r is not run]:
            raise RecordError(
                f"Two runs of agent {first['agent']!r} have the train seed {run.manifest.get('train_seed')}: name "
                "the agents or the seeds apart (`mtbench evaluate --agent ... --train-seed ...`)."
            )
    shape = (len(first["tasks"]), first["rollouts_per_task"], first["k"])
    stacked = []
    for run in runs:
        values: Floats = run.episodes[column].to_numpy(dtype=np.float64)
        stacked.append(values[row_order(run.episodes, first["tasks"])].reshape(shape))
    return np.stack(stacked)


def _score_agent(name: str, runs: list[Run], sample: Sample, references: References, repeated: set[str]) -> AgentScores:
    manifest = runs[0].manifest
    tasks, objective = manifest["tasks"], manifest["objective"]
    own = AgentScores(
        agent=name,
        runs=len(runs),
        rollouts=int(manifest["rollouts_per_task"]),
        privileged=any(run.manifest.get("privileged") for run in runs),
        task_label_exposed=any(run.manifest.get("task_label_exposed") for run in runs),
        defines=_defined_ends(runs, references),
    )
    own.returns.update(_by_task(tasks, sample.estimate(lambda v: scored(v, objective).mean(axis=-2))))
    own.attempts.update(_by_attempt(tasks, sample))
    own.adaptation.update(_by_task(tasks, sample.estimate(lambda v: (v[..., -1] - v[..., 0]).mean(axis=-2))))
    for scale in references.scales.values():
        _add_scale(own, sample, scale, manifest, repeated)
    return own


def _add_scale(own: AgentScores, sample: Sample, scale: Scale, manifest: dict[str, Any], repeated: set[str]) -> None:
    tasks, objective = manifest["tasks"], manifest["objective"]

    def normalized(returns: Floats) -> Floats:
        """Scores ``(..., runs, tasks)`` of returns ``(..., runs, tasks, attempts)``."""
        counted = scored(returns, objective)
        return np.stack([scale.normalize(task, counted[..., i]) for i, task in enumerate(tasks)], axis=-1)

    own.by_run[scale.name] = normalized(sample.means)

    def by_attempt(returns: Floats) -> Floats:
        each = [scale.normalize(task, returns[..., i, :]) for i, task in enumerate(tasks)]
        return np.asarray(np.mean(each, axis=0).mean(axis=-2), dtype=np.float64)

    of_attempts = sample.estimate(by_attempt)
    own.attempt_means[scale.name] = [of_attempts[i] for i in range(manifest["k"])]
    own.normalized[scale.name] = _by_task(tasks, sample.estimate(lambda v: normalized(v).mean(axis=-2)))
    own.aggregates[scale.name] = _aggregated(sample, normalized)
    new = [task not in repeated for task in tasks]
    if any(new) and not all(new):
        own.new[scale.name] = _aggregated(sample, lambda v: normalized(v)[..., new])
    curve = sample.estimate(
        lambda v: performance_profile(normalized(v), PROFILE_THRESHOLDS), 0.0, 1.0, step=1 / len(tasks)
    )
    own.profiles[scale.name] = np.stack([curve.value, curve.low, curve.high])


def _defined_ends(runs: list[Run], references: References) -> dict[str, int]:
    """By scale, the end whose anchors mtbench measured with the very policy of these runs."""
    policies = {str(run.manifest.get("policy")) for run in runs}
    tasks = runs[0].manifest["tasks"]
    return {
        scale.name: value
        for scale in references.scales.values()
        for value, anchors in enumerate((scale.low, scale.high))
        if all(anchors[task].sem is not None and policies == {anchors[task].entry} for task in tasks)
    }


def _add_successes(own: AgentScores, tasks: list[str], sample: Sample) -> None:
    own.success.update(_by_attempt(tasks, sample, 0.0, 1.0, step=1 / own.rollouts))
    for name, aggregate in SUCCESS_AGGREGATES.items():
        units = aggregate.units(len(tasks), own.rollouts, sample.means.shape[-1])
        own.successes[name] = sample.estimate(aggregate.of, 0.0, 1.0, step=1 / units)[()]


def _add_audit(
    own: AgentScores,
    runs: list[Run],
    values: Floats,
    references: References,
    interval: str,
    replicates: int,
    rng: np.random.Generator,
) -> None:
    first = runs[0].manifest
    for condition, measured in MEASURES.items():
        if all(condition in run.audits for run in runs):
            other = run_values([run.audits[condition] for run in runs])
            both = (values, other, first["tasks"], first["objective"], references, interval)
            own.audit[measured] = lost(*both, replicates=replicates, rng=rng)


def _aggregated(sample: Sample, normalized: Statistic) -> dict[str, Estimate]:
    def estimate(aggregate: Aggregate) -> Estimate:
        return sample.estimate(lambda v: aggregate.of(normalized(v)), aggregate.least, smooth=aggregate.smooth)[()]

    return {name: estimate(aggregate) for name, aggregate in AGGREGATES.items()}


def _by_task(tasks: Sequence[str], estimates: Estimates) -> dict[str, Estimate]:
    return {task: estimates[i] for i, task in enumerate(tasks)}


def _by_attempt(
    tasks: Sequence[str], sample: Sample, least: float = -np.inf, most: float = np.inf, step: float = 0.0
) -> dict[str, list[Estimate]]:
    estimates = sample.estimate(lambda v: v.mean(axis=-3), least, most, step=step)
    return {task: [estimates[i, j] for j in range(estimates.value.shape[-1])] for i, task in enumerate(tasks)}
