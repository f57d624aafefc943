"""One-hot flattening and padding of spaces, so that different tasks share one observation and action space.

The layout of every flattened observation is Gymnasium's own (``gymnasium.spaces.flatten``); these classes write it
into a given row about ten times faster, which matters when a base environment takes three microseconds a step.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector.utils import concatenate, create_empty_array

from mtbench.errors import UsageError

Vector = npt.NDArray[np.float32]


class _DiscreteWriter:
    """Writes an integer as a one-hot."""

    def __init__(self, space: spaces.Discrete) -> None:
        self.size: Final = int(space.n)
        self._start = int(space.start)

    def __call__(self, row: Vector, observation: Any) -> None:
        row[observation - self._start] = 1.0


class _ManyDiscreteWriter:
    """Writes several integers as one-hots side by side."""

    def __init__(self, sizes: list[int], starts: list[int]) -> None:
        self.size: Final = sum(sizes)
        ends = list(itertools.accumulate(sizes))
        self._offsets = [end - size - start for end, size, start in zip(ends, sizes, starts, strict=True)]

    def __call__(self, row: Vector, observation: Any) -> None:
        for offset, value in zip(self._offsets, observation, strict=True):
            row[offset + value] = 1.0


class _BoxWriter:
    """Writes real numbers as they are."""

    def __init__(self, space: spaces.Box) -> None:
        self.size: Final = int(np.prod(space.shape))
        self._flat = len(space.shape) == 1

    def __call__(self, row: Vector, observation: Any) -> None:
        row[: self.size] = observation if self._flat else np.ravel(observation)


Writer = _DiscreteWriter | _ManyDiscreteWriter | _BoxWriter


def observation_writer(space: gym.Space[Any]) -> Writer:
    """A function ``write(row, observation)`` that puts a flattened observation at the start of a zeroed row.

    Args:
        space: Discrete, MultiDiscrete (1-D), Tuple of Discrete, or Box. The writer's ``size`` is the number of
            values it writes.

    Raises:
        TypeError: The space is of another kind.
    """
    if isinstance(space, spaces.Discrete):
        return _DiscreteWriter(space)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return _ManyDiscreteWriter([int(n) for n in space.nvec], [int(s) for s in space.start])
    if isinstance(space, spaces.Tuple) and all(isinstance(part, spaces.Discrete) for part in space.spaces):
        parts = [part for part in space.spaces if isinstance(part, spaces.Discrete)]
        return _ManyDiscreteWriter([int(part.n) for part in parts], [int(part.start) for part in parts])
    if isinstance(space, spaces.Box):
        return _BoxWriter(space)
    raise TypeError(f"No one-hot flattening is defined for the observation space {space}.")


def native_actions(space: gym.Space[Any]) -> list[Any]:
    """Every action of a finite space, in the order of their flat indices (the last digit counts fastest).

    Args:
        space: Discrete (a list of ints) or MultiDiscrete of one dimension (a list of tuples of ints).

    Raises:
        TypeError: The space is not finite or is nested.
    """
    if isinstance(space, spaces.Discrete):
        return list(range(int(space.start), int(space.start + space.n)))
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        digits = zip(space.start.tolist(), space.nvec.tolist(), strict=True)
        return list(itertools.product(*(range(start, start + n) for start, n in digits)))
    raise TypeError(f"The action space {space} cannot be flattened to one index.")


def action_index(action: Any, n: int) -> int:
    """An agent's discrete action as a Python int in ``[0, n)``.

    Raises:
        gymnasium.error.InvalidAction: The action is no integer or out of range.
    """
    try:
        index = operator.index(action)
    except TypeError:
        index = -1
    if not 0 <= index < n:
        raise gym.error.InvalidAction(
            f"{action!r} ({type(action).__name__}) is no action of this environment; "
            f"give an integer from 0 to {n - 1} (env.action_space is Discrete({n}))."
        )
    return index


def box_action(action: Any, space: gym.Space[Any], where: Any = True) -> npt.NDArray[Any]:
    """An agent's continuous action as an array of the space's shape and dtype.

    Args:
        action: Anything that NumPy converts to an array of numbers.
        space: A Box.
        where: Check these actions of a batch only.

    Raises:
        gymnasium.error.InvalidAction: The action has another shape, or is out of bounds.
    """
    assert isinstance(space, spaces.Box)
    try:
        given = np.asarray(action, dtype=space.dtype)
    except (TypeError, ValueError):
        given = np.full((), np.nan)
    if given.shape == space.shape:
        inside = (given >= space.low) & (given <= space.high)
        if inside.all() or (where is not True and inside[where].all()):
            return given
    raise gym.error.InvalidAction(
        f"{action!r} ({type(action).__name__}) is no action of this environment; "
        f"give numbers from {space.low.min()} to {space.high.max()} of shape {space.shape}."
    )


@dataclass(frozen=True, slots=True)
class WithVector:
    """Adds a named vector to the observations of a space.

    A float32 vector gets the added vector at its end, and a Dict gets it under a new key. An observation of another
    kind, such as an image, becomes a Dict of the observation and the vector.

    Args:
        before: The space of the observations without the vector.
        name: The vector's key.
        part: The vector's space.
        key: The key of the original observation if a new Dict is made.

    Attributes:
        space: The space of the observations with the vector.

    Raises:
        UsageError: `before` is a Dict that has a key `name`.
    """

    before: gym.Space[Any]
    name: str
    part: spaces.Box
    key: str = "observation"
    space: gym.Space[Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "space", self._with_part())

    def join(self, observation: Any, vector: Vector) -> Any:
        """One observation with the vector."""
        if _is_vector(self.before):
            return np.concatenate([observation, vector])
        if isinstance(self.before, spaces.Dict):
            return {**observation, self.name: vector}
        return {self.key: observation, self.name: vector}

    def split(self, batch: Any) -> tuple[Any, Vector]:
        """Views of a batch of joined observations: the observations without the vectors, and the vectors."""
        if isinstance(batch, dict):
            rest = {name: part for name, part in batch.items() if name != self.name}
            return rest if isinstance(self.before, spaces.Dict) else rest[self.key], batch[self.name]
        at = batch.shape[1] - self.part.shape[0]
        return batch[:, :at], batch[:, at:]

    def _with_part(self) -> gym.Space[Any]:
        before, part = self.before, self.part
        if isinstance(before, spaces.Box) and _is_vector(before):
            low = np.concatenate([before.low, part.low.astype(np.float32)])
            high = np.concatenate([before.high, part.high.astype(np.float32)])
            return spaces.Box(low, high, dtype=np.float32)
        if isinstance(before, spaces.Dict):
            if self.name in before.spaces:
                raise UsageError(f"The observation already has a key {self.name!r}.")
            return spaces.Dict({**before.spaces, self.name: part})
        return spaces.Dict({self.key: before, self.name: part})


def _is_vector(space: gym.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.float32 and len(space.shape) == 1


def one_hot(index: int, size: int) -> Vector:
    """A float32 vector of zeros with a one at `index`."""
    row = np.zeros(size, dtype=np.float32)
    row[index] = 1.0
    return row


def stack(space: gym.Space[Any], observations: Sequence[Any]) -> Any:
    """Observations of one space as a new batch, laid out as ``gymnasium.vector`` does."""
    batch: Any = create_empty_array(space, len(observations))
    return concatenate(space, observations, batch)
