"""Attention of one new timestep to a rollout's memory, on a CPU.

Each row reads its own keys and values once, and none beyond its length. With equal lengths that takes two thirds of the
time of PyTorch's attention, which reads as much for every row as for the longest.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtbench.vector.compiled import kernel

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]

# A row's products may be added in any order, so that a processor adds several at once.
_kernel = partial(kernel, any_order=True)


def attend(
    query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, slots: Tensor, lengths: Tensor
) -> Tensor:
    """Store the new timestep's key and value, and attend to all that are stored.

    Args:
        query: ``(B, heads, head_dim)`` float32.
        key: Likewise, of the new timestep.
        value: Likewise.
        keys: ``(B, heads, window, head_dim)`` float32.
        values: Likewise.
        slots: ``(B,)`` int64, where the new timestep goes in the window.
        lengths: ``(B,)`` int64, how many slots are in use with it.

    Returns:
        ``(B, heads, head_dim)``.
    """
    B, heads, _, head_dim = keys.shape
    scores, mixed = torch.empty(B, heads, int(lengths.max())), torch.empty(B, heads, head_dim)
    # Contiguous: else the loops are compiled for any strides, and slow.
    new_query, new_key, new_value = (tensor.contiguous().numpy() for tensor in (query, key, value))
    stored, used, scale = values.numpy(), lengths.numpy(), np.float32(1 / math.sqrt(head_dim))
    _store_and_score(new_query, new_key, new_value, keys.numpy(), stored, slots.numpy(), used, scale, scores.numpy())
    _mix(torch.softmax(scores, dim=-1).numpy(), stored, used, mixed.numpy())
    return mixed


@_kernel
def _store_and_score(
    query: Array,
    key: Array,
    value: Array,
    keys: Array,
    values: Array,
    slots: Integers,
    lengths: Integers,
    scale: np.float32,
    scores: Array,
) -> None:
    rows, heads, _, head_dim = keys.shape
    for b in range(rows):
        for h in range(heads):
            keys[b, h, slots[b]], values[b, h, slots[b]] = key[b, h], value[b, h]
            for t in range(lengths[b]):
                product = np.float32(0)
                for j in range(head_dim):
                    product += query[b, h, j] * keys[b, h, t, j]
                scores[b, h, t] = product * scale
            scores[b, h, lengths[b] :] = -np.inf


@_kernel
def _mix(weights: Array, values: Array, lengths: Integers, mixed: Array) -> None:
    rows, heads, _, head_dim = values.shape
    for b in range(rows):
        for h in range(heads):
            mixed[b, h] = 0
            for t in range(lengths[b]):
                for j in range(head_dim):
                    mixed[b, h, j] += weights[b, h, t] * values[b, h, t, j]
