"""Collect for the learner: in turns with it or beside it, by one collector in this process or by many elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Final, Protocol

import gymnasium as gym
import numpy.typing as npt
import torch

from mtbench.errors import UsageError
from mtbench.vector import make_vec

from .acting import ActingModel, NewestWeights
from .collector import Collector
from .config import TrainConfig, remote_count
from .learner import Learner
from .model import AgentModel
from .replay import Rollout

Array = npt.NDArray[Any]
Kept = tuple[Rollout, Array | None]  # a rollout and its attempts' returns

# Seconds between two looks for signals while collecting goes on.
_LISTENING = 0.1

# Sync mode takes turns this often, so that collecting never lags far behind learning.
_TURN = 20


class Collects(Protocol):
    """Who collects: :class:`OwnCollector`, or :class:`.remote_collectors.RemoteCollectors`."""

    steps: int

    @property
    def epsilon(self) -> float:
        """Exploration now."""

    @property
    def examples(self) -> tuple[Any, Array]:
        """One observation and one action, for their shapes and dtypes."""

    def load(self, model: AgentModel, updates: int) -> None:
        """Act with these weights, of so many updates; nobody collects meanwhile."""

    def renew(self, model: AgentModel, updates: int) -> None:
        """Act with these weights from the next step on; the thread that learns says so while another one collects."""

    def rollouts(self, steps: int, stopped: Callable[[], bool]) -> Iterator[Kept]:
        """Take at least so many environment steps; yield rollouts as they end. As :meth:`.Collector.collect`."""

    def numbers(self) -> dict[str, Any]:
        """What the log of a round says besides, since it was last asked."""

    def state(self) -> dict[str, Array]:
        """For a checkpoint."""

    def resume(self, state: dict[str, Array]) -> None:
        """Go on from a checkpoint's state; `steps` is set before."""

    def close(self) -> None:
        """Close the environments."""


class OwnCollector(Collector):
    """The collector in this process, and the model that it acts with.

    Args:
        envs: The environments.
        config: All settings.
        model: The network whose weights act.
        device: Where the policy runs.
    """

    def __init__(
        self, envs: gym.vector.VectorEnv[Any, Any, Any], config: TrainConfig, model: AgentModel, device: torch.device
    ) -> None:
        super().__init__(envs, config.collect, config.seed, device)
        self.acting: Final = ActingModel(model)
        self._newest = NewestWeights(model)

    def load(self, model: AgentModel, updates: int) -> None:
        """Act with these weights."""
        self.acting.load(model)

    def renew(self, model: AgentModel, updates: int) -> None:
        """Act with these weights from the next step on."""
        self._newest.put(model)

    def rollouts(self, steps: int, stopped: Callable[[], bool]) -> Iterator[Kept]:
        """Take at least so many steps."""

        def renewed() -> bool:
            self._newest.copy_to(self.acting)
            return stopped()

        return self.collect(self.acting, steps, renewed)

    def numbers(self) -> dict[str, Any]:
        """Nothing: the weights are the newest, and nothing is lost."""
        return {}

    def resume(self, state: dict[str, Array]) -> None:
        """Go on in the middle of the unfinished rollouts."""
        self.load_state(state, self.acting)

    def close(self) -> None:
        """Close the environments."""
        self.envs.close()


def make_collector(
    config: TrainConfig,
    envs: gym.vector.VectorEnv[Any, Any, Any],
    learner: Learner,
    address: str | None,
) -> Collects:
    """The collector, or collectors, that the settings ask for.

    Args:
        config: All settings.
        envs: The environments of this process.
        learner: Whose weights act.
        address: Of the Ray cluster, as for :func:`mtbench.clusters.joined`.
    """
    count = remote_count(config.collectors)
    if count is None:
        if address is not None:
            raise UsageError("An address is one of a Ray cluster: it needs --collectors ray:N.")
        return OwnCollector(envs, config, learner.acting, learner.device)
    from .remote_collectors import RemoteCollectors

    examples = Collector(envs, config.collect, config.seed, torch.device("cpu")).examples
    envs.close()
    return RemoteCollectors(config, count, address, examples, learner)


def make_envs(config: TrainConfig) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The environments of this process: those that play, or one that shows what the others' are like."""
    return make_vec(config.env_id, 1 if remote_count(config.collectors) else config.collect.num_envs, **config.env)


class Collecting:
    """Takes turns with the learner, or works beside it.

    Args:
        config: All settings.
        collector: Who collects.
        learner: Whose weights act.
        stop: Set when the run is to stop.
        stopping: Whether it is, agreed between all ranks: all of them ask.
        keep: Called with each rollout, from a thread of its own where collecting goes on beside learning.
    """

    def __init__(
        self,
        config: TrainConfig,
        collector: Collects,
        learner: Learner,
        stop: threading.Event,
        stopping: Callable[[], bool],
        keep: Callable[[Rollout, Array | None], None],
    ) -> None:
        self._config, self._collector, self._learner = config, collector, learner
        self._stop, self._stopping, self._keep = stop, stopping, keep
        # Of a GPU: collecting beside the learner has a stream of its own.
        on_gpu = learner.device.type == "cuda"
        self._beside = torch.cuda.Stream(learner.device) if on_gpu else None  # type: ignore[no-untyped-call]

    def first(self, ready: Callable[[], bool]) -> None:
        """Collect what there has to be before the first update.

        Args:
            ready: Whether there is anything to learn from.
        """
        c = self._config.collect
        missing = max(c.first_steps, 1) - self._collector.steps
        if missing > 0:
            self._collect(missing)
        while not ready() and not self._stop.is_set():
            self._collect(c.num_envs)

    def turns(self, updates: int) -> Iterator[int]:
        """Numbers of updates to do in a row, with collecting between (sync) or beside them."""
        per_update = self._config.collect.steps_per_update
        if self._config.sync:
            for done in range(0, updates, _TURN):
                turn = min(_TURN, updates - done)
                self._collect(max(1, round(turn * per_update)))
                if self._stopping():
                    return
                yield turn
            return
        failures: list[BaseException] = []
        abandoned = threading.Event()

        if self._beside is not None:
            self._beside.wait_stream(torch.cuda.current_stream())  # what acting needs was made there

        def work() -> None:
            try:
                with torch.cuda.stream(self._beside):
                    self._collect(max(1, round(updates * per_update)), abandoned)
            except BaseException as error:
                failures.append(error)

        worker = threading.Thread(target=work, name="collector", daemon=True)
        worker.start()
        try:
            yield updates
        except GeneratorExit:  # learning has failed: nobody waits for the rest
            abandoned.set()
            raise
        finally:
            # A signal may reach the worker: its handler runs in this thread, which a single join would keep from it.
            while worker.is_alive():
                worker.join(_LISTENING)
        if failures:
            raise failures[0]

    def _collect(self, steps: int, abandoned: threading.Event | None = None) -> None:
        """Collect with the newest weights. With `abandoned`, the learner works meanwhile: it says when to stop."""
        if abandoned is None:
            self._collector.load(self._learner.acting, self._learner.updates)

        def stopped() -> bool:
            return self._stop.is_set() or (abandoned is not None and abandoned.is_set())

        for rollout, returns in self._collector.rollouts(steps, stopped):
            self._keep(rollout, returns)
