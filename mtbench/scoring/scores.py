"""Runs -> scores: per task and in aggregate, on every scale of the suite, with intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mtbench.errors import UsageError
from mtbench.records import RecordError, Run
from mtbench.scoring.aggregates import (
    AGGREGATES,
    Floats,
    bootstrap,
    interval,
    performance_profile,
    probability_of_improvement,
)
from mtbench.scoring.references import References, Scale, load_references
from mtbench.scoring.scored import scored
from mtbench.suite import load_suite

# What two runs must share for their scores to be comparable.
_SAME = ("env_id", "suite", "split", "cases", "tasks", "k", "objective", "evaluation_version")

PROFILE_THRESHOLDS = np.linspace(-0.2, 1.2, 141)
COVERED = 2 / 3  # of a task's attempts succeed where it is covered


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class AgentScores:
    """One agent's scores.

    Attributes:
        agent: Name.
        runs: Training runs (or evaluations of a scripted policy).
        rollouts: Rollouts per task and run.
        privileged: It reads hidden state.
        task_label_exposed: It was told the task.
        returns: By task, the scored return on the default reward scale.
        attempts: By task, the return of each attempt.
        adaptation: By task, last attempt minus first.
        normalized: By scale, then task.
        aggregates: By scale, then aggregate.
        new: The same of those tasks alone that repeat none of training; empty where none does.
        success: By task, the share of successes in each attempt; empty where the suite defines none.
        successes: ``"success"`` of all attempts, mean over tasks, and ``"coverage"``: the share of tasks whose attempts
            succeed at least two times in three (AMAGO-2, Figure 4).
        profiles: By scale, the share of run-task scores above each of :data:`PROFILE_THRESHOLDS`, an array of
            shape (3, thresholds): estimate, low, high.
    """

    agent: str
    runs: int
    rollouts: int
    privileged: bool
    task_label_exposed: bool
    returns: dict[str, Estimate] = field(default_factory=dict)
    attempts: dict[str, list[Estimate]] = field(default_factory=dict)
    adaptation: dict[str, Estimate] = field(default_factory=dict)
    normalized: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    aggregates: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    new: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    success: dict[str, list[Estimate]] = field(default_factory=dict)
    successes: dict[str, Estimate] = field(default_factory=dict)
    profiles: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Scores:
    """Comparable scores of one or more agents on one environment.

    Attributes:
        env_id: Gymnasium ID.
        suite: Suite name.
        split: ``"train"`` or ``"test"``.
        tasks: In the suite's order.
        k: Attempts per rollout.
        objective: ``"k-shot"``: the last attempt is scored; ``"k-episode"``: the mean of all.
        agents: In the order given.
        improvement: By ordered pair of agents, the probability that the first scores above the second.
        references: The constants used.
        replicates: Bootstrap replicates behind every interval.
        repeated: Held-out tasks that are the same environment as one of training, and which.
    """

    env_id: str
    suite: str
    split: str
    tasks: list[str]
    k: int
    objective: str
    agents: list[AgentScores]
    improvement: dict[tuple[str, str], Estimate]
    references: References
    replicates: int
    repeated: dict[str, str]


def score(runs: Sequence[Run], *, seed: int = 0, replicates: int = 2000) -> Scores:
    """Score runs; several runs of one agent are its training seeds.

    Args:
        runs: At least one; all of one environment, split and protocol.
        seed: Seeds the bootstrap.
        replicates: Bootstrap replicates.

    Raises:
        RecordError: Runs cannot be compared or pooled; the message names what differs.
        ValueError: There is no run, or a task has no reference.
    """
    if not runs:
        raise UsageError("There is no run to score.")
    first = runs[0].manifest
    for run in runs[1:]:
        for key in _SAME:
            if run.manifest.get(key) != first.get(key):
                raise RecordError(
                    f"{runs[0].path} and {run.path} cannot be compared: {key} is {first.get(key)!r} in one and "
                    f"{run.manifest.get(key)!r} in the other."
                )
        if _protocol(run) != _protocol(runs[0]):
            raise RecordError(
                f"{runs[0].path} and {run.path} cannot be compared: the environment's arguments are "
                f"{_protocol(runs[0])} in one and {_protocol(run)} in the other."
            )
    references = load_references(first["suite"])
    repeats = load_suite(first["suite"]).repeats if first["split"] == "test" else {}
    repeated = {task: repeats[task] for task in first["tasks"] if task in repeats}
    by_agent: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_agent[run.manifest["agent"]].append(run)

    rng = np.random.default_rng(seed)
    returns = {agent: _returns(own) for agent, own in by_agent.items()}
    agents = [
        _score_agent(own, returns[agent], references, set(repeated), replicates, rng) for agent, own in by_agent.items()
    ]
    counted = {agent: scored(values, first["objective"]) for agent, values in returns.items()}
    improvement = {
        (x, y): _improvement(counted[x], counted[y], replicates, rng)
        for i, x in enumerate(counted)
        for j, y in enumerate(counted)
        if i < j
    }
    return Scores(
        env_id=first["env_id"],
        suite=first["suite"],
        split=first["split"],
        tasks=list(first["tasks"]),
        k=int(first["k"]),
        objective=first["objective"],
        agents=agents,
        improvement=improvement,
        references=references,
        replicates=replicates,
        repeated=repeated,
    )


def _protocol(run: Run) -> dict[str, object]:
    """Arguments of the environment that change what a score means. The task label is told in a note instead."""
    kwargs = run.manifest["env_kwargs"]
    return {key: value for key, value in kwargs.items() if key not in ("split", "tasks", "expose_task_label")}


def _returns(runs: list[Run], column: str = "return") -> Floats:
    """Returns of one agent, or another column of the records, of shape (runs, tasks, rollouts, attempts)."""
    first = runs[0].manifest
    for run in runs[1:]:
        if run.manifest["rollouts_per_task"] != first["rollouts_per_task"]:
            raise RecordError(
                f"{runs[0].path} has {first['rollouts_per_task']} rollouts per task and {run.path} "
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
        order = {task: i for i, task in enumerate(first["tasks"])}
        keyed = run.episodes.assign(order=run.episodes["task"].map(order))
        rows = keyed.sort_values(["order", "rollout", "attempt"])
        stacked.append(rows[column].to_numpy(dtype=np.float64).reshape(shape))
    return np.stack(stacked)


def _score_agent(
    runs: list[Run],
    returns: Floats,
    references: References,
    repeated: set[str],
    replicates: int,
    rng: np.random.Generator,
) -> AgentScores:
    manifest = runs[0].manifest
    tasks = manifest["tasks"]
    own = AgentScores(
        agent=manifest["agent"],
        runs=len(runs),
        rollouts=int(manifest["rollouts_per_task"]),
        privileged=any(run.manifest.get("privileged") for run in runs),
        task_label_exposed=any(run.manifest.get("task_label_exposed") for run in runs),
    )
    # Everything below is linear in these or a function of them, so one bootstrap serves all.
    attempts, replicated_attempts = returns.mean(axis=2), bootstrap(returns, replicates, rng)
    point, replicated = (scored(each, manifest["objective"]) for each in (attempts, replicated_attempts))
    own.returns.update(_per_task(tasks, point, replicated))
    own.attempts.update(_per_attempt(tasks, attempts, replicated_attempts))
    gain, replicated_gain = (v[..., -1] - v[..., 0] for v in (attempts, replicated_attempts))
    own.adaptation.update(_per_task(tasks, gain, replicated_gain))
    for name, scale in references.scales.items():
        score, spread = (_normalize(scale, tasks, v) for v in (point, replicated))
        own.normalized[name] = _per_task(tasks, score, spread)
        own.aggregates[name] = _aggregated(score, spread)
        if repeated:
            new = [task not in repeated for task in tasks]
            own.new[name] = _aggregated(score[..., new], spread[..., new])
        curves = performance_profile(spread, PROFILE_THRESHOLDS)
        own.profiles[name] = np.stack([performance_profile(score, PROFILE_THRESHOLDS), *interval(curves)])
    if all(run.episodes["success"].notna().all() for run in runs):
        successes = _returns(runs, "success")
        attempts, replicated_attempts = successes.mean(axis=2), bootstrap(successes, replicates, rng)
        own.success.update(_per_attempt(tasks, attempts, replicated_attempts))
        rate, spread = attempts.mean(axis=-1), replicated_attempts.mean(axis=-1)
        own.successes["success"] = _estimate(rate.mean(), spread.mean(axis=(1, 2)))
        covered, spread = (v >= COVERED - 1e-9 for v in (rate, spread))
        own.successes["coverage"] = _estimate(covered.mean(), spread.mean(axis=(1, 2)))
    return own


def _aggregated(score: Floats, spread: Floats) -> dict[str, Estimate]:
    return {key: _estimate(f(score), f(spread)) for key, f in AGGREGATES.items()}


def _normalize(scale: Scale, tasks: Sequence[str], scores: Floats) -> Floats:
    """Scores with tasks on the last axis, on a scale."""
    return np.stack([scale.normalize(task, scores[..., i]) for i, task in enumerate(tasks)], axis=-1)


def _per_task(tasks: Sequence[str], point: Floats, replicated: Floats) -> dict[str, Estimate]:
    """Estimates by task from ``(runs, tasks)`` and ``(replicates, runs, tasks)``."""
    over_runs, spread = point.mean(axis=0), replicated.mean(axis=1)
    return {task: _estimate(over_runs[i], spread[:, i]) for i, task in enumerate(tasks)}


def _per_attempt(tasks: Sequence[str], point: Floats, replicated: Floats) -> dict[str, list[Estimate]]:
    """The same of every attempt, which are on a further axis, the last."""
    each = [_per_task(tasks, point[..., i], replicated[..., i]) for i in range(point.shape[-1])]
    return {task: [attempt[task] for attempt in each] for task in tasks}


def _estimate(point: Floats | float, replicated: Floats) -> Estimate:
    low, high = interval(replicated)
    return Estimate(float(point), float(low), float(high))


def _improvement(x: Floats, y: Floats, replicates: int, rng: np.random.Generator) -> Estimate:
    """Between runs where both agents have several, else between rollouts. Takes ``(runs, tasks, rollouts)``."""
    several = len(x) > 1 and len(y) > 1
    samples = [list(v.mean(axis=-1).T) if several else list(np.concatenate(list(v), axis=1)) for v in (x, y)]
    return _estimate(*probability_of_improvement(samples[0], samples[1], replicates, rng))
