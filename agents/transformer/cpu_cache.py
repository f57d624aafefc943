"""The cache of a CPU, and the attention of one new timestep to it.

The memory is read as a whole at every step, which takes longer than the sums. So keys and values are 16-bit integers,
half of float32; each row reads its own and none beyond its length, while PyTorch's attention reads as much for every
row as for the longest; keys lie by dimension within blocks of timesteps, so that a processor works on several timesteps
at once and reads one piece of memory; and the next head's part is asked for while this one is worked on.

Each timestep and head has a scale, a power of two, so that a number is off by at most 2**-15 of the largest beside it.
"""

from __future__ import annotations

import contextlib
import copy
import math
import mmap
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mtbench.vector.compiled import kernel, prefetch

Array = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Short = npt.NDArray[np.int16]

# A row's products may be added in any order, so that a processor adds several at once.
_kernel = partial(kernel, any_order=True)

# Timesteps or dimensions whose products are added before the sum is written back. The kernels name each of them.
_AT_ONCE = 8
# Timesteps whose keys lie together. Of 16 to 128, 32 was the fastest.
_BLOCK = 32

_BITS = 15  # beside the sign
_MOST = 2**_BITS - 1


class Places(NamedTuple):
    """Where a timestep of B environments goes, and what it sees.

    Attributes:
        slot: ``(B,)``.
        lengths: ``(B,)``: it sees that many slots, from the first on.
    """

    slot: Integers
    lengths: Integers


class CpuCache:
    """Keys and values of past timesteps as 16-bit integers; see :class:`Cache`.

    Args:
        layers: Of the Transformer.
        num_envs: B.
        heads: Of each layer.
        window: Timesteps that are remembered.
        head_dim: Size of a key.
    """

    def __init__(self, layers: int, num_envs: int, heads: int, window: int, head_dim: int) -> None:
        self.window = window
        rows = (layers, num_envs, heads)
        self._keys: Short = zeros(*rows, -(-window // _BLOCK), head_dim, _BLOCK)
        self._values: Short = zeros(*rows, window, head_dim)
        self._key_scales: Array = np.zeros((*rows, window), np.float32)
        self._value_scales: Array = np.zeros((*rows, window), np.float32)
        self._scores = torch.empty(num_envs, heads, window)

    def state(self, steps: int) -> dict[str, npt.NDArray[Any]]:
        """See :class:`Cache`."""
        used = min(steps, self.window)
        by_timestep = np.moveaxis(self._keys, -1, -2)  # (layers, B, heads, blocks, block, head_dim)
        keys = by_timestep.reshape(*by_timestep.shape[:3], -1, by_timestep.shape[-1])
        return {
            "keys": keys[:, :, :, :used] * self._key_scales[:, :, :, :used, None],
            "values": self._values[:, :, :, :used] * self._value_scales[:, :, :, :used, None],
        }

    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """See :class:`Cache`. What came from here becomes the same integers again.

        Raises:
            ValueError: It is of a cache of other sizes.
        """
        keys, values = (np.asarray(state[name], dtype=np.float32) for name in ("keys", "values"))
        layers, rows, heads, window, head_dim = self._values.shape
        used = keys.shape[3] if keys.ndim == 5 else window
        wanted = layers, rows, heads, min(used, window), head_dim
        if keys.shape != wanted or values.shape != wanted:  # the kernels would write beside their memory
            raise ValueError(f"Keys {keys.shape} and values {values.shape} do not fit a memory {self._values.shape}.")
        for layer in range(layers):
            for slot in range(used):
                key, value = (np.ascontiguousarray(one[layer, :, :, slot]) for one in (keys, values))
                self._store(layer, key, value, np.full(rows, slot))

    def part(self, rows: slice) -> CpuCache:
        """See :class:`Cache`."""
        part = copy.copy(self)
        for name in ("_keys", "_values", "_key_scales", "_value_scales"):
            setattr(part, name, getattr(self, name)[:, rows])
        part._scores = self._scores[rows]
        return part

    def places(self, steps: Tensor, used: int) -> Places:
        """See :class:`Cache`."""
        at = steps.numpy()
        return Places(at % self.window, np.minimum(at + 1, self.window))

    def attend(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], places: Places) -> Tensor:
        """See :class:`Cache`."""
        # Contiguous: else the loops are compiled for any strides, and slow.
        query, key, value = (tensor.contiguous().numpy() for tensor in qkv)
        self._store(layer, key, value, places.slot)
        rows, heads, head_dim = query.shape
        longest = int(places.lengths.max())
        weights = self._scores.view(-1)[: rows * heads * longest].view(rows, heads, longest)
        mixed = torch.empty(rows, heads, head_dim)
        query = query * np.float32(1 / math.sqrt(head_dim))
        keys, scales = self._keys[layer], self._key_scales[layer]
        _score(query, keys, scales, places.lengths, weights.numpy())
        torch.softmax(weights, dim=-1, out=weights)
        _mix(weights.numpy(), self._values[layer], self._value_scales[layer], places.lengths, mixed.numpy())
        return mixed

    def _store(self, layer: int, key: Array, value: Array, slots: Integers) -> None:
        keys, values = self._keys[layer], self._values[layer]
        _store(key, value, keys, self._key_scales[layer], values, self._value_scales[layer], slots)


def zeros(*shape: int) -> Short:
    """Integers of 16 bits, all 0, in large pages of memory where the system has them: the memory is read as a whole."""
    size = math.prod(shape)
    if not hasattr(mmap, "MADV_HUGEPAGE") or not size:
        return np.zeros(shape, np.int16)
    memory = mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without them
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, dtype=np.int16).reshape(shape)


