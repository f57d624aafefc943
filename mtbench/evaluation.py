"""Policies x suites -> records.

Evaluation visits every task of a split equally often, on a fixed list of cases that is the same for every agent, so
that comparisons are paired. Cases are played in shards of a few rollouts per environment. A finished shard is on disk;
an interrupted evaluation repeats only the shard it was in, and ends with the same records as one that was not
interrupted.
"""

from __future__ import annotations

import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from mtbench import records, registration
from mtbench.errors import UsageError, unknown
from mtbench.files import full_disk_explained
from mtbench.journal import Journal, discard, refuse_other
from mtbench.policy import (
    Policy,
    PrivilegedPolicy,
    RewardedPolicy,
    TrainedPolicy,
    as_policy,
    fingerprint,
    load_policy,
)
from mtbench.provenance import provenance
from mtbench.records import Run
from mtbench.rollout import MetaRollout, keyword_arguments
from mtbench.spaces import stack
from mtbench.suite import Suite

if TYPE_CHECKING:
    import pandas as pd

# Bump when evaluation_cases would return other cases: scores are comparable within one version only.
EVALUATION_VERSION = 1

# Large enough that most rows of a batch stay busy to the end of a shard, small enough to lose little on Ctrl-C.
_ROLLOUTS_PER_ENV_AND_SHARD = 4

_PARTIAL = ".partial"

# What an evaluation lets its caller choose; the rest is its own.
ENV_KWARGS = [name for name in keyword_arguments() if name not in ("split", "render_mode")]

OnRollout = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Case:
    """One meta-rollout that every agent plays alike.

    Attributes:
        task: Task name.
        rollout: Index within the task, from 0.
        seed: For ``reset``.
        variants: One per attempt.
    """

    task: str
    rollout: int
    seed: int
    variants: tuple[int, ...]


def evaluation_cases(suite: Suite, split: str, tasks: Sequence[str], rollouts_per_task: int, k: int) -> list[Case]:
    """The fixed cases of an evaluation, in a fixed order that mixes the tasks.

    A case depends on the suite, split, task, index and :data:`EVALUATION_VERSION` alone: a longer evaluation
    repeats a shorter one's cases and adds to them, and a subset of tasks meets the same cases as all of them.
    """
    names = [zlib.crc32(name.encode()) for name in (suite.name, split)]
    drawn_from = suite.split(split).evaluation
    cases = []
    for task in tasks:
        entropy = [EVALUATION_VERSION, *names, zlib.crc32(task.encode())]
        for rollout in range(rollouts_per_task):
            rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(rollout,)))
            seed = int(rng.integers(2**32))
            variants = drawn_from.sample(rng, k) if suite.attempt_variants == "new" else drawn_from.sample(rng, 1) * k
            cases.append(Case(task, rollout, seed, tuple(variants)))
    order = np.random.default_rng(EVALUATION_VERSION).permutation(len(cases))
    return [cases[i] for i in order]


def evaluate(
    env_id: str,
    policy: Policy | Callable[[Any], Any] | str,
    out: Path | str,
    *,
    split: str = "test",
    rollouts_per_task: int = 20,
    agent: str | None = None,
    seed: int = 0,
    num_envs: int = 32,
    env_kwargs: Mapping[str, Any] | None = None,
    train_seed: int | None = None,
    step: int | None = None,
    command: Sequence[str] = (),
    on_rollout: OnRollout | None = None,
) -> Run:
    """Evaluate a policy and write the records to a folder; call again with the same arguments to resume.

    Args:
        env_id: A registered ID.
        policy: A policy, a function of one observation, or a name for :func:`~mtbench.policy.load_policy`. An object
            is known by its class's name alone: evaluate two of one class in two folders.
        out: The run's folder. A finished run is returned as it is.
        split: ``"train"`` or ``"test"``.
        rollouts_per_task: Meta-rollouts for each task.
        agent: Name for tables; by default the policy's name.
        seed: Seeds the policy's own draws.
        num_envs: Environments played at once. Part of what makes a run repeatable: it decides how a policy's draws
            are shared out.
        env_kwargs: Further arguments of the environment, such as ``{"k": 1}``.
        train_seed: Seed of the agent's training run, if it has one.
        step: Environment steps the agent was trained for, if it was.
        command: The command line, for the manifest.
        on_rollout: Called with (rollouts done, rollouts in all) after each one.

    Raises:
        ValueError: An argument is wrong, or the folder holds an evaluation with other settings.
        RecordError: The folder holds a damaged run.
    """
    out = Path(out)
    registration.find(env_id)
    if rollouts_per_task < 1 or num_envs < 1:
        raise UsageError("`rollouts_per_task` and `num_envs` must be at least 1.")
    for key in env_kwargs or {}:
        if key not in ENV_KWARGS:
            raise unknown("environment argument", key, ENV_KWARGS, "evaluations")
    name = policy if isinstance(policy, str) else _name_of(policy)
    identity = None
    if isinstance(policy, str):
        loaded = load_policy(policy)
        identity = fingerprint(policy, loaded)
    else:
        loaded = as_policy(policy, name)
    if isinstance(loaded, TrainedPolicy):
        name, train_seed, step = loaded.agent, train_seed or loaded.train_seed, step or loaded.step
    arguments = {**(env_kwargs or {}), "split": split}
    environments = [_make(env_id, arguments)]
    first = environments[0]
    settings = {
        "env_id": env_id.removeprefix("mtbench:"),
        "env_kwargs": arguments,
        "suite": first.suite.name,
        "split": split,
        "tasks": first.tasks,
        "k": first.k,
        "objective": first.objective,
        "rollouts_per_task": rollouts_per_task,
        "agent": agent or name,
        "policy": name,
        "policy_sha256": identity,
        "privileged": isinstance(loaded, PrivilegedPolicy),
        "task_label_exposed": first.expose_task_label,
        "train_seed": train_seed,
        "step": step,
        "seed": seed,
        "num_envs": num_envs,
        "evaluation_version": EVALUATION_VERSION,
    }
    settings = json.loads(json.dumps(settings))  # as a manifest read back will compare: tuples are lists there
    try:
        if (out / records.EPISODES).exists() and not any((out / f).exists() for f in (records.MANIFEST, _PARTIAL)):
            raise UsageError(
                f"{out / records.EPISODES} is in the way: it belongs to no evaluation that was begun here."
            )
        if (out / records.MANIFEST).exists():
            finished = records.read_run(out)
            refuse_other(out, finished.manifest, settings)
            discard(out / _PARTIAL)
            return finished
        origin = provenance(first.suite.distributions)
        with full_disk_explained(out), Journal(out / _PARTIAL, {**settings, "versions": origin["versions"]}) as journal:
            cases = evaluation_cases(first.suite, split, first.tasks, rollouts_per_task, first.k)
            environments += [_make(env_id, arguments) for _ in range(min(num_envs, len(cases)) - 1)]
            _play_shards(environments, loaded, cases, settings, journal, on_rollout)
            manifest = {"command": list(command), **settings, **origin, **journal.times()}
            run = records.write_run(out, _sorted(journal.frames(), first.tasks), manifest)
            journal.remove()
            return run
    finally:
        for environment in environments:
            environment.close()


