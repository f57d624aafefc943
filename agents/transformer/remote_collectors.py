"""Collectors on a Ray cluster. Each is an actor with a copy of the policy and environments of its own.

The learner's process asks an actor for some steps at a time, with the version of the weights to act with, and gets the
rollouts that ended meanwhile. It has at most two requests with each actor, so that finished rollouts wait in the
object store in a bounded number, however slow the learner is. Weights go there once for each version.

An actor that is lost is replaced by another one, with other seeds. What it had under way is lost and counted; a
request's rollouts arrive together or not at all, so that none counts twice.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch
from gymnasium.envs.registration import EnvSpec

from mtbench.clusters import first_line, joined, other_versions
from mtbench.errors import UsageError
from mtbench.jobs import Failed, Refused
from mtbench.policy import search_path
from mtbench.provenance import versions
from mtbench.registration import find
from mtbench.vector import make_vec

from .acting import ActingModel
from .collector import UNFINISHED, Collector, explored
from .config import TrainConfig
from .learner import Learner
from .model import AgentModel
from .replay import Rollout
from .trees import leaves

Array = npt.NDArray[Any]

# Requests with each actor: it works on one while the other one's answer, or the request itself, travels.
_AHEAD = 2
# Steps of an actor's batch for each request: few, since weights change and rollouts arrive between requests only.
_BATCH_STEPS = 32
# Losses of one actor in a row, without an answer between, after which there is probably no point in another one.
_MOST_LOSSES = 10
# Seconds between two looks for signals.
_LISTENING = 0.1
# First of the numbers that fix an actor's seeds: those of a collector in the learner's process begin otherwise.
_ERA = 3
_UNDER_WAY = "remote.unfinished"


@dataclass(frozen=True)
class _Plan:
    """What an actor is made of.

    Attributes:
        config: All settings.
        spec: The environment's: it may be registered by the caller's own code only.
        versions: That the learner's process has.
        path: Where that process finds modules.
        begun: Steps of the run when these actors began: a resumed run draws other rollouts.
    """

    config: TrainConfig
    spec: EnvSpec
    versions: Mapping[str, str]
    path: list[str]
    begun: int


@dataclass(frozen=True)
class Collected:
    """A rollout of an actor.

    Attributes:
        identity: The actor's number, how many were lost before it, and the rollout's number there.
        version: Updates of the weights that it began with.
        rollout: The rollout.
        returns: Of its attempts, where the environment says.
    """

    identity: tuple[int, int, int]
    version: int
    rollout: Rollout
    returns: Array | None


class Actor:
    """Collects in a process of its own.

    Args:
        plan: What to collect.
        number: Which of the collectors it is.
        incarnation: How many were lost before it.
    """

    def __init__(self, plan: _Plan, number: int, incarnation: int) -> None:
        self._plan, self._number, self._incarnation = plan, number, incarnation
        self._collector: Collector | None = None
        self._rollouts = 0
        self._batch_steps = 0
        self._version: int | None = None
        self._since: list[tuple[int, int]] = []  # batch steps from which on weights acted, and their versions

    def collect(
        self, version: int, weights: list[Any], done: int, steps: int
    ) -> tuple[list[Collected], int] | Refused | Failed:
        """Take at least `steps` steps.

        Args:
            version: Updates of the weights.
            weights: A reference to them, in a list, so that they are fetched only when they are new.
            done: Steps of the whole run: exploration follows them.
            steps: Over all environments.

        Returns:
            The rollouts that ended, and the steps taken; or why there are none.
        """
        try:
            if self._collector is None:
                different = other_versions(self._plan.versions)
                if different:
                    return Refused(f"{different} Install the same ones.")
                self._collector = self._made()
            return self._collect(self._collector, version, weights, done, steps)
        except BaseException as error:
            return Failed.of(error)

    def _made(self) -> Collector:
        config, plan = self._plan.config, self._plan
        sys.path[:] = dict.fromkeys([*plan.path, *sys.path])
        gym.registry.setdefault(plan.spec.id, plan.spec)
        torch.set_num_threads(1)
        envs = make_vec(config.env_id, config.collect.num_envs, num_workers=1, **config.env)
        spaces = envs.single_observation_space, envs.single_action_space
        self._acting = ActingModel(AgentModel.seeded(config.seed, config.model, config.learning, *spaces))
        collector = Collector(envs, config.collect, config.seed, torch.device("cpu"))
        collector.restart(_ERA, self._number, plan.begun, self._incarnation)
        return collector

    def _collect(
        self, collector: Collector, version: int, weights: list[Any], done: int, steps: int
    ) -> tuple[list[Collected], int]:
        import ray

        if version != self._version:
            self._acting.take(ray.get(weights[0]))
            self._version = version
            self._since.append((self._batch_steps + 1, version))
        collector.steps = done
        found = []
        for rollout, returns in collector.collect(self._acting, steps, self._begins_a_step):
            identity = self._number, self._incarnation, self._rollouts
            found.append(Collected(identity, self._version_of(rollout), rollout, returns))
            self._rollouts += 1
        return found, collector.steps - done

    def _begins_a_step(self) -> bool:
        self._batch_steps += 1
        return False

    def _version_of(self, rollout: Rollout) -> int:
        """Of the weights that took its first action; it ended with the latest step."""
        began = self._batch_steps - len(rollout.rewards) + 1
        return self._since[max(0, bisect_right(self._since, (began, sys.maxsize)) - 1)][1]


@dataclass
class _Member:
    """An actor as the learner's process knows it."""

    number: int
    actor: Any
    incarnation: int = 0
    asked: int = 0  # requests without an answer
    losses: int = 0  # in a row


