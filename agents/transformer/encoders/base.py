"""What all encoders have in common."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Final

import gymnasium as gym
import torch
from torch import Tensor, nn

from ..config import ModelConfig
from ..objectives import AddUp, symlog
from ..trees import flat


@dataclass(slots=True)
class Timesteps:
    """What an agent sees of M timesteps.

    Attributes:
        observation: Observations of the environment, a tree of ``(M, ...)``; frames are uint8 still.
        previous_action: ``(M, A)`` float32: one-hot or continuous; zeros at the start of a rollout.
        previous_reward: ``(M,)`` float32, on the scale the agent is paid.
        start: ``(M,)`` float32: 1 at the first timestep of a rollout. Where attempts meet is in the observation of
            every mtbench environment.
        sequence: ``(M,)`` int64, below M: timesteps with one number are of one slice. None when acting.
    """

    observation: Any
    previous_action: Tensor
    previous_reward: Tensor
    start: Tensor
    sequence: Tensor | None = None


class Encoder(nn.Module):
    """M timesteps to ``(M, width)`` by its `forward`.

    Args:
        space: Observations of one environment.
        action_size: Of :attr:`Timesteps.previous_action`.
        config: Widths of hidden layers (``encoder``) and of the output (``width``), and what else it asks for.
    """

    #: What it takes, in a few words, for the message that tells which encoders there are.
    takes: str = ""

    @classmethod
    def accepts(cls, space: gym.Space[Any]) -> bool:
        """Whether it encodes the observations of this space."""
        raise NotImplementedError

    def __init__(self, space: Any, action_size: int, config: ModelConfig) -> None:
        super().__init__()

    def observe(self, timesteps: Timesteps, mask: Tensor, add_up: AddUp | None = None) -> None:
        """Update the statistics of its :class:`Numbers` from timesteps where `mask` is True, of all ranks."""
        for part in self.children():
            if isinstance(part, Numbers):
                part.observe(timesteps, mask, add_up)


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
        self.rate: Final = rate
        self.limit: Final = limit
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("square", torch.zeros(size))
        self.register_buffer("weight", torch.zeros(()))

    @torch.no_grad()
    def observe(self, x: Tensor, mask: Tensor, add_up: AddUp | None = None) -> None:
        """Average over ``(..., size)`` where ``mask (...)`` is True; with `add_up`, over those of all ranks."""
        share = mask.to(x.dtype)[..., None]
        axes = tuple(range(x.dim() - 1))
        sums = [share.sum(), (x * share).sum(axes), (x.square() * share).sum(axes)]
        count, total, squares = sums if add_up is None else add_up(*sums)
        count = count.clamp(min=1)
        self.mean.lerp_(total / count, self.rate)
        self.square.lerp_(squares / count, self.rate)
        self.weight.lerp_(torch.ones_like(self.weight), self.rate)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., size) -> (..., size)``."""
        weight = self.weight.clamp(min=1e-8)
        mean = self.mean / weight
        deviation = (self.square / weight - mean.square()).clamp(min=0).sqrt()
        varies = deviation > 1e-3
        scaled = (x - mean) / deviation.clamp(min=1e-3)
        return torch.where(varies, scaled.clamp(-self.limit, self.limit), x)


class Numbers(nn.Module):
    """All that is a number in a timestep, as one vector.

    It has the vectors of the observation (once more with ``fine_inputs``, and with ``fractions``) and the previous
    reward, normalized, the previous action, and the start.

    Args:
        space: Of the observation.
        names: Of its vectors, as :func:`flat` names them under ``observation``.
        action_size: Of :attr:`Timesteps.previous_action`.
        config: Has ``input_limit``, ``fine_inputs`` and ``fractions``.

    Attributes:
        size: Of the vector.
        once: Of the observation's vectors alone.
    """

    def __init__(self, space: gym.Space[Any], names: list[str], action_size: int, config: ModelConfig) -> None:
        super().__init__()
        spaces = parts(space)
        self.once: Final = sum(gym.spaces.flatdim(spaces[name]) for name in names)
        vectors = self.once * (1 + bool(config.fine_inputs) + config.fractions)
        self.names: Final = names
        self.size: Final = vectors + 1 + action_size + 1
        self.norm: Final = InputNorm(vectors + 1, limit=config.input_limit)
        self.fine: Final = config.fine_inputs
        self.fractions: Final = config.fractions

    def _varying(self, timesteps: Timesteps) -> Tensor:
        observed = flat("observation", timesteps.observation)
        as_they_are = [observed[name].float() for name in self.names]
        vectors = list(as_they_are)
        if self.fine:
            vectors += [symlog(self.fine * x) / math.log1p(self.fine) for x in as_they_are]
        if self.fractions:
            vectors += [x - x.round() for x in as_they_are]
        return torch.cat([*vectors, timesteps.previous_reward[..., None]], dim=-1)

    def _split(self, varying: Tensor) -> tuple[Tensor, ...]:
        """The vectors as they are, the fine ones, the fractions, and the reward."""
        once = self.once
        return torch.split(varying, [once, varying.shape[-1] - 2 * once - 1, once, 1], dim=-1)

    def observe(self, timesteps: Timesteps, mask: Tensor, add_up: AddUp | None = None) -> None:
        """Update the statistics."""
        self.norm.observe(self._varying(timesteps), mask, add_up)

    def forward(self, timesteps: Timesteps) -> Tensor:
        """``(M, size)``."""
        varying = self._varying(timesteps)
        normed = self.norm(varying)
        if self.fractions:
            plain, others, fractions, reward = self._split(normed)
            # By how much they differ from the vector as it is: what no task has whole numbers in (a clock, say) would
            # count twice otherwise, and the network would see that before anything else.
            added = (fractions - plain) * (self._split(varying)[2] != 0)
            normed = torch.cat([plain, others, added, reward], dim=-1)
        return torch.cat([normed, timesteps.previous_action, timesteps.start[..., None]], dim=-1)


def parts(space: gym.Space[Any]) -> dict[str, gym.Space[Any]]:
    """The spaces of an observation's leaves, as :func:`flat` names them under ``observation``."""
    return flat("observation", _tree(space))


def _tree(space: gym.Space[Any]) -> Any:
    if isinstance(space, gym.spaces.Dict):
        return {name: _tree(part) for name, part in space.spaces.items()}
    return space


def is_vector(space: gym.Space[Any]) -> bool:
    """Whether it is a Box with one axis."""
    return isinstance(space, gym.spaces.Box) and len(space.shape) == 1
