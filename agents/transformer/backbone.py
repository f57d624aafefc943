"""The sequence model: a causal Transformer that is stable over long training, and its cache for rollouts.

NormFormer (Shleifer et al. 2021): extra LayerNorms after attention and inside the feed-forward block, a learned
scale per head. Sigma-Reparam (Zhai et al. 2023): linear layers whose spectral norm is one learned number. Leaky ReLU,
fixed sinusoidal positions by the step in the rollout (paper Appendix A).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SigmaReparamLinear(nn.Module):
    """A linear layer ``x -> (gamma / sigma(W)) W x + b``, sigma the spectral norm of W.

    One power iteration per training forward keeps the estimate of sigma current; it starts from the exact leading
    singular vectors. The factor multiplies whichever is smaller, the matrix or what comes out.
    """

    left: Tensor
    right: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.gamma = nn.Parameter(torch.ones(()))
        nn.init.trunc_normal_(self.weight, std=0.02)
        left, _, right = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.register_buffer("left", left[:, 0].clone())
        self.register_buffer("right", right[0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs) -> (..., outputs)``."""
        factor = self.gamma / self._spectral_norm()
        if x.numel() > self.weight.numel():  # more timesteps than outputs
            return F.linear(x, self.weight * factor, self.bias)
        return F.linear(x, self.weight) * factor + self.bias

    def _spectral_norm(self) -> Tensor:
        with torch.autocast(self.weight.device.type, enabled=False):  # sums of many squares: full precision
            if self.training:
                with torch.no_grad():
                    # New tensors, not in place: the graph of an earlier call may still hold the old ones.
                    self.right = F.normalize(self.weight.T @ self.left, dim=0)
                    self.left = F.normalize(self.weight @ self.right, dim=0)
            return torch.dot(self.left, self.weight @ self.right)


