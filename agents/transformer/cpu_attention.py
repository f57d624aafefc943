"""Attention of one new timestep to a rollout's memory, on a CPU.

Each row reads its own keys and values once, and none beyond its length; PyTorch's attention reads as much for every row
as for the longest. Keys lie by dimension, so that a processor works on several timesteps at once.
"""

from __future__ import annotations

import contextlib
import math
import mmap
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

# Timesteps or dimensions whose products are added before the sum is written back. The kernels name each of them.
_AT_ONCE = 8


def zeros(*shape: int) -> Tensor:
    """A float32 tensor of zeros in large pages of memory where the system has them: the memory is read as a whole."""
    size = math.prod(shape)
    if not hasattr(mmap, "MADV_HUGEPAGE") or not size:
        return torch.zeros(*shape)
    memory = mmap.mmap(-1, 4 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32).view(shape)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    keys: Tensor,
    values: Tensor,
    slots: Tensor,
    lengths: Tensor,
    slopes: Tensor,
    scratch: Tensor,
) -> Tensor:
    """Store the new timestep's key and value, and attend to all that are stored.

    Args:
        query: ``(B, heads, head_dim)`` float32.
        key: Likewise, of the new timestep.
        value: Likewise.
        keys: ``(B, heads, window, head_dim)`` float32, a view of ``(B, heads, head_dim, window)``.
        values: ``(B, heads, window, head_dim)`` float32.
        slots: ``(B,)`` int64, where the new timestep goes in the window.
        lengths: ``(B,)`` int64, how many slots are in use with it.
        slopes: ``(heads,)`` float32: what a timestep's score loses with each step that it is older.
        scratch: ``(B, heads, window)`` float32, overwritten.

    Returns:
        ``(B, heads, head_dim)``.
    """
    B, heads, _, head_dim = keys.shape
    longest = int(lengths.max())
    weights = scratch.view(-1)[: B * heads * longest].view(B, heads, longest)
    # Contiguous: else the loops are compiled for any strides, and slow.
    new_query, new_key, new_value = (tensor.contiguous().numpy() for tensor in (query, key, value))
    by_dimension, stored = keys.transpose(-1, -2).numpy(), values.numpy()
    mixed = torch.empty(B, heads, head_dim)
    _store(new_key, new_value, by_dimension, stored, slots.numpy())
    new_query = new_query * np.float32(1 / math.sqrt(head_dim))
    _score(new_query, by_dimension, slots.numpy(), lengths.numpy(), slopes.numpy(), weights.numpy())
    torch.softmax(weights, dim=-1, out=weights)
    _mix(weights.numpy(), stored, lengths.numpy(), mixed.numpy())
    return mixed


@_kernel
def _store(key: Array, value: Array, keys: Array, values: Array, slots: Integers) -> None:
    rows, heads, head_dim, _ = keys.shape
    for b in range(rows):
        for h in range(heads):
            for j in range(head_dim):
                keys[b, h, j, slots[b]], values[b, h, slots[b], j] = key[b, h, j], value[b, h, j]


@_kernel
def _score(query: Array, keys: Array, slots: Integers, lengths: Integers, slopes: Array, scores: Array) -> None:
    rows, heads, head_dim, window = keys.shape
    for b in range(rows):
        for h in range(heads):
            q, k, out = query[b, h], keys[b, h], scores[b, h]
            for t in range(slots[b] + 1):
                out[t] = -slopes[h] * (slots[b] - t)
            for t in range(slots[b] + 1, lengths[b]):  # the window's end is older than its beginning
                out[t] = -slopes[h] * (slots[b] + window - t)
            out[lengths[b] :] = -np.inf
            whole = head_dim - head_dim % _AT_ONCE
            for j in range(0, whole, _AT_ONCE):
                for t in range(lengths[b]):
                    out[t] += (
                        (q[j] * k[j, t] + q[j + 1] * k[j + 1, t])
                        + (q[j + 2] * k[j + 2, t] + q[j + 3] * k[j + 3, t])
                        + (q[j + 4] * k[j + 4, t] + q[j + 5] * k[j + 5, t])
                        + (q[j + 6] * k[j + 6, t] + q[j + 7] * k[j + 7, t])
                    )
            for j in range(whole, head_dim):
                for t in range(lengths[b]):
                    out[t] += q[j] * k[j, t]


@_kernel
def _mix(weights: Array, values: Array, lengths: Integers, mixed: Array) -> None:
    rows, heads, _, head_dim = values.shape
    for b in range(rows):
        for h in range(heads):
            w, v, out = weights[b, h], values[b, h], mixed[b, h]
            out[:] = 0
            whole = lengths[b] - lengths[b] % _AT_ONCE
            for t in range(0, whole, _AT_ONCE):
                for j in range(head_dim):
                    out[j] += (
                        (w[t] * v[t, j] + w[t + 1] * v[t + 1, j])
                        + (w[t + 2] * v[t + 2, j] + w[t + 3] * v[t + 3, j])
                        + (w[t + 4] * v[t + 4, j] + w[t + 5] * v[t + 5, j])
                        + (w[t + 6] * v[t + 6, j] + w[t + 7] * v[t + 7, j])
                    )
            for t in range(whole, lengths[b]):
                for j in range(head_dim):
                    out[j] += w[t] * v[t, j]
