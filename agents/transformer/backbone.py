"""The sequence model: a causal Transformer that is stable over long training, and its cache for rollouts.

NormFormer (Shleifer et al. 2021): extra LayerNorms after attention and inside the feed-forward block, a learned
scale per head. Sigma-Reparam (Zhai et al. 2023): linear layers whose spectral norm is one learned number. Leaky ReLU,
fixed sinusoidal positions by the step in the rollout (paper Appendix A).
"""

from __future__ import annotations

import math
from typing import Any, Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .cache import Cache, Memory, TensorCache
from .convolution import Convolution, Recent
from .cpu_cache import CpuCache
from .objectives import full_precision


class SigmaReparamLinear(nn.Module):
    """A linear layer ``x -> (gamma / sigma(W)) W x + b``, sigma the spectral norm of W.

    :meth:`update_norm` keeps the estimate of sigma current, by one power iteration that starts from the exact leading
    singular vectors. The factor multiplies whichever is smaller, the matrix or what comes out. For acting, :meth:`fold`
    multiplies it into the matrix once.
    """

    left: Tensor
    right: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight: Final = nn.Parameter(torch.empty(outputs, inputs))
        self.bias: Final = nn.Parameter(torch.zeros(outputs))
        self.gamma: Final = nn.Parameter(torch.ones(()))
        self.folded: bool = False
        nn.init.trunc_normal_(self.weight, std=0.02)
        left, _, right = torch.linalg.svd(self.weight.detach(), full_matrices=False)
        self.register_buffer("left", left[:, 0].clone())
        self.register_buffer("right", right[0].clone())

    def forward(self, x: Tensor) -> Tensor:
        """``(..., inputs) -> (..., outputs)``."""
        if self.folded:
            return F.linear(x, self.weight, self.bias)
        factor = self._factor()
        if x.numel() > self.weight.numel():  # more timesteps than outputs
            return F.linear(x, self.weight * factor, self.bias)
        return F.linear(x, self.weight) * factor + self.bias

    @torch.no_grad()
    def update_norm(self) -> None:
        """One power iteration; once before each training forward."""
        with full_precision(self.weight):  # sums of many squares
            self.right.copy_(F.normalize(self.weight.T @ self.left, dim=0))
            self.left.copy_(F.normalize(self.weight @ self.right, dim=0))

    @torch.no_grad()
    def fold(self) -> None:
        """Multiply the factor into the matrix. The layer cannot be trained then."""
        self.weight.mul_(self._factor())
        self.folded = True

    def _factor(self) -> Tensor:
        with full_precision(self.weight):
            return self.gamma / torch.dot(self.left, self.weight @ self.right)


