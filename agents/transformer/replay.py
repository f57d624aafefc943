"""Replay of whole rollouts. Sampling slices takes the same time whatever the size."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError

Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(slots=True)
class Rollout:
    """One finished meta-rollout of T steps.

    Attributes:
        observations: ``(T + 1, ...)``: the last one follows the last action.
        actions: ``(T, ...)``.
        rewards: ``(T,)`` float32, as paid.
        terminated: Whether it ended rather than being cut off.
    """

    observations: Array
    actions: Array
    rewards: Array
    terminated: bool


@dataclass(slots=True)
class Batch:
    """B slices of L transitions, padded at the end.

    Attributes:
        observations: ``(B, L + 1, ...)``.
        actions: ``(B, L + 1, ...)``: the action *before* each observation comes first; zeros at a rollout's start. The
            action taken at timestep t is entry t + 1.
        rewards: ``(B, L + 1)`` float32, likewise.
        terminated: ``(B, L)`` bool: nothing follows transition t.
        mask: ``(B, L)`` bool: transition t exists.
        first_step: ``(B,)`` int64: step of the first timestep in its rollout.
    """

    observations: Array
    actions: Array
    rewards: Array
    terminated: Array
    mask: Array
    first_step: Array


class Replay:
    """A ring of timesteps that holds whole rollouts; the oldest make room for new ones.

    A rollout of T steps takes T + 1 places in a row. Rollouts are drawn uniformly, then a slice of each, so that tasks
    with long rollouts do not crowd out the others.

    Args:
        capacity: In timesteps.
        observation: An example: shape and dtype.
        action: Likewise.
        folder: Keep the arrays in memory-mapped files there; None keeps them in memory.
    """

    _FIELDS = ("observations", "actions", "rewards")

    def __init__(self, capacity: int, observation: Array, action: Array, folder: Path | None = None) -> None:
        def array(name: str, shape: tuple[int, ...], dtype: Any) -> Array:
            if folder is None:
                return np.zeros(shape, dtype=dtype)
            folder.mkdir(parents=True, exist_ok=True)
            path = folder / f"{name}.npy"
            mapped = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
            _occupy(path)
            return mapped

        self.capacity = capacity
        self.observations = array("observations", (capacity, *observation.shape), observation.dtype)
        self.actions = array("actions", (capacity, *action.shape), action.dtype)
        self.rewards = array("rewards", (capacity,), np.float32)
        # A ring of rollouts too; none is shorter than 2 places.
        self._starts = np.zeros(capacity // 2 + 1, dtype=np.int64)
        self._lengths = np.zeros_like(self._starts)
        self._ended = np.zeros(len(self._starts), dtype=np.bool_)
        self._oldest = self._newest = 0  # rollouts are numbered for ever; their place is the number modulo the ring
        self._cursor = 0
        self._used = 0  # places ever written

    def __len__(self) -> int:
        """Rollouts held."""
        return self._newest - self._oldest

    @property
    def timesteps(self) -> int:
        """Transitions held."""
        held = np.arange(self._oldest, self._newest) % len(self._starts)
        return int(self._lengths[held].sum())

    def add(self, rollout: Rollout) -> None:
        """Store a rollout, forgetting the oldest as needed.

        Raises:
            UsageError: It is longer than the capacity.
        """
        length = len(rollout.rewards)
        places = length + 1
        if places > self.capacity:
            raise UsageError(f"A rollout of {length} steps does not fit a replay of {self.capacity} timesteps.")
        begin = self._cursor if self._cursor + places <= self.capacity else 0
        end = begin + places
        if begin < self._cursor:  # the rest of the ring is skipped, but holds the oldest rollouts
            self._forget(self._cursor, self.capacity)
        self._forget(begin, end)
        self.observations[begin:end] = rollout.observations
        # Shifted by one: what came before each observation.
        self.actions[begin] = 0
        self.actions[begin + 1 : end] = rollout.actions
        self.rewards[begin] = 0
        self.rewards[begin + 1 : end] = rollout.rewards
        at = self._newest % len(self._starts)
        self._starts[at], self._lengths[at], self._ended[at] = begin, length, rollout.terminated
        self._newest += 1
        self._cursor = end
        self._used = max(self._used, end)

    def _forget(self, begin: int, end: int) -> None:
        """Drop the rollouts that overlap these places. They are the oldest, since places are filled in order."""
        while self._oldest < self._newest:
            at = self._oldest % len(self._starts)
            start = self._starts[at]
            if start >= end or start + self._lengths[at] + 1 <= begin:
                return
            self._oldest += 1

    def sample(self, size: int, length: int, rng: np.random.Generator) -> Batch:
        """`size` slices of up to `length` transitions.

        Raises:
            UsageError: There is no rollout yet.
        """
        if not len(self):
            raise UsageError("The replay is empty: collect a rollout before sampling.")
        chosen = rng.integers(self._oldest, self._newest, size=size) % len(self._starts)
        lengths = self._lengths[chosen]
        first = rng.integers(0, np.maximum(lengths - length, 0) + 1)
        count = np.minimum(lengths - first, length)
        longest = int(count.max())
        offset = np.minimum(np.arange(longest + 1), count[:, None])  # padding repeats the last timestep
        index = (self._starts[chosen] + first)[:, None] + offset
        steps = np.arange(longest)
        last = steps == (count - 1)[:, None]
        return Batch(
            observations=self.observations[index],
            actions=self.actions[index],
            rewards=self.rewards[index],
            terminated=last & (self._ended[chosen] & (first + count == lengths))[:, None],
            mask=steps < count[:, None],
            first_step=first.astype(np.int64),
        )

    def state(self) -> dict[str, Array]:
        """Everything needed to resume from here, as arrays."""
        counters = np.array([self._oldest, self._newest, self._cursor, self.capacity], dtype=np.int64)
        held = min(self._newest, len(self._starts))
        state = {name: getattr(self, name)[: self._used] for name in self._FIELDS}
        return {
            **state,
            "counters": counters,
            "starts": self._starts[:held],
            "lengths": self._lengths[:held],
            "ended": self._ended[:held],
        }

    def load_state(self, state: dict[str, Array]) -> None:
        """Restore what :meth:`state` returned.

        Raises:
            UsageError: It is from a replay of another capacity or another kind of data.
        """
        oldest, newest, cursor, capacity = (int(v) for v in state["counters"])
        if capacity != self.capacity or state["observations"].shape[1:] != self.observations.shape[1:]:
            raise UsageError("The saved replay has another capacity or other observations than this run.")
        for name in self._FIELDS:
            getattr(self, name)[: len(state[name])] = state[name]
        self._used = len(state["rewards"])
        held = len(state["starts"])
        self._starts[:held], self._lengths[:held], self._ended[:held] = (
            state["starts"],
            state["lengths"],
            state["ended"],
        )
        self._oldest, self._newest, self._cursor = oldest, newest, cursor


def _occupy(path: Path) -> None:
    """Allocate all of a sparse file now: writing to mapped memory on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            try:
                os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            except OSError as error:
                if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system does not support it
                    return
                path.unlink()
                error.filename = str(path)
                raise


def prefetched(make: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
    """``map(make, numbers)``, with the next one made by a thread while the last one is in use."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        waiting: Future[T] | None = None
        for number in numbers:
            following = pool.submit(make, number)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()
