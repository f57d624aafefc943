"""Vectors of numbers: POPGym and Meta-World."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
from torch import Tensor, nn

from ..config import ModelConfig
from .base import Encoder, Numbers, Timesteps, is_vector, mlp, parts


class VectorEncoder(Encoder):
    """Normalize, then a small MLP over everything (paper Table 2, "FF")."""

    takes = "vectors"

    def __init__(self, space: gym.Space[Any], action_size: int, config: ModelConfig) -> None:
        super().__init__(space, action_size, config)
        self.numbers: Final = Numbers(space, list(parts(space)), action_size, config)
        self.mlp: Final = mlp(self.numbers.size, *config.encoder)
        self.out: Final = nn.Linear([self.numbers.size, *config.encoder][-1], config.width)

    @classmethod
    def accepts(cls, space: gym.Space[Any]) -> bool:
        """A vector, or a Dict of vectors."""
        return all(is_vector(part) for part in parts(space).values())

    def forward(self, timesteps: Timesteps) -> Tensor:
        """``(M, width)``."""
        encoded: Tensor = self.out(self.mlp(self.numbers(timesteps)))
        return encoded