@dataclass
class _Counts:
    """Of a round, for the log."""

    lags: list[int] = field(default_factory=list)
    requests: int = 0
    bytes: int = 0
    lost_collectors: int = 0
    lost_requests: int = 0
    lost_rollouts: int = 0
    dropped_by_resuming: int = 0


class RemoteCollectors:
    """N actors that collect for one learner. They begin with the first call of :meth:`rollouts`.

    Args:
        config: All settings.
        count: N.
        address: Of the cluster, as for :func:`mtbench.clusters.joined`.
        examples: An observation and an action.
        learner: Whose weights act.

    Attributes:
        steps: Environment steps taken, of requests that were answered.
        on_collected: Called with each rollout that arrives; tests listen here.
    """

    def __init__(
        self, config: TrainConfig, count: int, address: str | None, examples: tuple[Any, Array], learner: Learner
    ) -> None:
        self.steps: Any = 0
        self.examples = examples
        self.on_collected: Callable[[Collected], None] = lambda collected: None
        self._config, self._count, self._learner = config, count, learner
        self._copy = ActingModel(learner.acting)
        self._lock = threading.Lock()  # of the weights
        self._weights: tuple[int, list[Any]] | None = None
        self._members: list[_Member] = []
        self._flying: dict[futures.Future[Any], tuple[_Member, int]] = {}
        self._counts = _Counts()
        self._joined = contextlib.ExitStack()
        self._ray = self._joined.enter_context(joined(address, count))
        cores = int(self._ray.cluster_resources().get("CPU", 0))
        if cores < count:
            warnings.warn(
                f"The Ray cluster has {cores} CPUs for {count} collectors, which need one each: the others wait until "
                "there are more.",
                stacklevel=2,
            )

    @property
    def epsilon(self) -> float:
        """Exploration now."""
        return explored(self._config.collect, self.steps)

    # ---- weights ----

    def load(self, model: AgentModel, updates: int) -> None:
        """Act with these weights in requests from now on."""
        if self._weights is None or self._weights[0] != updates:
            self.renew(model, updates)

    def renew(self, model: AgentModel, updates: int) -> None:
        """Act with these weights in requests from now on."""
        self._copy.load(model)
        reference = self._ray.put(self._copy.weights())
        with self._lock:
            self._weights = updates, [reference]

    # ---- rollouts ----

    def rollouts(self, steps: int, stopped: Callable[[], bool]) -> Iterator[tuple[Rollout, Array | None]]:
        """Have at least so many steps taken; yield the rollouts that arrive meanwhile."""
        target = self.steps + steps
        if not self._members:
            self._plan = self._made_plan()
            self._members = [_Member(number, self._begun(number, 0)) for number in range(self._count)]
        while self.steps < target and not stopped():
            self._ask(target - self.steps)
            landed, _ = futures.wait(self._flying, _LISTENING, futures.FIRST_COMPLETED)
            for future in [future for future in self._flying if future in landed]:  # in the order of the requests
                for collected in self._arrived(future):
                    self._counts.lags.append(self._learner.updates - collected.version)
                    self._counts.bytes += _size(collected.rollout)
                    self.on_collected(collected)
                    yield collected.rollout, collected.returns

    def _made_plan(self) -> _Plan:
        config, spec = self._config, gym.spec(self._config.env_id)
        names = ("gymnasium", "numpy", "torch", *find(config.env_id).suite.distributions)
        return _Plan(config, spec, versions(names), search_path(), self.steps)

    def _begun(self, number: int, incarnation: int) -> Any:
        # Restarted by us, not by Ray: another incarnation draws other seeds.
        actor = self._ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Actor)
        return actor.remote(self._plan, number, incarnation)

    def _ask(self, missing: int) -> None:
        """Keep every actor busy, and no busier."""
        envs = self._config.collect.num_envs
        steps = min(max(envs, missing // self._count), _BATCH_STEPS * envs)
        with self._lock:
            assert self._weights is not None
            version, weights = self._weights
        for member in self._members:
            while member.asked < _AHEAD:
                answer = member.actor.collect.remote(version, weights, self.steps, steps)
                self._flying[answer.future()] = member, member.incarnation
                member.asked += 1
                self._counts.requests += 1

    def _arrived(self, future: futures.Future[Any]) -> list[Collected]:
        """The rollouts of an answer; none where the actor, or its answer on the way, was lost."""
        member, incarnation = self._flying.pop(future)
        errors = self._ray.exceptions
        try:
            answer = future.result()
        except (errors.RayActorError, errors.ObjectLostError, errors.NodeDiedError) as error:
            self._counts.lost_requests += 1
            if incarnation == member.incarnation:
                self._replace(member, error)
            return []
        except errors.RayError as error:
            raise UsageError(f"Ray could not collect: {first_line(error)}") from None
        if incarnation == member.incarnation:
            member.asked -= 1
            member.losses = 0
        if isinstance(answer, Refused):
            raise UsageError(answer.reason)
        if isinstance(answer, Failed):
            raise answer.raised()
        found, steps = answer
        self.steps += steps
        return list(found)

    def _replace(self, member: _Member, error: Exception) -> None:
        member.losses += 1
        if member.losses > _MOST_LOSSES:
            raise UsageError(
                f"Collector {member.number} was lost {member.losses} times in a row: "
                f"{first_line(error)} Is there enough memory for {self._config.collect.num_envs} "
                "environments (collect.num_envs)?"
            )
        self._counts.lost_collectors += 1
        self._counts.lost_rollouts += self._config.collect.num_envs
        with contextlib.suppress(Exception):
            self._ray.kill(member.actor)
        member.incarnation += 1
        member.asked = 0
        member.actor = self._begun(member.number, member.incarnation)

    # ---- the log and checkpoints ----

    def numbers(self) -> dict[str, Any]:
        """Of a round: updates between the weights that began a rollout and its arrival, traffic, and what was lost."""
        counts, self._counts = self._counts, _Counts()
        lags = counts.lags or [0]
        return {
            "collectors": {
                "rollouts": len(counts.lags),
                "lag_mean": round(float(np.mean(lags)), 2),
                "lag_max": max(lags),
                "requests": counts.requests,
                "bytes": counts.bytes,
                "lost_collectors": counts.lost_collectors,
                "lost_requests": counts.lost_requests,
                "lost_rollouts": counts.lost_rollouts,
                "dropped_by_resuming": counts.dropped_by_resuming,
            }
        }

    def state(self) -> dict[str, Array]:
        """How many rollouts are under way: a resumed run does without them."""
        under_way = len(self._members) * self._config.collect.num_envs
        return {_UNDER_WAY: np.array(under_way)}

    def resume(self, state: dict[str, Array]) -> None:
        """Begin new rollouts; the log says how many were dropped."""
        here = state.get(UNFINISHED + "length", np.zeros(0))  # of a run that had its collector in the learner's process
        self._counts.dropped_by_resuming = int(state.get(_UNDER_WAY, len(here)))

    def close(self) -> None:
        """End the actors, and Ray if it was started here."""
        for member in self._members:
            with contextlib.suppress(Exception):
                self._ray.kill(member.actor)
        self._members.clear()
        self._flying.clear()
        self._joined.close()


def _size(rollout: Rollout) -> int:
    """Bytes."""
    return int(
        sum(leaf.nbytes for leaf in leaves(rollout.observations)) + rollout.actions.nbytes + rollout.rewards.nbytes
    )
