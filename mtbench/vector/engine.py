"""The interface of engines: a suite implements it to play a batch of attempts."""

from __future__ import annotations

import itertools
import os
from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from mtbench.suite import Suite

Array = npt.NDArray[Any]
# A batch of observations: one array, or a dict of arrays for a Dict space.
Batch = Array | dict[str, Array]

#: The progress of one environment's rollout. `elapsed`, `attempt` and `reward` are as in
#: :class:`mtbench.suite.Progress`, and `valid` is its `action_valid`. `phase` is for the rollout layer only.
PROGRESS = np.dtype([("elapsed", "i8"), ("reward", "f8"), ("attempt", "i4"), ("valid", "?"), ("phase", "i1")])


def cpus() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def shares(n: int, workers: int) -> list[tuple[int, int]]:
    """Begin and end of each worker's share of n slots."""
    bounds = [n * i // workers for i in range(workers + 1)]
    return list(itertools.pairwise(bounds))


class Engine(ABC):
    """Plays N attempts side by side, one in each slot, each of its own task.

    Every method works on the slots ``begin <= i < end`` and touches no others, so that threads can share the batch.

    Args:
        suite: The suite whose tasks it plays.
        num_envs: Number of slots, N.
        k: Attempts per rollout.

    Attributes:
        num_actions: ``(tasks,)`` int64, in the suite's order: each task's number of actions. Larger ones are invalid.
        envs_per_worker: Minimum environments per worker; below this, dispatch costs more than stepping.
        prepares: Whether the rollout layer calls :meth:`prepare`.
        spreads: Whether the engine distributes the slots over its `workers` itself. Every call then covers all slots.
        workers: Number of workers; set before the first call.
        success: ``(N,)`` bool: whether the latest step makes the attempt a success. :meth:`step` writes it if the suite
            defines success.
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
            end: One past the last slot.
            tasks: ``(N,)`` int64, indices into the suite's tasks.
            variants: ``(N,)`` int64.
        """

    @abstractmethod
    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """Play one step in every slot that has an action.

        Args:
            begin: First slot.
            end: One past the last slot.
            actions: ``(N,)`` int64, valid in the slot's task, negative where the slot has no action. For a Box,
                ``(N, ...)`` of its dtype, NaN where the slot has no action.
            reward: Output, ``(N,)`` float64, on the default scale.
            terminated: Output, ``(N,)`` bool.
            truncated: Output, ``(N,)`` bool.
        """

    @abstractmethod
    def observe(self, begin: int, end: int, progress: Array, out: Any) -> None:
        """Write the observations.

        Args:
            begin: First slot.
            end: One past the last slot.
            progress: ``(N,)`` of :data:`PROGRESS`.
            out: Output, an array or a dict of arrays. Every element of the slots must be written.
        """

    def prepare(self, begin: int, end: int, tasks: Array, variants: Array) -> None:  # noqa: B027 (optional)
        """Start to prepare, in the background, the attempts that will probably begin next.

        Args:
            begin: First slot.
            end: One past the last slot.
            tasks: ``(N,)`` int64, indices into the suite's tasks.
            variants: ``(N,)`` int64; negative where there is nothing to prepare.
        """

    def close(self) -> None:  # noqa: B027 (optional)
        """Free the resources that the garbage collector does not free."""
