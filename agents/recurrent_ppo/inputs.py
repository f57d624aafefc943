"""What the network sees: the observation, the previous action and the previous reward, as in RL^2.

An agent that is never told the task finds it out from what its actions paid (Duan et al., "RL^2", 2016). The reference
agent has the same inputs.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.errors import UsageError
from mtbench.wrappers import encoded_actions

Array = npt.NDArray[Any]

ACTION, REWARD = "previous_action", "previous_reward"


class PreviousInputs:
    """Puts observations and the previous step together, in batches.

    A float32 vector gets both at its end. With anything else, the parts are a flat Dict.

    Args:
        observation: The space of one observation: a Box, or a Dict of Boxes and the like.
        action: The space of one action.

    Attributes:
        space: The space of one observation with its inputs.

    Raises:
        UsageError: An action that is neither Discrete nor a vector.
    """

    def __init__(self, observation: gym.Space[Any], action: gym.Space[Any]) -> None:
        self._action = action
        if isinstance(action, spaces.Discrete):
            size, low, high = int(action.n), 0.0, 1.0
        elif isinstance(action, spaces.Box) and len(action.shape) == 1:
            size, low, high = action.shape[0], -np.inf, np.inf
        else:
            raise UsageError(f"recurrent-ppo plays with Discrete actions and vectors of numbers, not {action}.")
        self._size = size
        parts = {
            ACTION: spaces.Box(low, high, (size,), dtype=np.float32),
            REWARD: spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32),
        }
        self._vector = isinstance(observation, spaces.Box) and observation.dtype == np.float32
        self._vector = self._vector and len(observation.shape or ()) == 1
        self.space: gym.Space[Any]
        if self._vector:
            boxes = [observation, *parts.values()]
            bounds = [np.concatenate([getattr(box, bound) for box in boxes]) for bound in ("low", "high")]
            self.space = spaces.Box(bounds[0], bounds[1], dtype=np.float32)
        elif isinstance(observation, spaces.Dict):
            self.space = spaces.Dict({**observation.spaces, **parts})
        else:
            self.space = spaces.Dict({"observation": observation, **parts})
        self.start(1)

    def start(self, count: int) -> None:
        """Begin with no previous action and reward 0, in so many rows."""
        self._actions = np.zeros((count, self._size), dtype=np.float32)
        self._rewards = np.zeros((count, 1), dtype=np.float32)

    def restart(self, rows: Array) -> None:
        """A meta-rollout begins in these rows: a mask or indices."""
        self._actions[rows], self._rewards[rows] = 0.0, 0.0

    def took(self, actions: Array) -> None:
        """The actions of all rows."""
        self._actions[:] = encoded_actions(self._action, actions)

    def received(self, rewards: Array) -> None:
        """The rewards that followed."""
        self._rewards[:, 0] = rewards

    def joined(self, observations: Any) -> Any:
        """A batch of observations with their inputs."""
        return self._join(observations, self._actions, self._rewards)

    def joined_row(self, observation: Any, row: int) -> Any:
        """One observation, with the inputs of its row."""
        return self._join(observation, self._actions[row], self._rewards[row])

    def _join(self, observation: Any, action: Array, reward: Array) -> Any:
        if self._vector:
            return np.concatenate([observation, action, reward], axis=-1)
        parts = observation if isinstance(observation, dict) else {"observation": observation}
        return {**parts, ACTION: action.copy(), REWARD: reward.copy()}
