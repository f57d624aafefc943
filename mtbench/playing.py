"""Play cases in one process, many at a time. A row whose rollout is over takes the next case.

A row is one of the environments of a vector environment. A privileged policy, which reads the environments' hidden
state, and a suite without an engine play on single environments instead: the same rollouts, slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode

from mtbench.cases import Case
from mtbench.errors import UsageError
from mtbench.policy import Policy, PrivilegedPolicy, RewardedPolicy
from mtbench.rollout import MetaRollout
from mtbench.spaces import action_index, box_action, stack
from mtbench.traces import Recorder, Replayed

Statistics = dict[str, npt.NDArray[Any]]
# The columns of the records that differ from row to row.
Columns = dict[str, Any]


class Played(NamedTuple):
    """A rollout that is over.

    Attributes:
        case: What was played.
        statistics: Its ``info["rollout"]``: ``returns``, ``lengths`` and perhaps ``successes``, one for each attempt.
        actions: All of its actions, where they are recorded.
    """

    case: Case
    statistics: Statistics
    actions: npt.NDArray[Any] | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Cases that are played together. Their records depend on nothing outside the shard.

    Attributes:
        index: Its place in the evaluation.
        cases: In the order in which they begin.
        seed: Seeds the policy's draws.
        forgetful: Whether the policy's memory is emptied at the start of every attempt (the adaptation audit).
        recorded: Whether the actions are to be recorded.
        actions: By case, what is played in place of the policy's actions; they are recorded, too.
    """

    index: int
    cases: list[Case]
    seed: int
    forgetful: bool = False
    recorded: bool = False
    actions: list[npt.NDArray[Any]] | None = None


@dataclass(frozen=True, slots=True)
class PlayedShard:
    """The records of a shard.

    Attributes:
        index: Its place in the evaluation.
        columns: A row for each attempt.
        seconds: How long it took to play.
        actions: Of each rollout, in the order of the rows, where they are recorded.
    """

    index: int
    columns: Columns
    seconds: float
    actions: list[npt.NDArray[Any]] | None = None


class Rows(Protocol):
    """Meta-rollouts that advance together. A row whose rollout is over waits until another case begins in it."""

    num_envs: int
    observation_space: gym.Space[Any]
    action_space: gym.Space[Any]

    def begin(self, cases: Mapping[int, Case]) -> None:
        """Begin these cases in their rows."""

    def observations(self) -> Any:
        """The rows' observations as a batch; a waiting row repeats its last one."""

    def step(self, actions: Any) -> tuple[npt.NDArray[np.float64], dict[int, Statistics]]:
        """Play one step in every row that does not wait.

        Returns:
            Rewards ``(num_envs,)``, and the statistics of the rollouts that this step ended, by row.
        """

    def attempts_began(self) -> npt.NDArray[np.bool_]:
        """``(num_envs,)``: in which rows an attempt began with the latest step."""

    def close(self) -> None:
        """Close the environments."""


class SingleRows:
    """Rows on single environments, which a privileged policy may look into.

    Args:
        env_id: A registered ID.
        arguments: The environment's.
        num_envs: How many rows.
    """

    def __init__(self, env_id: str, arguments: Mapping[str, Any], num_envs: int) -> None:
        self.num_envs = num_envs
        self.environments: list[MetaRollout] = []
        for _ in range(num_envs):
            env = gym.make(env_id, **arguments).unwrapped
            assert isinstance(env, MetaRollout)
            self.environments.append(env)
        self.observation_space: gym.Space[Any] = self.environments[0].observation_space
        self.action_space: gym.Space[Any] = self.environments[0].action_space
        self._seen: list[Any] = [None] * num_envs
        self._waiting = np.ones(num_envs, dtype=np.bool_)

    def begin(self, cases: Mapping[int, Case]) -> None:
        """Begin these cases in their rows."""
        for i, case in cases.items():
            self._reset(i, case)
            self._waiting[i] = False
        for i, seen in enumerate(self._seen):
            if seen is None:  # fewer cases than rows: a policy sees, and may look into, the others too
                self._reset(i, next(iter(cases.values())))

    def _reset(self, i: int, case: Case) -> None:
        pinned = {"task": case.task, "variant": list(case.variants)}
        self._seen[i], _ = self.environments[i].reset(seed=case.seed, options=pinned)

    def observations(self) -> Any:
        """The rows' observations as a batch."""
        return stack(self.observation_space, self._seen)

    def step(self, actions: Any) -> tuple[npt.NDArray[np.float64], dict[int, Statistics]]:
        """Play one step in every row that does not wait."""
        rewards, ended = np.zeros(self.num_envs), {}
        for i in np.flatnonzero(~self._waiting).tolist():
            self._seen[i], rewards[i], terminated, truncated, info = self.environments[i].step(actions[i])
            if terminated or truncated:
                ended[i] = info["rollout"]
                self._waiting[i] = True
        return rewards, ended

    def attempts_began(self) -> npt.NDArray[np.bool_]:
        """In which rows an attempt began with the latest step."""
        return np.array([environment.attempt_start for environment in self.environments])

    def close(self) -> None:
        """Close the environments."""
        for environment in self.environments:
            environment.close()


