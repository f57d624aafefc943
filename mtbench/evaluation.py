"""Policies x suites -> records.

Evaluation visits every task of a split equally often, on a fixed list of cases that is the same for every agent, so
that comparisons are paired. Cases are played in shards of a few rollouts per environment, by several processes where
that is faster. A finished shard is on disk; an interrupted evaluation repeats only the shards it was in, and ends with
the same records as one that was not interrupted.

This module decides what is played and writes the records. :mod:`mtbench.cases` has the cases, :mod:`mtbench.playing`
plays them in one process and :mod:`mtbench.backends` in several, :mod:`mtbench.journal` keeps what is finished.
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np

from mtbench import records, registration, traces
from mtbench.audit import NORMAL, Condition, audit_conditions
from mtbench.backends import Backend
from mtbench.cases import EVALUATION_VERSION, Case, manifest_cases
from mtbench.checks import check_manifest
from mtbench.errors import UsageError, unknown_name_error
from mtbench.files import full_disk_explained
from mtbench.isolation import IsolatedPolicy
from mtbench.jobs import Setup, ShardPlayer, sendable
from mtbench.journal import Journal, discard, refuse_other
from mtbench.playing import PlayedShard, Shard
from mtbench.policy import Policy, PrivilegedPolicy, TrainedPolicy, as_policy, fingerprint, load_policy
from mtbench.provenance import provenance
from mtbench.records import Run
from mtbench.rollout import MetaRollout, keyword_arguments
from mtbench.suite import Suite

# Large enough that most rows of a batch stay busy to the end of a shard, small enough to lose little on Ctrl-C.
_ROLLOUTS_PER_ENV_AND_SHARD = 4

# Of a trained agent the default of `num_envs`; bounds of that of other policies, and how many shards it aims at: with
# few, some processes have nothing to do while others play the last ones.
_ENVS_OF_AN_AGENT = 32
_FEWEST_ENVS, _MOST_ENVS = 8, 256
_MANY_SHARDS = 8

_PARTIAL = ".partial"

# What an evaluation lets its caller choose; the rest is its own.
ENV_KWARGS = [name for name in keyword_arguments() if name not in ("split", "render_mode")]

OnStart = Callable[[MetaRollout], None]
OnRollout = Callable[[int, int], None]


def evaluate(
    env_id: str,
    policy: Policy | Callable[[Any], Any] | str,
    out: Path | str | None = None,
    *,
    split: str = "test",
    cases: str = "evaluation",
    rollouts_per_task: int = 20,
    agent: str | None = None,
    seed: int = 0,
    num_envs: int | None = None,
    jobs: int | None = None,
    backend: str = "local",
    address: str | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    train_seed: int | None = None,
    step: int | None = None,
    audit: bool = False,
    save_actions: bool = False,
    isolated: bool = False,
    command: Sequence[str] = (),
    on_start: OnStart | None = None,
    on_rollout: OnRollout | None = None,
    player: ShardPlayer | None = None,
) -> Run:
    """Evaluate a policy on the fixed cases that every agent plays.

    Args:
        env_id: A registered ID, such as ``"MTPOPGym-v0"``.
        policy: A policy (:class:`mtbench.Policy`), a function of one observation, or a name such as ``"random"``,
            ``"oracle"``, the folder of a training run or ``"my_policy.py:act"``. An object is known by its class's
            name alone: evaluate two of one class in two folders.
        out: A folder for the records. Calling again with the same arguments resumes an interrupted evaluation and
            returns a finished one. None keeps nothing on disk: the run is in memory, and an interruption loses it.
        split: ``"train"`` or ``"test"``, or another that the suite offers.
        cases: ``"evaluation"``, ``"validation"`` to choose between models without seeing what will judge them, or cases
            of a secret (:func:`mtbench.cases.new_secret`), which nobody can have learnt.
        rollouts_per_task: Meta-rollouts for each task.
        agent: Name for tables; by default the policy's name.
        seed: Seeds the policy's own draws.
        num_envs: Environments played at once by each process. A policy's draws may depend on it: the records say what
            it was. None means 32 for a trained agent, whose memory grows with it, and 8 to 256 for other policies, more
            the more rollouts there are.
        jobs: Processes that play. It changes no record, and may change when an evaluation is resumed. None means the
            cores that this process may use; an evaluation of a few seconds, a policy that other processes cannot load
            (a lambda, an object that cannot be pickled, a class that is defined in a script or notebook) and a policy
            with a model on a GPU play in one process. Several processes use one thread of PyTorch each, and each has
            a copy of the policy: what a policy object counts is then only its own share.
        backend: ``"local"``, or ``"ray"``: the workers of a Ray cluster play, on their CPUs (extra `ray`). `jobs` is
            then how many shards are played at once, by default as many as the cluster has CPUs for. A policy that
            other processes cannot load is refused. The records are the same where the nodes compute alike.
        address: Of the Ray cluster, such as ``"10.0.0.1:6379"``; None starts Ray on this machine, and ends it.
        env_kwargs: Further arguments of the environment, such as ``{"tasks": ["RepeatFirstEasy"]}``.
        train_seed: Seed of the agent's training run, if it has one.
        step: Environment steps the agent was trained for, if it was.
        audit: Also play the conditions of the adaptation audit (:mod:`mtbench.audit`), on the same cases; their runs
            are in :attr:`Run.audits`, and on disk in folders inside `out`.
        save_actions: Also keep every action (:mod:`mtbench.traces`), so that others can play the rollouts again
            (``mtbench verify``). It needs a folder.
        isolated: Run the policy, which must be given by its name, in processes that are locked in and see observations
            and rewards alone (:mod:`mtbench.isolation`). The records are the same, and say so.
        command: The command line, for the manifest.
        on_start: Called with an environment like those that will be played, once the arguments are checked.
        on_rollout: Called with (rollouts done, rollouts in all) after each one.
        player: Plays the shards in place of this process and its workers, on other machines say. It changes no record.

    Raises:
        ValueError: An argument is wrong, or the folder holds an evaluation with other settings.
        RecordError: The folder holds a damaged run.
        WorkerError: A process that played was killed. The finished shards are kept, as after every error.

    Example:
        >>> import mtbench
        >>> chosen = {"tasks": ["RepeatFirstEasy"]}
        >>> run = mtbench.evaluate("MTPOPGym-v0", "random", rollouts_per_task=2, env_kwargs=chosen)
        >>> run
        <mtbench run in memory: random on MTPOPGym-v0, test split, 1 tasks x 2 rollouts x 2 attempts>
        >>> sorted(run.episodes.columns)[:4]
        ['agent', 'attempt', 'length', 'return']
    """
    env_id = registration.find(env_id).id
    _check_arguments({"rollouts_per_task": rollouts_per_task, "num_envs": num_envs}, env_kwargs or {})
    where = Backend(backend, address, jobs)
    hidden = () if out is None else (Path(out),)
    known = _known(policy, train_seed, step, hidden if isolated else None)
    arguments = {**(env_kwargs or {}), "split": split}
    one = gym.make(env_id, **arguments).unwrapped  # it checks the arguments
    assert isinstance(one, MetaRollout)
    one.close()
    if on_start is not None:
        on_start(one)
    rollouts = len(one.tasks) * rollouts_per_task
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
        "agent": agent or known.name,
        "policy": known.name,
        "policy_sha256": known.identity,
        "privileged": isinstance(known.policy, PrivilegedPolicy),
        "task_label_exposed": one.expose_task_label,
        "train_seed": known.train_seed,
        "step": known.step,
        "seed": seed,
        "num_envs": num_envs or _default_num_envs(rollouts, known.policy),
        "evaluation_version": EVALUATION_VERSION,
    }
    if isolated:
        settings["isolated"] = True
    if save_actions:
        if out is None:
            raise UsageError("Actions are kept in a folder: give `out`.")
        settings[traces.SAVED] = True
    settings = json.loads(json.dumps(settings))  # as a manifest read back will compare: tuples are lists there
    plan = _Plan(known, settings, one.suite, one.action_space, hidden, where, tuple(command), on_rollout, player)
    conditions = audit_conditions(one.suite, one.k) if audit else []
    try:
        if out is not None:
            return _carry_out_all(plan, conditions, Path(out))
        with tempfile.TemporaryDirectory(prefix="mtbench-") as folder:
            return _carry_out_all(plan, conditions, Path(folder)).in_memory()
    finally:
        if isinstance(known.policy, IsolatedPolicy):
            known.policy.close()


class _Plan(NamedTuple):
    """What to play, and the arguments of :func:`evaluate` that say how."""

    known: _Known
    settings: dict[str, Any]
    suite: Suite
    actions: gym.Space[Any]
    hidden: tuple[Path, ...]
    backend: Backend
    command: Sequence[str]
    on_rollout: OnRollout | None
    player: ShardPlayer | None


def _carry_out_all(plan: _Plan, audit: Sequence[Condition], out: Path) -> Run:
    """The normal condition, and then those of the audit, in folders inside."""
    plans = [plan._replace(settings=_under(plan.settings, condition)) for condition in (NORMAL, *audit)]
    for each in plans:
        check_manifest(out, {**each.settings, "episodes_sha256": ""})  # what could not be read back is not played
    cases = [
        manifest_cases(each.suite, each.settings) for each in plans
    ]  # before anything is played: an audit may have too few of them
    total, before = sum(map(len, cases)), 0

    def report(done: int, _: int) -> None:
        if plan.on_rollout is not None:
            plan.on_rollout(before + done, total)

    runs = []
    for each, own, condition in zip(plans, cases, (NORMAL, *audit), strict=True):
        folder = out if condition == NORMAL else out / condition
        runs.append(_carry_out(each._replace(on_rollout=report), own, folder))
        before += len(own)
    return dataclasses.replace(runs[0], audits={**runs[0].audits, **dict(zip(audit, runs[1:], strict=True))})


def _under(settings: dict[str, Any], condition: Condition) -> dict[str, Any]:
    """The settings of a condition; those of the normal one do not mention it."""
    return settings if condition == NORMAL else {**settings, "condition": condition}


def _carry_out(plan: _Plan, cases: list[Case], out: Path) -> Run:
    settings = plan.settings
    finished = _finished(out, settings)
    if finished is not None:
        return finished
    origin = provenance(plan.suite.distributions)
    space = plan.actions if settings.get(traces.SAVED) else None
    planned = {**settings, "versions": origin["versions"]}
    with full_disk_explained(out), Journal(out / _PARTIAL, planned, space) as journal:
        _play(journal, plan, cases)
        manifest = {"command": list(plan.command), **settings, **origin, **journal.times()}
        frame = journal.frames()
        order = records.row_order(frame, settings["tasks"])
        if space is not None:
            actions, rollouts = journal.actions(), order[:: settings["k"]] // settings["k"]
            manifest[traces.DIGEST] = traces.write_actions(out / traces.ACTIONS, [actions[i] for i in rollouts])
        run = records.write_run(out, frame.iloc[order].reset_index(drop=True), manifest)
        journal.remove()
        return run


class _Known(NamedTuple):
    """A policy and what is known of it; as :func:`evaluate` describes its arguments."""

    policy: Policy
    name: str
    given: Policy | Callable[[Any], Any] | str
    identity: str | None
    train_seed: int | None
    step: int | None


def _known(
    given: Policy | Callable[[Any], Any] | str,
    train_seed: int | None,
    step: int | None,
    hidden: tuple[Path, ...] | None,
) -> _Known:
    """With `hidden`, folders that the policy must not read, it is isolated."""
    policy: Policy
    if hidden is not None:
        if not isinstance(given, str):
            raise UsageError("An isolated policy is given by its name: it must not be made in this process.")
        name = given
        policy = locked_in = IsolatedPolicy(given, hidden)
        identity = locked_in.identity
    elif isinstance(given, str):
        name, policy = given, load_policy(given)
        identity = fingerprint(given, policy)
    else:
        name = getattr(given, "__qualname__", None) or type(given).__qualname__
        policy, identity = as_policy(given, name), None
    if isinstance(policy, TrainedPolicy):
        name = policy.agent
        train_seed = policy.train_seed if train_seed is None else train_seed
        step = policy.step if step is None else step
    return _Known(policy, name, given, identity, train_seed, step)


def _check_arguments(counts: Mapping[str, int | None], env_kwargs: Mapping[str, Any]) -> None:
    for name, count in counts.items():
        if count is not None and count < 1:
            raise UsageError(f"`{name}` must be at least 1.")
    for key in env_kwargs:
        if key not in ENV_KWARGS:
            raise unknown_name_error("environment argument", key, ENV_KWARGS, "evaluations")


def _default_num_envs(rollouts: int, policy: Policy) -> int:
    """A power of two. Larger batches cost less for each step, but there must be shards for many cores."""
    if isinstance(policy, TrainedPolicy):
        return _ENVS_OF_AN_AGENT
    wanted = rollouts // (_ROLLOUTS_PER_ENV_AND_SHARD * _MANY_SHARDS)
    return int(min(max(1 << wanted.bit_length(), _FEWEST_ENVS), _MOST_ENVS))


def _finished(out: Path, settings: dict[str, Any]) -> Run | None:
    """The evaluation that the folder holds, if it is finished; an error if it is another one."""
    if (out / records.EPISODES).exists() and not any((out / f).exists() for f in (records.MANIFEST, _PARTIAL)):
        raise UsageError(f"{out / records.EPISODES} is in the way: it belongs to no evaluation that was begun here.")
    if is_training_run(out) and not is_run(out):
        raise UsageError(f"{out} holds a training run: give another folder with --out.")
    if not (out / records.MANIFEST).exists():
        return None
    finished = records.read_run(out)
    refuse_other(out, finished.manifest, settings)
    discard(out / _PARTIAL)
    return finished


def _play(journal: Journal, plan: _Plan, cases: list[Case]) -> None:
    """Play what the journal does not have yet."""
    known, settings = plan.known, plan.settings
    report = plan.on_rollout or (lambda done, total: None)
    labels = {key: settings[key] for key in ("suite", "split", "agent", "train_seed", "step")}
    missing, done = [], 0
    for shard in _shards(cases, settings):
        if journal.has(shard.index, shard.cases):
            done += len(shard.cases)
            report(done, len(cases))
        else:
            missing.append(shard)

    def on_rollouts(ended: int) -> None:
        nonlocal done
        for _ in range(ended):
            done += 1
            report(done, len(cases))

    def on_shard(played: PlayedShard) -> None:
        frame = records.episodes_frame({**labels, **played.columns})
        journal.add(played.index, frame, played.seconds, played.actions)

    if missing:
        setup = _setup(known, settings, len(cases), plan.hidden)
        (plan.player or plan.backend.play)(setup, known.policy, missing, on_rollouts, on_shard)


def _shards(cases: list[Case], settings: dict[str, Any]) -> Iterator[Shard]:
    size = settings["num_envs"] * _ROLLOUTS_PER_ENV_AND_SHARD
    for index, start in enumerate(range(0, len(cases), size)):
        seed = int(np.random.SeedSequence([settings["seed"], index]).generate_state(1)[0])
        forgetful, recorded = settings.get("condition") == "no-memory", settings.get(traces.SAVED, False)
        yield Shard(index, cases[start : start + size], seed, forgetful, recorded)


def _setup(known: _Known, settings: dict[str, Any], cases: int, hidden: tuple[Path, ...]) -> Setup:
    spec, rows = gym.spec(settings["env_id"]), min(settings["num_envs"], cases)
    sent = known.given if isinstance(known.given, str) else sendable(known.policy)
    isolated = hidden if isinstance(known.policy, IsolatedPolicy) else None
    return Setup(spec, settings["env_kwargs"], rows, sent, known.identity, isolated)


def is_run(path: Path) -> bool:
    """Whether a folder holds an evaluation, finished or not, whole or not."""
    return any((path / name).exists() for name in (records.MANIFEST, records.EPISODES, _PARTIAL))


def is_training_run(path: Path) -> bool:
    """Whether a folder holds a training run."""
    return all((path / name).is_file() for name in ("config.json", "log.jsonl"))