def _name_of(policy: object) -> str:
    return getattr(policy, "__qualname__", None) or type(policy).__qualname__


def _make(env_id: str, arguments: dict[str, Any]) -> MetaRollout:
    env = gym.make(env_id, **arguments).unwrapped
    assert isinstance(env, MetaRollout)
    return env


def _play_shards(
    environments: list[MetaRollout],
    policy: Policy,
    cases: list[Case],
    settings: dict[str, Any],
    journal: Journal,
    on_rollout: OnRollout | None,
) -> None:
    """Play what the journal does not have yet."""
    labels = {key: settings[key] for key in ("suite", "split", "agent", "train_seed", "step")}
    size = settings["num_envs"] * _ROLLOUTS_PER_ENV_AND_SHARD
    report = on_rollout or (lambda done, total: None)
    for index, start in enumerate(range(0, len(cases), size)):
        shard = cases[start : start + size]
        if journal.has(index, shard):
            report(start + len(shard), len(cases))
            continue
        began = time.monotonic()
        rows: list[dict[str, Any]] = []
        for done, rollout in enumerate(_play(environments, policy, shard, _policy_seed(settings["seed"], index)), 1):
            rows += [{**labels, **attempt} for attempt in rollout]
            report(start + done, len(cases))
        journal.add(index, records.episodes_frame(rows), time.monotonic() - began)


def _play(
    environments: list[MetaRollout], policy: Policy, cases: list[Case], seed: int
) -> Iterator[list[dict[str, Any]]]:
    """Play cases in lockstep, a free environment taking the next one; yield each rollout's rows as it ends."""
    environments = environments[: len(cases)]
    n = len(environments)
    space = environments[0].observation_space
    waiting = iter(cases)
    playing: list[Case | None] = [next(waiting) for _ in range(n)]
    observations = [_reset(env, case) for env, case in zip(environments, playing, strict=True) if case is not None]
    reset_mask = np.ones(n, dtype=np.bool_)
    policy.start(n, seed, space, environments[0].action_space)
    if isinstance(policy, PrivilegedPolicy):
        policy.bind(environments)
    while any(case is not None for case in playing):
        actions = policy.act(stack(space, observations), reset_mask.copy())
        if len(actions) != n:
            raise UsageError(f"{type(policy).__name__}.act returned {len(actions)} actions for {n} observations.")
        reset_mask[:] = False
        rewards = np.zeros(n)
        for i, case in enumerate(playing):
            if case is None:
                continue
            observations[i], rewards[i], terminated, truncated, info = environments[i].step(actions[i])
            if terminated or truncated:
                yield _rows(case, info["rollout"])
                playing[i] = case = next(waiting, None)
                if case is not None:
                    observations[i] = _reset(environments[i], case)
                    reset_mask[i] = True
        if isinstance(policy, RewardedPolicy):
            policy.observe_rewards(rewards)


def _reset(environment: MetaRollout, case: Case) -> Any:
    pinned = {"task": case.task, "variant": list(case.variants)}
    return environment.reset(seed=case.seed, options=pinned)[0]


def _rows(case: Case, rollout: dict[str, Any]) -> list[dict[str, Any]]:
    successes = rollout.get("successes")
    return [
        {
            "task": case.task,
            "variant": case.variants[i],
            "rollout": case.rollout,
            "attempt": i + 1,
            "return": rollout["returns"][i],
            "length": rollout["lengths"][i],
            "success": None if successes is None else successes[i],
        }
        for i in range(len(case.variants))
    ]


def _policy_seed(seed: int, shard: int) -> int:
    return int(np.random.SeedSequence([seed, shard]).generate_state(1)[0])


def _sorted(frame: pd.DataFrame, tasks: Sequence[str]) -> pd.DataFrame:
    order = {task: i for i, task in enumerate(tasks)}
    keys = frame.assign(task=frame["task"].map(order))
    index = keys.sort_values(["task", "rollout", "attempt"]).index
    return frame.loc[index].reset_index(drop=True)


def is_run(path: Path) -> bool:
    """Whether a folder holds an evaluation, finished or not, whole or not."""
    return any((path / name).exists() for name in (records.MANIFEST, records.EPISODES, _PARTIAL))
