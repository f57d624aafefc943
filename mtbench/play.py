"""One policy, one environment, one meta-rollout: for watching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from mtbench.policy import Policy, PrivilegedPolicy, RewardedPolicy
from mtbench.rollout import MetaRollout
from mtbench.spaces import stack
from mtbench.suite import Frame


class Playthrough:
    """A meta-rollout that is played once.

    Args:
        env: Where to play.
        policy: Who plays.
        seed: Seeds environment and policy.
        options: What ``env.reset`` pins.
    """

    def __init__(self, env: MetaRollout, policy: Policy, seed: int, options: dict[str, Any]) -> None:
        self._env = env
        self._policy = policy
        self._seed = seed
        self._options = options
        self.statistics: dict[str, Any] = {}

    def run(self) -> None:
        """Play to the end; ``statistics`` then holds the last step's ``info["rollout"]``."""
        for _ in self._play():
            pass

    def frames(self) -> Iterator[Frame]:
        """Play to the end, rendering after the reset and after every step."""
        for _ in self._play():
            frame = self._env.render()
            assert frame is not None
            yield frame

    def _play(self) -> Iterator[None]:
        env, policy = self._env, self._policy
        observation, _ = env.reset(seed=self._seed, options=self._options)
        policy.start(1, self._seed, env.observation_space, env.action_space)
        if isinstance(policy, PrivilegedPolicy):
            policy.bind([env])
        yield
        first, over = True, False
        while not over:
            actions = policy.act(stack(env.observation_space, [observation]), np.array([first]))
            observation, reward, terminated, truncated, info = env.step(actions[0])
            if isinstance(policy, RewardedPolicy):
                policy.observe_rewards(np.array([reward]))
            first, over = False, terminated or truncated
            if over:
                self.statistics = info["rollout"]
            yield