class Cache:
    """Keys and values of past timesteps; every environment is at its own step.

    A ring of `window` slots per environment: step t lies in slot ``t % window``. Attention does not depend on the order
    of the slots, since positions are part of the embeddings.

    Attributes:
        keys: ``(layers, B, heads, window, head_dim)``.
        values: Likewise.
        steps: ``(B,)`` int64: timesteps seen in the current rollout.
    """

    def __init__(
        self,
        layers: int,
        num_envs: int,
        heads: int,
        window: int,
        head_dim: int,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.keys = torch.zeros(layers, num_envs, heads, window, head_dim, device=device, dtype=dtype)
        self.values = torch.zeros_like(self.keys)
        self.steps = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._rows = torch.arange(num_envs, device=device)
        # The same on the host: reading it back from a GPU would stall every step.
        self._host_steps = np.zeros(num_envs, dtype=np.int64)

    @property
    def window(self) -> int:
        """How many timesteps are remembered."""
        return self.keys.shape[3]

    def restart(self, mask: npt.NDArray[np.bool_]) -> None:
        """Forget the rollouts of the environments where `mask` ``(B,)`` is True."""
        if mask.any():
            self._host_steps[mask] = 0
            self.steps.copy_(torch.from_numpy(self._host_steps))

    def state(self) -> dict[str, npt.NDArray[Any]]:
        """Its content, for a checkpoint."""
        used = min(int(self._host_steps.max()), self.window)
        keys, values = (t[:, :, :, :used].float().cpu().numpy() for t in (self.keys, self.values))
        return {"keys": keys, "values": values, "steps": self._host_steps.copy()}

    def load_state(self, state: dict[str, npt.NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        for name in ("keys", "values"):
            saved = torch.from_numpy(state[name])
            getattr(self, name)[:, :, :, : saved.shape[3]].copy_(saved)
        self._host_steps[:] = state["steps"]
        self.steps.copy_(torch.from_numpy(self._host_steps))

    def begin_step(self) -> tuple[Tensor, Tensor]:
        """The slot ``(B,)`` to write this timestep to, and which slots ``(B, 1, 1, used)`` to attend to."""
        used = min(int(self._host_steps.max()) + 1, self.window)
        seen = torch.arange(used, device=self.steps.device) <= self.steps[:, None]
        return self.steps % self.window, seen[:, None, None, :]

    def end_step(self) -> None:
        """Count this timestep."""
        self.steps += 1
        self._host_steps += 1

    def write(self, layer: int, slot: Tensor, key: Tensor, value: Tensor, used: int) -> tuple[Tensor, Tensor]:
        """Store ``(B, heads, head_dim)`` and return all keys and values in use."""
        self.keys[layer, self._rows, :, slot] = key.to(self.keys.dtype)
        self.values[layer, self._rows, :, slot] = value.to(self.values.dtype)
        return self.keys[layer, :, :, :used], self.values[layer, :, :, :used]


class Attention(nn.Module):
    """Causal multi-head self-attention with a learned scale per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"The model width {width} is no multiple of {heads} heads.")
        self.heads = heads
        self.qkv = SigmaReparamLinear(width, 3 * width)
        self.out = SigmaReparamLinear(width, width)
        self.head_scale = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x_BTD: Tensor, mask_TT: Tensor | None) -> Tensor:
        """``(B, T, D) -> (B, T, D)``; a mask (True where visible) replaces plain causality."""
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask_TT, is_causal=mask_TT is None)
        return self.out((mixed * self.head_scale).transpose(1, 2).reshape(B, T, D))

    def step(self, x_BD: Tensor, cache: Cache, layer: int, slot: Tensor, seen: Tensor) -> Tensor:
        """One timestep of every environment, ``(B, D) -> (B, D)``."""
        B, D = x_BD.shape
        q, k, v = self.qkv(x_BD).view(B, 3, self.heads, D // self.heads).unbind(1)
        keys, values = cache.write(layer, slot, k, v, seen.shape[-1])
        mixed = F.scaled_dot_product_attention(q[:, :, None].to(keys.dtype), keys, values, attn_mask=seen)
        return self.out((mixed.to(x_BD.dtype) * self.head_scale).reshape(B, D))


class Block(nn.Module):
    """Attention and feed-forward, each normalized before and after."""

    def __init__(self, width: int, feedforward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads)
        self.before_attention = nn.LayerNorm(width)
        self.after_attention = nn.LayerNorm(width)
        self.before_feedforward = nn.LayerNorm(width)
        self.expand = SigmaReparamLinear(width, feedforward)
        self.inside_feedforward = nn.LayerNorm(feedforward)
        self.contract = SigmaReparamLinear(feedforward, width)
        self.dropout = nn.Dropout(dropout)

    def _feedforward(self, x: Tensor) -> Tensor:
        hidden = self.inside_feedforward(F.leaky_relu(self.expand(self.before_feedforward(x))))
        return x + self.dropout(self.contract(hidden))

    def forward(self, x_BTD: Tensor, mask_TT: Tensor | None) -> Tensor:
        """``(B, T, D) -> (B, T, D)``."""
        x_BTD = x_BTD + self.after_attention(self.attention(self.before_attention(x_BTD), mask_TT))
        return self._feedforward(x_BTD)

    def step(self, x_BD: Tensor, cache: Cache, layer: int, slot: Tensor, seen: Tensor) -> Tensor:
        """One timestep of every environment, ``(B, D) -> (B, D)``."""
        x_BD = x_BD + self.after_attention(self.attention.step(self.before_attention(x_BD), cache, layer, slot, seen))
        return self._feedforward(x_BD)


class Backbone(nn.Module):
    """The causal Transformer.

    Args:
        width: Model width D.
        feedforward: Width inside the feed-forward blocks.
        layers: Blocks.
        heads: Attention heads.
        window: Timesteps that rollouts remember.
        dropout: On embeddings and feed-forward outputs.
    """

    def __init__(self, width: int, feedforward: int, layers: int, heads: int, window: int, dropout: float) -> None:
        super().__init__()
        self.width, self.heads, self.window = width, heads, window
        self.blocks = nn.ModuleList(Block(width, feedforward, heads, dropout) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width)

    def forward(self, x_BTD: Tensor, steps_BT: Tensor, window: int | None = None) -> Tensor:
        """Sequences at once.

        Args:
            x_BTD: Embedded timesteps, padding at the end only.
            steps_BT: Step of each in its rollout.
            window: Let each timestep see itself and the ``window - 1`` before it only, which is what a cache of that
                size computes. None sees all.

        Returns:
            ``(B, T, D)``.
        """
        x_BTD = self.dropout(x_BTD + sinusoids(steps_BT, self.width).to(x_BTD.dtype))
        mask = None if window is None else _band(x_BTD.shape[1], window, x_BTD.device)
        for block in self.blocks:
            x_BTD = block(x_BTD, mask)
        return self.norm(x_BTD)

    def step(self, x_BD: Tensor, cache: Cache) -> Tensor:
        """The next timestep of every environment, ``(B, D) -> (B, D)``; advances the cache."""
        slot, seen = cache.begin_step()
        x_BD = self.dropout(x_BD + sinusoids(cache.steps, self.width).to(x_BD.dtype))
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x_BD = block.step(x_BD, cache, layer, slot, seen)
        cache.end_step()
        return self.norm(x_BD)

    def new_cache(self, num_envs: int, device: torch.device) -> Cache:
        """An empty cache."""
        return Cache(len(self.blocks), num_envs, self.heads, self.window, self.width // self.heads, device)


def sinusoids(steps: Tensor, width: int) -> Tensor:
    """Fixed position embeddings (Vaswani et al. 2017). ``(...) int -> (..., width)`` float32."""
    half = torch.arange(0, width, 2, device=steps.device, dtype=torch.float32)
    angles = steps[..., None].float() * torch.exp(half * (-math.log(10_000.0) / width))
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(-2)[..., :width]


def _band(length: int, window: int, device: torch.device) -> Tensor:
    """True where key j is visible to query i: ``i - window < j <= i``. Shape (length, length)."""
    at = torch.arange(length, device=device)
    behind = at[:, None] - at[None, :]
    return (behind >= 0) & (behind < window)
