"""A policy for Procgen's leaper that goes straight ahead, whatever comes; an agent must beat it to have learnt more."""

from typing import Any

import numpy as np
import numpy.typing as npt

UP = 5  # of Procgen's 15 actions


class Ahead:
    """Without memory, without chance."""

    def start(self, num_envs: int, seed: int, observation_space: Any, action_space: Any) -> None:
        """Nothing to prepare."""
        self.num_envs = num_envs

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
        """Up, everywhere."""
        return np.full(self.num_envs, UP)
