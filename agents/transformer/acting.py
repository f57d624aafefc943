"""Act in many environments at once, with a memory of each rollout."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
import torch

from .backbone import Cache
from .encoders import Timesteps
from .heads import DiscretePolicy
from .model import ActionSpec, AgentModel

Array = npt.NDArray[Any]


class Player:
    """Turns observations into actions, remembering each environment's rollout.

    Actions are an index, or a vector in (-1, 1); :meth:`to_environment` rescales vectors. All draws come from the
    generator given.

    Args:
        num_envs: N.
        action_space: Of one environment.
        rng: Draws the actions.
        device: The model's.
    """

    def __init__(
        self, num_envs: int, action_space: gym.Space[Any], rng: np.random.Generator, device: torch.device
    ) -> None:
        spec = ActionSpec(action_space)
        self._range = (action_space.low, action_space.high) if isinstance(action_space, gym.spaces.Box) else None
        self._rng, self._device = rng, device
        shape, kind = ((num_envs,), np.int64) if spec.discrete else ((num_envs, spec.size), np.float32)
        self.previous_action: Array = np.zeros(shape, dtype=kind)
        self.previous_reward: Array = np.zeros(num_envs, dtype=np.float32)
        self._start = np.ones(num_envs, dtype=np.bool_)
        self._cache: Cache | None = None

    def restart(self, mask: Array) -> None:
        """Forget the rollouts of the environments where `mask` ``(N,)`` is True: their next observation is a first."""
        if self._cache is not None:
            self._cache.restart(mask)
        self._start = mask.copy()
        self.previous_action[mask] = 0
        self.previous_reward[mask] = 0

    def state(self) -> dict[str, Array]:
        """Memories and latest inputs, for a checkpoint."""
        memory = {} if self._cache is None else self._cache.state()
        return {"action": self.previous_action.copy(), "reward": self.previous_reward.copy(), **memory}

    def load_state(self, state: dict[str, Array], model: AgentModel) -> None:
        """Restore what :meth:`state` returned."""
        self.previous_action[:], self.previous_reward[:] = state["action"], state["reward"]
        if "keys" in state:
            self._cache = model.backbone.new_cache(len(self._start), self._device)
            self._cache.load_state(state)

    def act(self, model: AgentModel, observations: Array) -> Array:
        """Sampled actions ``(N,)`` int64 or ``(N, A)`` float32 for the next observation of every environment."""
        if self._cache is None:
            self._cache = model.backbone.new_cache(len(self._start), self._device)

        def tensor(array: Array) -> torch.Tensor:
            return torch.from_numpy(array).to(self._device, non_blocking=True)

        start = tensor(self._start.astype(np.float32))
        timesteps = Timesteps(
            observation=tensor(np.ascontiguousarray(observations)),
            previous_action=model.actions.as_input(tensor(self.previous_action)) * (1 - start)[:, None],
            previous_reward=tensor(self.previous_reward),
            start=start,
        )
        policy = model.step(timesteps, self._cache)
        if isinstance(policy, DiscretePolicy):
            cumulative = policy.probabilities[:, 0].cumsum(dim=-1).cpu().numpy()
            u = self._rng.random((len(cumulative), 1)) * cumulative[:, -1:]
            return np.asarray(np.minimum((u > cumulative).sum(axis=1), cumulative.shape[1] - 1))
        mean, deviation = (v[:, 0].cpu().numpy() for v in (policy.mean, policy.log_std.exp()))
        return np.asarray(np.tanh(mean + deviation * self._rng.standard_normal(mean.shape)), dtype=np.float32)

    def took(self, actions: Array) -> None:
        """Remember the actions that were really played."""
        self.previous_action[:] = actions

    def received(self, rewards: Array) -> None:
        """Remember the rewards that followed."""
        self.previous_reward[:] = rewards

    def to_environment(self, actions: Array) -> Array:
        """Vectors from (-1, 1) to the environment's own range; indices as they are."""
        if self._range is None:
            return actions
        low, high = self._range
        return np.asarray(low + (actions + 1) / 2 * (high - low), dtype=np.float32)
