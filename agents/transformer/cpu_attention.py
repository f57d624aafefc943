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


def attend(query: Tensor, key: Tensor, value: Tensor, keys: Tensor, values: Tensor, steps: Tensor) -> Tensor:
    """Store the new timestep's key and value, and attend to all that are stored.

    Args:
        query: ``(B, heads, head_dim)`` float32, as all but `steps`.
        key: Likewise, of the new timestep.
        value: Likewise.
        keys: ``(B, heads, window, head_dim)``, a ring: step t lies in slot ``t % window``.
        values: Likewise.
        steps: ``(B,)`` int64, the new timestep's place in its rollout.

    Returns:
        ``(B, heads, head_dim)``.
    """
    B, heads, window, head_dim = keys.shape
    at = steps.numpy()
    slots, lengths = at % window, np.minimum(at + 1, window)
    scores, mixed = torch.empty(B, heads, int(lengths.max())), torch.empty(B, heads, head_dim)
    scale = np.float32(1 / math.sqrt(head_dim))
    # Contiguous: else the loops are compiled for any strides, and slow.
    asked = query.contiguous().numpy(), key.contiguous().numpy(), keys.numpy()
    _score(*asked, slots, lengths, scale, scores.numpy())
    weights = torch.softmax(scores, dim=-1).numpy()
    _mix(weights, value.contiguous().numpy(), values.numpy(), slots, lengths, mixed.numpy())
    return mixed


@_kernel
def _score(
    query: Array,
    key: Array,
    keys: Array,
    slots: Integers,
    lengths: Integers,
    scale: np.float32,
    scores: Array,
) -> None:
    rows, heads, _, head_dim = keys.shape
    for b in range(rows):
        for h in range(heads):
            keys[b, h, slots[b]] = key[b, h]
            for t in range(lengths[b]):
                product = np.float32(0)
                for j in range(head_dim):
                    product += query[b, h, j] * keys[b, h, t, j]
                scores[b, h, t] = product * scale
            scores[b, h, lengths[b] :] = -np.inf


@_kernel
def _mix(
    weights: Array,
    value: Array,
    values: Array,
    slots: Integers,
    lengths: Integers,
    mixed: Array,
) -> None:
    rows, heads, _, head_dim = values.shape
    for b in range(rows):
        for h in range(heads):
            values[b, h, slots[b]] = value[b, h]
            mixed[b, h] = 0
            for t in range(lengths[b]):
                for j in range(head_dim):
                    mixed[b, h, j] += weights[b, h, t] * values[b, h, t, j]
