"""One policy, one environment, one meta-rollout: for watching."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from mtbench.films import Trace
from mtbench.policy import Policy, PrivilegedPolicy, RewardedPolicy, ValuingPolicy, load_policy
from mtbench.rollout import MetaRollout
from mtbench.spaces import stack
from mtbench.suite import Frame


def contact_sheet_frames(env: MetaRollout) -> list[Frame]:
    """One picture of each task of an environment, a few random steps after its start."""
    frames = []
    for task in env.tasks:
        steps = max(0, min(19, env.suite.tasks[task].max_steps // 3 - 1))
        frames.append(Playthrough(env, load_policy("random"), 0, {"task": task}).frame_after(steps))
    return frames


class Playthrough:
    """A meta-rollout that is played once.

    Args:
        env: Where to play.
        policy: Who plays.
        seed: Seeds environment and policy.
        options: What ``env.reset`` pins.

    Attributes:
        steps: Steps taken so far.
        statistics: The last step's ``info["rollout"]``, once the rollout is over.
        values_known: Whether the policy says which return it expects.
        trace: Rewards and attempts so far, and the values if they are known.
    """

    def __init__(self, env: MetaRollout, policy: Policy, seed: int, options: dict[str, Any]) -> None:
        self._env = env
        self._policy = policy
        self._seed = seed
        self._options = options
        self.steps: int = 0
        self.statistics: dict[str, Any] = {}
        self.values_known: Final = isinstance(policy, ValuingPolicy)
        self.trace: Trace = Trace()

    def run(self) -> None:
        """Play to the end."""
        for _ in self._play():
            pass

    def frames(self, every: int = 1) -> Iterator[Frame]:
        """Play to the end, rendering the first observation, every `every`-th step's and the last one's."""
        for over in self._play():
            if over or self.steps % every == 0:
                yield self._frame()

    def frame_after(self, steps: int) -> Frame:
        """Play `steps` steps, or to the end if it comes before, and render once."""
        for over in self._play():
            if over or self.steps == steps:
                break
        return self._frame()

    def _frame(self) -> Frame:
        frame = self._env.render()
        assert frame is not None
        return frame

    def _play(self) -> Iterator[bool]:
        """Yield after the reset and after every step: whether the rollout is over."""
        env, policy = self._env, self._policy
        observation, _ = env.reset(seed=self._seed, options=self._options)
        policy.start(1, self._seed, env.observation_space, env.action_space)
        if isinstance(policy, PrivilegedPolicy):
            policy.bind([env])
        self.steps = 0
        self.trace = trace = Trace(starts=[0])
        yield False
        first, over = True, False
        while not over:
            inputs = stack(env.observation_space, [observation]), np.array([first])
            if isinstance(policy, ValuingPolicy):
                actions, values = policy.act_and_value(*inputs)
                trace.values.append(float(values[0]))
            else:
                actions = policy.act(*inputs)
            observation, reward, terminated, truncated, info = env.step(actions[0])
            if isinstance(policy, RewardedPolicy):
                policy.observe_rewards(np.array([reward]))
            first, over = False, bool(terminated or truncated)
            self.steps += 1
            trace.rewards.append(float(reward))
            if over:
                self.statistics = info["rollout"]
                trace.returns = [float(value) for value in self.statistics["returns"]]
            elif env.attempt_start:
                trace.starts.append(self.steps)
            yield over
