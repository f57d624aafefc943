"""Policies x suites -> records.

Evaluation visits every task of a split equally often, on a fixed list of cases that is the same for every agent, so
that comparisons are paired. Cases are played in shards of a few rollouts per environment. A finished shard is on disk;
an interrupted evaluation repeats only the shard it was in, and ends with the same records as one that was not
interrupted.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np

from mtbench import records, registration
from mtbench.cases import EVALUATION_VERSION, Case, Use, evaluation_cases
from mtbench.checks import check_manifest
from mtbench.errors import UsageError, unknown
from mtbench.files import full_disk_explained
from mtbench.journal import Journal, discard, refuse_other
from mtbench.playing import Rows, make_rows, play
from mtbench.policy import Policy, PrivilegedPolicy, TrainedPolicy, as_policy, fingerprint, load_policy
from mtbench.provenance import provenance
from mtbench.records import Run
from mtbench.rollout import MetaRollout, keyword_arguments

if TYPE_CHECKING:
    import pandas as pd

# Large enough that most rows of a batch stay busy to the end of a shard, small enough to lose little on Ctrl-C.
_ROLLOUTS_PER_ENV_AND_SHARD = 4

_PARTIAL = ".partial"

# What an evaluation lets its caller choose; the rest is its own.
ENV_KWARGS = [name for name in keyword_arguments() if name not in ("split", "render_mode")]

OnRollout = Callable[[int, int], None]


def evaluate(
    env_id: str,
    policy: Policy | Callable[[Any], Any] | str,
    out: Path | str,
    *,
    split: str = "test",
    cases: Use = "evaluation",
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
        split: ``"train"`` or ``"test"``, or another that the suite offers.
        cases: ``"evaluation"``, or ``"validation"`` to choose between models without seeing what will judge them.
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
    env_id = registration.find(env_id).id
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
        name = loaded.agent
        train_seed = loaded.train_seed if train_seed is None else train_seed
        step = loaded.step if step is None else step
    arguments = {**(env_kwargs or {}), "split": split}
    one = gym.make(env_id, **arguments).unwrapped  # first of all: it checks the arguments
    assert isinstance(one, MetaRollout)
    one.close()
    settings = {
        "env_id": env_id,
        "env_kwargs": arguments,
        "suite": one.suite.name,
        "split": split,
        "cases": cases,
        "tasks": one.tasks,
        "k": one.k,
        "objective": one.objective,
        "rollouts_per_task": rollouts_per_task,
        "agent": agent or name,
        "policy": name,
        "policy_sha256": identity,
        "privileged": isinstance(loaded, PrivilegedPolicy),
        "task_label_exposed": one.expose_task_label,
        "train_seed": train_seed,
        "step": step,
        "seed": seed,
        "num_envs": num_envs,
        "evaluation_version": EVALUATION_VERSION,
    }
    settings = json.loads(json.dumps(settings))  # as a manifest read back will compare: tuples are lists there
    check_manifest(out, {**settings, "episodes_sha256": ""})  # what could not be read back is not played
    if (out / records.EPISODES).exists() and not any((out / f).exists() for f in (records.MANIFEST, _PARTIAL)):
        raise UsageError(f"{out / records.EPISODES} is in the way: it belongs to no evaluation that was begun here.")
    if (out / records.MANIFEST).exists():
        finished = records.read_run(out)
        refuse_other(out, finished.manifest, settings)
        discard(out / _PARTIAL)
        return finished
    played = evaluation_cases(one.suite, split, one.tasks, rollouts_per_task, one.k, cases)
    origin = provenance(one.suite.distributions)
    with full_disk_explained(out), Journal(out / _PARTIAL, {**settings, "versions": origin["versions"]}) as journal:
        rows = make_rows(env_id, arguments, min(num_envs, len(played)), isinstance(loaded, PrivilegedPolicy))
        try:
            _play_shards(rows, loaded, played, settings, journal, on_rollout)
        finally:
            rows.close()
        manifest = {"command": list(command), **settings, **origin, **journal.times()}
        run = records.write_run(out, _sorted(journal.frames(), one.tasks), manifest)
        journal.remove()
        return run


def _name_of(policy: object) -> str:
    return getattr(policy, "__qualname__", None) or type(policy).__qualname__


def _play_shards(
    rows: Rows,
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
        attempts: list[dict[str, Any]] = []
        for done, rollout in enumerate(play(rows, policy, shard, _policy_seed(settings["seed"], index)), 1):
            attempts += [{**labels, **attempt} for attempt in rollout]
            report(start + done, len(cases))
        journal.add(index, records.episodes_frame(attempts), time.monotonic() - began)


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
