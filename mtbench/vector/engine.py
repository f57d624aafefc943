"""What a suite supplies to the batched meta-rollout: attempts, played side by side."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtbench.suite import Suite

Array = npt.NDArray[Any]
# Observations: an array, or a Dict space's arrays.
Batch = Array | dict[str, Array]

#: What an agent may know of its own rollout: `elapsed`, `attempt`, `valid` (the action) and `reward` as in
#: :class:`mtbench.suite.Progress`. `phase` is the rollout layer's own.
PROGRESS = np.dtype([("elapsed", "i8"), ("reward", "f8"), ("attempt", "i4"), ("valid", "?"), ("phase", "i1")])


def cpus() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(n: int, workers: int) -> list[tuple[int, int]]:
    """Begin and end of each worker's share of n slots."""
    bounds = [n * i // workers for i in range(workers + 1)]
    return list(itertools.pairwise(bounds))


class Engine(ABC):
    """N attempts, each of its own task.

    Every method takes the slots ``begin <= i < end`` and touches no other, so that threads can share the batch.

    Args:
        suite: Whose tasks.
        num_envs: N.
        k: Attempts of a rollout.

    Attributes:
        num_actions: ``(tasks,)`` int64, in the suite's order: an agent's larger actions do not exist there.
        envs_per_worker: Fewer for each thread cost more to hand out than to step.
        prepares: Whether it wants :meth:`prepare` to be called.
        spreads: Whether it spreads its slots over `workers` by itself: every call is then for all slots.
        workers: As many as are wanted; set before the first call.
        success: ``(N,)`` bool, written by :meth:`step` where the suite defines success: the step made it one.
    """

    num_actions: Array
    success: Array
    envs_per_worker: ClassVar[int] = 2048
    prepares: bool = False
    spreads: ClassVar[bool] = False
    workers: int = 1

    @abstractmethod
    def __init__(self, suite: Suite, num_envs: int, k: int) -> None: ...

    @abstractmethod
    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Begin an attempt in every slot whose variant is not negative.

        Args:
            begin: First slot.
            end: Behind the last one.
            tasks: ``(N,)`` int64, by the suite's order.
            variants: ``(N,)`` int64.
        """

    @abstractmethod
    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """Play one step in every slot whose action is not negative.

        Args:
            begin: First slot.
            end: Behind the last one.
            actions: ``(N,)`` int64, which exist in the slot's task; in a Box ``(N, ...)`` of its dtype, NaN where
                none is played.
            reward: ``(N,)`` float64, written: on the default scale.
            terminated: ``(N,)`` bool, written.
            truncated: ``(N,)`` bool, written.
        """

    @abstractmethod
    def observe(self, begin: int, end: int, progress: Array, out: Any) -> None:
        """Write what an agent sees.

        Args:
            begin: First slot.
            end: Behind the last one.
            progress: ``(N,)`` of :data:`PROGRESS`.
            out: Observations, an array or a Dict space's arrays; written whole.
        """

    def prepare(self, begin: int, end: int, tasks: Array, variants: Array) -> None:  # noqa: B027 (most need not)
        """Make ready, meanwhile, what will probably begin next.

        Args:
            begin: First slot.
            end: Behind the last one.
            tasks: ``(N,)`` int64, by the suite's order.
            variants: ``(N,)`` int64; negative where nothing is to be prepared.
        """

    def close(self) -> None:  # noqa: B027 (most have nothing)
        """Free what the garbage collector would not."""
