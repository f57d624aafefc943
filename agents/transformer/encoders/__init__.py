"""Timestep encoders: observation, previous action, previous reward and rollout start become one vector.

An encoder for another kind of observation is a subclass of :class:`Encoder` in a file here, and its name in
:data:`ENCODERS`.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from mtbench.errors import UsageError

from ..config import ModelConfig
from .base import Encoder, Timesteps
from .grid import GridMissionEncoder
from .image import ImageEncoder
from .vector import VectorEncoder

__all__ = ["ENCODERS", "Encoder", "Timesteps", "make_encoder"]

#: The first that accepts an observation space encodes it.
ENCODERS: tuple[type[Encoder], ...] = (VectorEncoder, ImageEncoder, GridMissionEncoder)


def make_encoder(space: gym.Space[Any], action_size: int, config: ModelConfig) -> Encoder:
    """The encoder for an observation space.

    Raises:
        UsageError: No encoder accepts this kind of observation, or it does not fit the settings.
    """
    for encoder in ENCODERS:
        if encoder.accepts(space):
            return encoder(space, action_size, config)
    known = "; ".join(f"{encoder.__name__} takes {encoder.takes}" for encoder in ENCODERS)
    raise UsageError(
        f"The reference agent has no encoder for the observation space {space}. {known}. "
        'CONTRIBUTING.md ("An encoder") tells how to add one.'
    )