@_kernel
def _store(
    key: Array, value: Array, keys: Short, key_scales: Array, values: Short, value_scales: Array, slots: Integers
) -> None:
    rows, heads, head_dim = key.shape
    for b in range(rows):
        slot = slots[b]
        block, at = slot // _BLOCK, slot % _BLOCK
        for h in range(heads):
            largest_key, largest_value = np.float32(0), np.float32(0)
            for j in range(head_dim):
                largest_key = max(largest_key, abs(key[b, h, j]))
                largest_value = max(largest_value, abs(value[b, h, j]))
            # The smallest power of two above the largest; bounded, so that neither scale nor its inverse is infinite.
            key_power = max(math.frexp(largest_key)[1], -100) - _BITS
            value_power = max(math.frexp(largest_value)[1], -100) - _BITS
            key_scales[b, h, slot] = math.ldexp(1.0, key_power)
            value_scales[b, h, slot] = math.ldexp(1.0, value_power)
            of_keys, of_values = np.float32(math.ldexp(1.0, -key_power)), np.float32(math.ldexp(1.0, -value_power))
            for j in range(head_dim):
                keys[b, h, block, j, at] = max(-_MOST, min(_MOST, int(np.rint(key[b, h, j] * of_keys))))
                values[b, h, slot, j] = max(-_MOST, min(_MOST, int(np.rint(value[b, h, j] * of_values))))


@_kernel
def _score(query: Array, keys: Short, scales: Array, lengths: Integers, scores: Array) -> None:
    rows, heads, _, head_dim, size = keys.shape
    whole = head_dim - head_dim % _AT_ONCE
    # Bytes between heads, blocks and dimensions. A processor reads ahead by itself only where nothing is left out;
    # between one head's timesteps and the next one's lies what is not used yet.
    start, (_, head, block_of, dimension, _) = keys.ctypes.data, keys.strides
    f = np.float32
    for b in range(rows):
        n = lengths[b]
        for h in range(heads):
            q, out, scale = query[b, h], scores[b, h], scales[b, h]
            out[:n], out[n:] = 0, -np.inf
            following = start + (b * heads + h + 1) * head
            for block in range(-(-n // size)):
                k, o, some = keys[b, h, block], out[block * size :], min(size, n - block * size)
                for j in range(0, whole, _AT_ONCE):
                    prefetch(following + block * block_of + j * dimension, _AT_ONCE * dimension)
                    # Names of their own: else they are read again for each timestep, since `o` might be where they are.
                    q0, q1, q2, q3 = q[j], q[j + 1], q[j + 2], q[j + 3]
                    q4, q5, q6, q7 = q[j + 4], q[j + 5], q[j + 6], q[j + 7]
                    for t in range(some):
                        o[t] += (
                            (q0 * f(k[j, t]) + q1 * f(k[j + 1, t]))
                            + (q2 * f(k[j + 2, t]) + q3 * f(k[j + 3, t]))
                            + (q4 * f(k[j + 4, t]) + q5 * f(k[j + 5, t]))
                            + (q6 * f(k[j + 6, t]) + q7 * f(k[j + 7, t]))
                        )
                for j in range(whole, head_dim):
                    for t in range(some):
                        o[t] += q[j] * f(k[j, t])
            for t in range(n):
                out[t] *= scale[t]


@_kernel
def _mix(weights: Array, values: Short, scales: Array, lengths: Integers, mixed: Array) -> None:
    rows, heads, _, head_dim = values.shape
    start, (_, head, timestep, _) = values.ctypes.data, values.strides
    f = np.float32
    for b in range(rows):
        n = lengths[b]
        whole = n - n % _AT_ONCE
        for h in range(heads):
            w, v, scale, out = weights[b, h], values[b, h], scales[b, h], mixed[b, h]
            following = start + (b * heads + h + 1) * head
            out[:] = 0
            for t in range(0, whole, _AT_ONCE):
                prefetch(following + t * timestep, _AT_ONCE * timestep)
                w0, w1 = w[t] * scale[t], w[t + 1] * scale[t + 1]
                w2, w3 = w[t + 2] * scale[t + 2], w[t + 3] * scale[t + 3]
                w4, w5 = w[t + 4] * scale[t + 4], w[t + 5] * scale[t + 5]
                w6, w7 = w[t + 6] * scale[t + 6], w[t + 7] * scale[t + 7]
                for j in range(head_dim):
                    out[j] += (
                        (w0 * f(v[t, j]) + w1 * f(v[t + 1, j]))
                        + (w2 * f(v[t + 2, j]) + w3 * f(v[t + 3, j]))
                        + (w4 * f(v[t + 4, j]) + w5 * f(v[t + 5, j]))
                        + (w6 * f(v[t + 6, j]) + w7 * f(v[t + 7, j]))
                    )
            for t in range(whole, n):
                w0 = w[t] * scale[t]
                for j in range(head_dim):
                    out[j] += w0 * f(v[t, j])
