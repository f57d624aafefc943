"""Images: Procgen and Atari."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Final

import gymnasium as gym
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mtbench.errors import UsageError

from ..config import ModelConfig
from ..trees import flat
from .base import Encoder, Numbers, Timesteps, is_vector, parts

_GROUPS = 4


class ImageEncoder(Encoder):
    """The ResNet of IMPALA (Espeholt et al. 2018), with GroupNorm inside and LayerNorm on its features.

    In training, all frames of a slice are moved by one random shift (DrQ-v2, Yarats et al. 2021). Vectors beside the
    image join its features.
    """

    takes = "uint8 images (height, width, channels), alone or in a Dict with vectors"

    def __init__(self, space: gym.Space[Any], action_size: int, config: ModelConfig) -> None:
        super().__init__(space, action_size, config)
        spaces = parts(space)
        self.image: str = next(name for name, part in spaces.items() if is_image(part))
        height, width, colours = spaces[self.image].shape or ()
        least = 2 ** len(config.channels)
        if min(height, width) < least:
            raise UsageError(
                f"Frames of {height} x {width} pixels cannot be halved {len(config.channels)} times: that takes "
                f"{least} x {least} or more. Give model.channels fewer entries."
            )
        if any(channels % _GROUPS for channels in config.channels):
            raise UsageError(f"`model.channels` must be multiples of {_GROUPS}, got {list(config.channels)}.")
        self.shift: Final = config.shift
        self.blocks: Final = nn.Sequential(*(_Halving(*pair) for pair in pairwise((colours, *config.channels))))
        for _ in config.channels:
            height, width = -(-height // 2), -(-width // 2)
        self.features: Final = nn.Linear(height * width * config.channels[-1], config.width)
        self.norm: Final = nn.LayerNorm(config.width)
        self.numbers: Final = Numbers(space, [name for name in spaces if name != self.image], action_size, config)
        self.out: Final = nn.Linear(config.width + self.numbers.size, config.width)

    @classmethod
    def accepts(cls, space: gym.Space[Any]) -> bool:
        """An image, or a Dict with one image and otherwise vectors."""
        spaces = parts(space).values()
        images = sum(is_image(part) for part in spaces)
        return images == 1 and images + sum(is_vector(part) for part in spaces) == len(spaces)

    def forward(self, timesteps: Timesteps) -> Tensor:
        """``(M, width)``."""
        frames = flat("observation", timesteps.observation)[self.image]
        if self.training and self.shift and timesteps.sequence is not None:
            frames = shifted(frames, self.shift, timesteps.sequence)
        x = self.blocks(frames.permute(0, 3, 1, 2).float() / 255)
        features = self.norm(self.features(F.relu(x).flatten(1)))
        encoded: Tensor = self.out(torch.cat([F.relu(features), self.numbers(timesteps)], dim=-1))
        return encoded


def is_image(space: gym.Space[Any]) -> bool:
    """Whether it is a uint8 Box (height, width, channels) whose values are brightness."""
    return (
        isinstance(space, gym.spaces.Box)
        and len(space.shape) == 3
        and space.dtype == np.uint8
        and int(space.high.max()) == 255
    )


def shifted(frames: Tensor, most: int, sequence: Tensor) -> Tensor:
    """Move frames by up to `most` pixels in each direction; at the edges, the border's pixels are repeated.

    Args:
        frames: ``(M, H, W, C)``.
        most: Pixels.
        sequence: ``(M,)`` int64, below M: frames with one number move alike.
    """
    M, H, W, _ = frames.shape
    moves = torch.randint(-most, most + 1, (2, M), device=frames.device)[:, sequence]
    down, right = (
        (torch.arange(size, device=frames.device) + move[:, None]).clamp(0, size - 1)
        for size, move in zip((H, W), moves, strict=True)
    )
    return frames[torch.arange(M, device=frames.device)[:, None, None], down[:, :, None], right[:, None, :]]


class _Halving(nn.Module):
    """A convolution, a pooling that halves the frame, and two residual blocks."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.residual = nn.Sequential(_Residual(outputs), _Residual(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """``(M, inputs, H, W) -> (M, outputs, H / 2, W / 2)``, rounded up."""
        halved: Tensor = self.residual(F.max_pool2d(self.convolution(x), 3, stride=2, padding=1))
        return halved


class _Residual(nn.Module):
    """Two convolutions; the sum is normalized."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.GroupNorm(_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(M, channels, H, W)``."""
        added = self.second(F.relu(self.first(F.relu(x))))
        normed: Tensor = self.norm(x + added)
        return normed