class Attention(nn.Module):
    """Causal multi-head self-attention with a learned scale per head."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"The model width {width} is no multiple of {heads} heads.")
        self.heads = heads
        self.qkv: Final = SigmaReparamLinear(width, 3 * width)
        self.out: Final = SigmaReparamLinear(width, width)
        self.head_scale: Final = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """``(B, T, D) -> (B, T, D)``; a mask (True where visible, or added to scores) replaces plain causality."""
        B, T, D = x_BTD.shape
        q, k, v = self.qkv(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        return self.out((mixed * self.head_scale).transpose(1, 2).reshape(B, T, D))

    def step(self, x_BD: Tensor, cache: Cache, layer: int, places: Any) -> Tensor:
        """One timestep of every environment, ``(B, D) -> (B, D)``."""
        B, D = x_BD.shape
        qkv = self.qkv(x_BD).view(B, 3, self.heads, D // self.heads).unbind(1)
        mixed = cache.attend(layer, qkv, places)
        return self.out((mixed.to(x_BD.dtype)[:, :, None] * self.head_scale).reshape(B, D))


class Block(nn.Module):
    """Attention and feed-forward, each normalized before and after."""

    def __init__(self, width: int, feedforward: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention: Final = Attention(width, heads)
        self.before_attention: Final = nn.LayerNorm(width)
        self.after_attention: Final = nn.LayerNorm(width)
        self.before_feedforward: Final = nn.LayerNorm(width)
        self.expand: Final = SigmaReparamLinear(width, feedforward)
        self.inside_feedforward: Final = nn.LayerNorm(feedforward)
        self.contract: Final = SigmaReparamLinear(feedforward, width)
        self.dropout: Final = nn.Dropout(dropout)

    def _feedforward(self, x: Tensor) -> Tensor:
        hidden = self.inside_feedforward(F.leaky_relu(self.expand(self.before_feedforward(x))))
        return x + self.dropout(self.contract(hidden))

    def forward(self, x_BTD: Tensor, mask: Tensor | None) -> Tensor:
        """``(B, T, D) -> (B, T, D)``."""
        x_BTD = x_BTD + self.after_attention(self.attention(self.before_attention(x_BTD), mask))
        return self._feedforward(x_BTD)

    def step(self, x_BD: Tensor, cache: Cache, layer: int, places: Any) -> Tensor:
        """One timestep of every environment, ``(B, D) -> (B, D)``."""
        x_BD = x_BD + self.after_attention(self.attention.step(self.before_attention(x_BD), cache, layer, places))
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
        recompute: Keep only the inputs of each block for the backward pass, and compute the rest again: less memory,
            about a third more time.
        input_norm: LayerNorm of the embedded timesteps.
        convolution: A convolution over so many timesteps before each comes first; 0: none.
    """

    def __init__(
        self,
        width: int,
        feedforward: int,
        layers: int,
        heads: int,
        window: int,
        dropout: float,
        recompute: bool = False,
        input_norm: bool = False,
        convolution: int = 0,
    ) -> None:
        super().__init__()
        self.width: Final = width
        self.heads: Final = heads
        self.window: Final = window
        self.recompute: Final = recompute
        self.blocks: Final = nn.ModuleList(Block(width, feedforward, heads, dropout) for _ in range(layers))
        self.dropout: Final = nn.Dropout(dropout)
        self.input_norm: Final = nn.LayerNorm(width) if input_norm else nn.Identity()
        self.norm: Final = nn.LayerNorm(width)
        self.convolution: Final = Convolution(width, convolution) if convolution else None

    def forward(
        self, x_BTD: Tensor, steps_BT: Tensor, window: int | None = None, segment_BT: Tensor | None = None
    ) -> Tensor:
        """Sequences at once.

        Args:
            x_BTD: Embedded timesteps.
            steps_BT: Step of each in its rollout.
            window: Let each timestep see itself and the ``window - 1`` before it only, which is what a cache of that
                size computes. None sees all.
            segment_BT: Timesteps see only those of their own segment. None where a row has one sequence, at its
                beginning.

        Returns:
            ``(B, T, D)``.
        """
        if self.convolution is not None:
            x_BTD = self.convolution(x_BTD, segment_BT)
        x_BTD = self.input_norm(x_BTD)
        x_BTD = self.dropout(x_BTD + sinusoids(steps_BT, self.width).to(x_BTD.dtype))
        mask = None if window is None else _band(x_BTD.shape[1], window, x_BTD.device)
        if segment_BT is not None:
            causal = _band(x_BTD.shape[1], window or x_BTD.shape[1], x_BTD.device)
            mask = ((segment_BT[:, :, None] == segment_BT[:, None, :]) & causal)[:, None]
        for block in self.blocks:
            if self.recompute and self.training:
                x_BTD = checkpoint(block, x_BTD, mask, use_reentrant=False)
            else:
                x_BTD = block(x_BTD, mask)
        return self.norm(x_BTD)

    def step(self, x_BD: Tensor, steps_B: Tensor, memory: Memory, used: int) -> Tensor:
        """The next timestep of every environment.

        Args:
            x_BD: Embedded timesteps.
            steps_B: Step of each in its rollout.
            memory: Of these rollouts; the timestep is added to it.
            used: How many of its slots to look at: none beyond them may hold a timestep.

        Returns:
            ``(B, D)``.
        """
        places = memory.attention.places(steps_B, used)
        if self.convolution is not None and memory.recent is not None:
            x_BD = self.convolution.step(x_BD, steps_B, memory.recent)
        x_BD = self.input_norm(x_BD)
        x_BD = self.dropout(x_BD + sinusoids(steps_B, self.width).to(x_BD.dtype))
        for layer, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            x_BD = block.step(x_BD, memory.attention, layer, places)
        return self.norm(x_BD)

    def reparametrized(self) -> list[SigmaReparamLinear]:
        """Its layers with a spectral norm."""
        return [module for module in self.modules() if isinstance(module, SigmaReparamLinear)]

    def new_memory(
        self, num_envs: int, device: torch.device, dtype: torch.dtype = torch.float32, tensors: bool = False
    ) -> Memory:
        """An empty memory.

        Args:
            num_envs: Of so many environments.
            device: Where it lies.
            dtype: Of its keys and values.
            tensors: For PyTorch's attention, on a CPU too, where it is the slower one.
        """
        sizes = len(self.blocks), num_envs, self.heads, self.window, self.width // self.heads
        cache: Cache
        if tensors or device.type != "cpu" or dtype != torch.float32:
            cache = TensorCache(*sizes, device, dtype)
        else:
            cache = CpuCache(*sizes)
        recent = None if self.convolution is None else Recent(num_envs, self.convolution.count, self.width, device)
        return Memory(cache, recent)


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