class VectorRows:
    """Rows of one vector environment, on the suite's engine.

    Args:
        venv: An mtbench vector environment with autoreset disabled.
    """

    def __init__(self, venv: Any) -> None:
        self._venv = venv
        venv.lets_finished_wait = True
        self._playing = np.zeros(venv.num_envs, dtype=np.bool_)
        self.num_envs: int = int(venv.num_envs)
        self.observation_space: gym.Space[Any] = venv.single_observation_space
        self.action_space: gym.Space[Any] = venv.single_action_space
        self._seen: Any = None
        self._tasks = [""] * self.num_envs
        self._variants = np.zeros((self.num_envs, venv.k), dtype=np.int64)

    def begin(self, cases: Mapping[int, Case]) -> None:
        """Begin these cases in their rows."""
        seeds: list[int | None] = [None] * self.num_envs
        mask = np.zeros(self.num_envs, dtype=np.bool_)
        for i, case in cases.items():
            seeds[i], mask[i] = case.seed, True
            self._tasks[i], self._variants[i] = case.task, case.variants
        self._playing |= mask
        pinned = {"task": self._tasks, "variant": self._variants, "reset_mask": mask}
        self._seen, _ = self._venv.reset(seed=seeds, options=pinned)

    def observations(self) -> Any:
        """The rows' observations as a batch."""
        return self._seen

    def step(self, actions: Any) -> tuple[npt.NDArray[np.float64], dict[int, Statistics]]:
        """Play one step in every row that does not wait."""
        self._seen, rewards, terminated, truncated, info = self._venv.step(self._batched(actions))
        if "rollout" not in info:
            return rewards, {}
        ended = terminated | truncated
        self._playing &= ~ended
        statistics = {name: value for name, value in info["rollout"].items() if not name.startswith("_")}
        return rewards, {
            i: {name: value[i] for name, value in statistics.items()} for i in np.flatnonzero(ended).tolist()
        }

    def _batched(self, actions: Any) -> npt.NDArray[Any]:
        """A policy's actions as the vector environment takes them; those of waiting rows may be anything."""
        space = self.action_space
        if isinstance(space, gym.spaces.Discrete):
            if isinstance(actions, np.ndarray) and actions.dtype.kind in "iu":
                return actions
            batch = np.zeros(self.num_envs, dtype=np.int64)
        else:
            if isinstance(actions, np.ndarray) and actions.dtype.kind == "f":
                return actions
            batch = np.zeros((self.num_envs, *space.shape), dtype=space.dtype)  # type: ignore[misc]
        for i in np.flatnonzero(self._playing).tolist():
            if isinstance(space, gym.spaces.Discrete):
                batch[i] = action_index(actions[i], int(space.n))
            else:
                batch[i] = box_action(actions[i], space)
        return batch

    def attempts_began(self) -> npt.NDArray[np.bool_]:
        """In which rows an attempt began with the latest step."""
        began: npt.NDArray[np.bool_] = self._venv.attempt_began
        return began

    def close(self) -> None:
        """Close the environments."""
        self._venv.close()


