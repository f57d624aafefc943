"""Timestep encoders: observation, previous action, previous reward and rollout start become one vector.

An encoder for another kind of observation is a subclass of :class:`Encoder` and its name in :data:`ENCODERS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from mtbench.errors import UsageError

from .config import ModelConfig


@dataclass(slots=True)
class Timesteps:
    """What an agent sees of some timesteps; leading dimensions ``(B, T)`` or ``(B,)``.

    Attributes:
        observation: Batched observations of the environment.
        previous_action: ``(..., A)`` float32: one-hot or continuous; zeros at the start of a rollout.
        previous_reward: ``(...)`` float32, on the scale the agent is paid.
        start: ``(...)`` float32: 1 at the first timestep of a rollout. Where attempts meet is in the observation of
            every mtbench environment.
    """

    observation: Any
    previous_action: Tensor
    previous_reward: Tensor
    start: Tensor


class Encoder(nn.Module):
    """``Timesteps (...) -> (..., width)`` by its `forward`.

    Args:
        space: Observations of one environment.
        action_size: Of :attr:`Timesteps.previous_action`.
        config: Widths of hidden layers (``encoder``) and of the output (``width``), and what else it asks for.
    """

    @classmethod
    def accepts(cls, space: gym.Space[Any]) -> bool:
        """Whether it encodes the observations of this space."""
        raise NotImplementedError

    def __init__(self, space: Any, action_size: int, config: ModelConfig) -> None:
        super().__init__()

    def observe(self, timesteps: Timesteps, mask: Tensor) -> None:
        """Update input statistics, where there are any, from timesteps where `mask` is True."""


def mlp(*sizes: int) -> nn.Sequential:
    """Linear layers between these widths, each followed by a leaky ReLU."""
    layers = [(nn.Linear(inputs, outputs), nn.LeakyReLU()) for inputs, outputs in pairwise(sizes)]
    return nn.Sequential(*chain.from_iterable(layers))


class InputNorm(nn.Module):
    """Running mean and variance of inputs, bias-corrected; inputs that hardly vary pass unchanged.

    Args:
        size: Inputs.
        rate: Step of the exponential averages.
        limit: Clip normalized inputs to plus and minus this.
    """

    mean: Tensor
    square: Tensor
    weight: Tensor

    def __init__(self, size: int, rate: float = 1e-4, limit: float = 10.0) -> None:
        super().__init__()
        self.rate, self.limit = rate, limit
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def observe(self, x: Tensor, mask: Tensor) -> None:
        """Average over ``(..., size)`` where ``mask (...)`` is True."""
        share = mask.to(x.dtype)[..., None]
        count = share.sum().clamp(min=1)
        axes = tuple(range(x.dim() - 1))
        self.mean.lerp_((x * share).sum(axes) / count, self.rate)
        self.square.lerp_((x.square() * share).sum(axes) / count, self.rate)
        self.weight.lerp_(torch.ones_like(self.weight), self.rate)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., size) -> (..., size)``."""
        weight = self.weight.clamp(min=1e-8)
        mean = self.mean / weight
        deviation = (self.square / weight - mean.square()).clamp(min=0).sqrt()
        varies = deviation > 1e-3
        scaled = (x - mean) / deviation.clamp(min=1e-3)
        return torch.where(varies, scaled.clamp(-self.limit, self.limit), x)


class VectorEncoder(Encoder):
    """Vector observations: normalize, then a small MLP over everything (paper Table 2, "FF")."""

    def __init__(self, space: gym.spaces.Box, action_size: int, config: ModelConfig) -> None:
        super().__init__(space, action_size, config)
        observation_size = space.shape[0]
        size = observation_size + action_size + 2
        self.norm = InputNorm(observation_size + 1, limit=config.input_limit)
        self.mlp = mlp(size, *config.encoder)
        self.out = nn.Linear([size, *config.encoder][-1], config.width)

    @classmethod
    def accepts(cls, space: gym.Space[Any]) -> bool:
        """Vectors of numbers."""
        return isinstance(space, gym.spaces.Box) and len(space.shape) == 1

    @staticmethod
    def _varying(timesteps: Timesteps) -> Tensor:
        return torch.cat([timesteps.observation.float(), timesteps.previous_reward[..., None]], dim=-1)

    def observe(self, timesteps: Timesteps, mask: Tensor) -> None:
        """Update the statistics of observations and rewards."""
        self.norm.observe(self._varying(timesteps), mask)

    def forward(self, timesteps: Timesteps) -> Tensor:
        """``(...) -> (..., width)``."""
        normed = self.norm(self._varying(timesteps))
        inputs = torch.cat([normed, timesteps.previous_action, timesteps.start[..., None]], dim=-1)
        return self.out(self.mlp(inputs))


#: The first that accepts an observation space encodes it.
ENCODERS: tuple[type[Encoder], ...] = (VectorEncoder,)


def make_encoder(space: gym.Space[Any], action_size: int, config: ModelConfig) -> Encoder:
    """The encoder for an observation space.

    Raises:
        UsageError: No encoder accepts this kind of observation.
    """
    for encoder in ENCODERS:
        if encoder.accepts(space):
            return encoder(space, action_size, config)
    raise UsageError(f"The reference agent has no encoder for the observation space {space} yet; vectors work.")
