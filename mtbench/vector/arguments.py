"""Checks of what ``reset`` of a batch takes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mtbench.errors import UsageError
from mtbench.vector.engine import Array


def checked_mask(mask: Any, num_envs: int) -> Array:
    """The environments to reset, ``(num_envs,)`` bool; None resets all."""
    if mask is None:
        return np.ones(num_envs, dtype=np.bool_)
    if not isinstance(mask, np.ndarray) or mask.shape != (num_envs,) or mask.dtype != np.bool_ or not mask.any():
        raise UsageError(f"`reset_mask` is an array of {num_envs} bools, one of them True at least, got {mask!r}.")
    return mask


def checked_seeds(seed: Any, num_envs: int) -> Sequence[int | None]:
    """A seed for each environment: those given, or consecutive ones from a number on."""
    if seed is None or isinstance(seed, (int, np.integer)):
        return [None if seed is None else int(seed) + i for i in range(num_envs)]
    if len(seed) != num_envs:
        raise UsageError(f"Give one seed, or one for each of the {num_envs} environments, got {len(seed)}.")
    return list(seed)