def make_rows(
    env_id: str, arguments: Mapping[str, Any], num_envs: int, privileged: bool, num_workers: int | None = None
) -> Rows:
    """Rows for a policy: on the suite's engine, or on single environments where it has none or the policy needs them.

    Args:
        env_id: A registered ID.
        arguments: The environment's.
        num_envs: How many rows.
        privileged: Whether the policy looks into the environments.
        num_workers: Threads or processes that step the rows; None lets the engine choose. It changes no record.
    """
    from mtbench.vector import make_vec
    from mtbench.vector.rollout import VectorMetaRollout

    if not privileged:
        how = {"autoreset_mode": AutoresetMode.DISABLED, "num_workers": num_workers}
        venv = make_vec(env_id, num_envs, **how, **arguments)
        if isinstance(venv, VectorMetaRollout):
            return VectorRows(venv)
        venv.close()
    return SingleRows(env_id, arguments, num_envs)


def play(
    rows: Rows, policy: Policy, cases: Sequence[Case], seed: int, forgetful: bool = False, recorded: bool = False
) -> Iterator[list[Played]]:
    """Play cases, each once.

    Args:
        rows: Where to play.
        policy: The policy.
        cases: In the order in which they begin.
        seed: Seeds the policy's draws.
        forgetful: Tell the policy at the start of every attempt that a rollout begins, so that it forgets.
        recorded: Record the actions.

    Yields:
        After every step, the rollouts that it ended.

    Raises:
        UsageError: The policy returned another number of actions than there are rows.
    """
    n = rows.num_envs
    waiting = iter(cases)
    playing: dict[int, Case] = dict(zip(range(n), waiting, strict=False))
    policy.start(n, seed, rows.observation_space, rows.action_space)
    if isinstance(policy, PrivilegedPolicy):
        assert isinstance(rows, SingleRows)
        policy.bind(rows.environments)
    rewarded = policy if isinstance(policy, RewardedPolicy) else None  # looked up once: it takes as long as a step
    recorder = Recorder(rows.action_space, n) if recorded else None
    rows.begin(playing)
    reset_mask = np.ones(n, dtype=np.bool_)
    while playing:
        actions = policy.act(rows.observations(), reset_mask.copy())
        if len(actions) != n:
            raise UsageError(f"{type(policy).__name__}.act returned {len(actions)} actions for {n} observations.")
        rewards, ended = rows.step(actions)
        if recorder is not None:
            recorder.add(actions, np.fromiter(playing, np.int64, len(playing)))
        reset_mask[:] = rows.attempts_began() if forgetful else False
        yield [
            Played(playing.pop(i), statistics, None if recorder is None else recorder.taken(i))
            for i, statistics in ended.items()
        ]
        begins = dict(zip(ended, waiting, strict=False))
        if begins:
            rows.begin(begins)
            playing.update(begins)
            reset_mask[list(begins)] = True
        if rewarded is not None:
            rewarded.observe_rewards(rewards)


def play_shard(rows: Rows, policy: Policy, shard: Shard, on_step: Callable[[int], None]) -> PlayedShard:
    """Play a shard.

    Args:
        rows: Where to play.
        policy: The policy.
        shard: What to play.
        on_step: Called after every step with the number of rollouts that it ended.
    """
    began = time.monotonic()
    played: list[Played] = []
    if shard.actions is not None:
        policy = Replayed(shard.actions)
    recorded = shard.recorded or shard.actions is not None
    for ended in play(rows, policy, shard.cases, shard.seed, shard.forgetful, recorded):
        played += ended
        on_step(len(ended))
    actions = [rollout.actions for rollout in played if rollout.actions is not None]
    return PlayedShard(shard.index, columns(played), time.monotonic() - began, actions if recorded else None)


def columns(played: Sequence[Played]) -> Columns:
    """Rollouts as columns of the records, with a row for each attempt."""
    cases, statistics = [rollout.case for rollout in played], [rollout.statistics for rollout in played]
    k = len(cases[0].variants)
    return {
        "task": np.repeat(np.array([case.task for case in cases], dtype=object), k),
        "variant": np.array([case.variants for case in cases], dtype=np.int64).reshape(-1),
        "rollout": np.repeat([case.rollout for case in cases], k),
        "attempt": np.tile(np.arange(1, k + 1), len(cases)),
        "return": np.concatenate([each["returns"] for each in statistics]),
        "length": np.concatenate([each["lengths"] for each in statistics]),
        "success": np.concatenate([each["successes"] for each in statistics]) if "successes" in statistics[0] else None,
    }
