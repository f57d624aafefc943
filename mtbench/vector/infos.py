"""Infos of batches, laid out as ``gymnasium.vector.VectorEnv`` does: a value of all rows, a mask of rows with it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from mtbench.vector.engine import Array, Batch


def add(infos: dict[str, Any], name: str, value: Any, mask: Array) -> None:
    """Add a value and the mask ``(num_envs,)`` of the rows that have it."""
    infos[name], infos[f"_{name}"] = value, mask.copy()


def only(values: Batch, mask: Array) -> Any:
    """`values` where `mask`, else zeros; parts of a Dict have masks of their own."""
    if isinstance(values, dict):
        nested: dict[str, Any] = {}
        for name, part in values.items():
            add(nested, name, only(part, mask), mask)
        return nested
    return np.where(mask.reshape(-1, *(1,) * (values.ndim - 1)), values, values.dtype.type(0))


def row(batch: Batch, i: int) -> Any:
    """A copy of one row of a batch."""
    return {name: part[i].copy() for name, part in batch.items()} if isinstance(batch, dict) else batch[i].copy()


def info_of(infos: Mapping[str, Any], i: int) -> dict[str, Any]:
    """What batched infos say of environment i: the values whose masks have it."""
    return {
        name: info_of(value, i) if isinstance(value, dict) else value[i]
        for name, value in infos.items()
        if not name.startswith("_") and infos[f"_{name}"][i]
    }
