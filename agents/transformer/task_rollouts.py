"""Which rollouts of a replay are drawn: by how new they are, and by their tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_NEWEST = 100  # rollouts of a task that tell what it returns now
_LEAST_LEFT = 0.4  # a task that lacks less than this share of the best return is drawn as if it lacked that


class TaskRollouts:
    """Ascending numbers of one task's rollouts: added at the end, dropped at the front, read anywhere."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._returns: deque[float] = deque(maxlen=_NEWEST)
        self._first = 0
        self._timesteps = 0

    def __len__(self) -> int:
        return len(self._numbers) - self._first

    @property
    def mean_length(self) -> float:
        """Of its rollouts."""
        return self._timesteps / len(self)

    @property
    def mean_return(self) -> float:
        """Of its newest rollouts."""
        return sum(self._returns) / len(self._returns)

    def add(self, number: int, length: int, total: float) -> None:
        """Add one of `length` timesteps that returned `total`, newer than all others."""
        self._numbers.append(number)
        self._returns.append(total)
        self._timesteps += length

    def drop_first(self, length: int) -> None:
        """Drop the oldest, which has `length` timesteps."""
        self._first += 1
        self._timesteps -= length
        if len(self._returns) > len(self):
            self._returns.popleft()
        if 2 * self._first > len(self._numbers):
            del self._numbers[: self._first]
            self._first = 0

    def newest(self, back: int) -> int:
        """The one that `back` others are newer than."""
        return self._numbers[-1 - back]


def drawn_by_task(
    tasks: Sequence[TaskRollouts], size: int, length: int, rng: np.random.Generator, recency: float, best: float | None
) -> Array:
    """Numbers of rollouts, ``(size,)``, for slices of up to `length`: see :meth:`.replay.Replay.sample`."""
    present = [task for task in tasks if len(task)]
    shares = [1.0 if best is None else max(best - task.mean_return, _LEAST_LEFT * best) for task in present]
    often = np.array(shares) / [min(task.mean_length, length) for task in present]
    chosen = rng.choice(len(present), size=size, p=often / often.sum()).tolist()
    counts = np.array([len(present[task]) for task in chosen])
    back = newer(rng, recency, counts).tolist()
    return np.array([present[task].newest(one) for task, one in zip(chosen, back, strict=True)])


def newer(rng: np.random.Generator, recency: float, counts: Array) -> Array:
    """Of `counts` rollouts each, how many are newer than the one drawn."""
    return np.minimum(np.floor(rng.random(len(counts)) ** recency * counts).astype(np.int64), counts - 1)
