"""What a Transformer keeps of rollouts while it acts: the keys and values of their past timesteps.

Every environment is at its own step. Each has a ring of `window` slots: step t lies in slot ``t % window``. Attention
does not depend on the order of the slots, since positions are part of the embeddings.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple, Protocol

import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .convolution import Recent


class Cache(Protocol):
    """Keys and values of past timesteps: a :class:`TensorCache`, or a ``CpuCache``, which rounds."""

    window: int

    def state(self, steps: int) -> dict[str, npt.NDArray[Any]]:
        """Its content, for a checkpoint; no rollout has more than `steps` timesteps.

        Returns:
            ``keys`` and ``values``, ``(layers, B, heads, min(steps, window), head_dim)`` float32.
        """

    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""

    def part(self, rows: slice) -> Cache:
        """The memory of some of the environments, in the same storage."""

    def places(self, steps: Tensor, used: int) -> Any:
        """Where the next timestep of every environment goes, and what it sees.

        Args:
            steps: ``(B,)`` int64: of the timestep in its rollout.
            used: How many slots to look at: none beyond them may hold a timestep.
        """

    def attend(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], places: Any) -> Tensor:
        """Take in a timestep of every environment and attend to what it sees, ``(B, heads, head_dim)``.

        Args:
            layer: Which.
            qkv: Query, key and value of the timestep, ``(B, heads, head_dim)`` each.
            places: From :meth:`places`.
        """


class Seen(NamedTuple):
    """Where a timestep of B environments goes, and which slots it sees.

    Attributes:
        slot: ``(B,)``.
        seen: ``(B, 1, 1, used)`` bool.
    """

    slot: Tensor
    seen: Tensor


class TensorCache:
    """A cache for PyTorch's attention, which compiles: for a GPU.

    Args:
        layers: Of the Transformer.
        num_envs: B.
        heads: Of each layer.
        window: Timesteps that are remembered.
        head_dim: Size of a key.
        device: Where it lies.
        dtype: Of keys and values.
    """

    def __init__(
        self,
        layers: int,
        num_envs: int,
        heads: int,
        window: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self.window = window
        self._keys = torch.zeros(layers, num_envs, heads, window, head_dim, device=device, dtype=dtype)
        self._values = torch.zeros_like(self._keys)
        self._rows = torch.arange(num_envs, device=device)

    def state(self, steps: int) -> dict[str, npt.NDArray[Any]]:
        """See :class:`Cache`."""
        used = min(steps, self.window)
        keys, values = (t[:, :, :, :used].float().cpu().numpy() for t in (self._keys, self._values))
        return {"keys": keys, "values": values}

    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """See :class:`Cache`."""
        for held, name in ((self._keys, "keys"), (self._values, "values")):
            saved = torch.from_numpy(state[name])
            held[:, :, :, : saved.shape[3]].copy_(saved)

    def part(self, rows: slice) -> TensorCache:
        """See :class:`Cache`."""
        part = copy.copy(self)
        part._keys, part._values = self._keys[:, rows], self._values[:, rows]
        part._rows = self._rows[: part._keys.shape[1]]
        return part

    def places(self, steps: Tensor, used: int) -> Seen:
        """See :class:`Cache`."""
        seen = torch.arange(used, device=steps.device) <= steps[:, None]
        return Seen(steps % self.window, seen[:, None, None, :])

    def attend(self, layer: int, qkv: tuple[Tensor, Tensor, Tensor], places: Seen) -> Tensor:
        """See :class:`Cache`."""
        query, key, value = (tensor.to(self._keys.dtype) for tensor in qkv)
        keys, values = self._keys[layer], self._values[layer]
        keys[self._rows, :, places.slot], values[self._rows, :, places.slot] = key, value
        used = places.seen.shape[-1]
        keys, values = keys[:, :, :used], values[:, :, :used]
        return F.scaled_dot_product_attention(query[:, :, None], keys, values, attn_mask=places.seen)[:, :, 0]


class Memory:
    """All that a Transformer keeps of rollouts while it acts.

    Args:
        attention: Keys and values.
        recent: The last timesteps, for a convolution; None without one.
    """

    def __init__(self, attention: Cache, recent: Recent | None) -> None:
        self.attention: Cache = attention
        self.recent: Recent | None = recent

    @property
    def window(self) -> int:
        """Timesteps that attention remembers."""
        return self.attention.window

    def state(self, steps: int) -> dict[str, npt.NDArray[Any]]:
        """Its content, for a checkpoint: that of its parts."""
        return {**self.attention.state(steps), **({} if self.recent is None else self.recent.state())}

    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        self.attention.load_state(state)
        if self.recent is not None:
            self.recent.load_state(state)

    def part(self, rows: slice) -> Memory:
        """The memory of some of the environments, in the same storage."""
        return Memory(self.attention.part(rows), None if self.recent is None else self.recent.part(rows))
