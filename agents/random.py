"""The uniformly random policy: the lower reference of every score."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium.vector.utils import batch_space


class RandomPolicy:
    """Draws every action uniformly from the action space."""

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Seed one stream for all environments; see :class:`mtbench.policy.Policy`."""
        self._actions = batch_space(action_space, num_envs)
        self._actions.seed(seed)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> Any:
        """A batch of random actions."""
        return self._actions.sample()
