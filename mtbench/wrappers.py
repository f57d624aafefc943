"""Optional wrappers for single environments, for agents that want their inputs in another shape."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, SupportsFloat

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from mtbench.errors import UsageError, unknown
from mtbench.rollout import MetaRollout
from mtbench.spaces import Vector, WithVector, one_hot


def _rollout(env: gym.Env[Any, Any]) -> MetaRollout:
    rollout = env.unwrapped
    if not isinstance(rollout, MetaRollout):
        raise UsageError(f"This wrapper needs an mtbench environment, got {env}.")
    return rollout


class RL2Inputs(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Adds what a memory agent needs to adapt: previous action, previous reward, attempt start (RL^2, E-RL^2).

    The previous action is the agent's own, one-hot where actions are discrete and as it is where they are a vector;
    zeros when no action was played since (at the start, and after the ignored step between two attempts). The
    previous reward is on the agent's scale and true also in attempts that pay nothing.

    Args:
        env: An mtbench environment.
        layout: ``"dict"`` gives a Dict with the keys ``observation``, ``previous_action`` (float32, (actions,)),
            ``previous_reward`` (float32, (1,)) and ``attempt_start`` (float32, (1,)); ``"append"`` adds them in
            this order to the end of a float32 vector observation.

    Raises:
        UsageError: Unknown layout, or ``"append"`` on an observation that is no vector.
    """

    def __init__(self, env: gym.Env[Any, Any], layout: Literal["dict", "append"] = "dict") -> None:
        RecordConstructorArgs.__init__(self, layout=layout)
        gym.Wrapper.__init__(self, env)
        self._inner = _rollout(env)
        if layout not in ("dict", "append"):
            raise unknown("layout", layout, ["dict", "append"], "RL2Inputs")
        self._append = layout == "append"
        self._scaling = _scaling_below(env)
        space = env.observation_space
        action = env.action_space
        if isinstance(action, spaces.Discrete):
            self._size = int(action.n)
            low, high = np.zeros(self._size, np.float32), np.ones(self._size, np.float32)
        elif isinstance(action, spaces.Box) and len(action.shape) == 1:
            self._size = action.shape[0]
            low, high = np.minimum(action.low, 0.0), np.maximum(action.high, 0.0)
        else:
            raise UsageError(f"RL2Inputs has no encoding for the action space {action}.")
        parts = {
            "previous_action": spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32),
            "previous_reward": spaces.Box(-np.inf, np.inf, (1,), dtype=np.float32),
            "attempt_start": spaces.Box(0.0, 1.0, (1,), dtype=np.float32),
        }
        if self._append:
            if not (isinstance(space, spaces.Box) and len(space.shape) == 1 and space.dtype == np.float32):
                raise UsageError(f'layout="append" needs a float32 vector observation, not {space}; use "dict".')
            boxes = [space, *parts.values()]
            lows, highs = [box.low for box in boxes], [box.high for box in boxes]
            self.observation_space = spaces.Box(np.concatenate(lows), np.concatenate(highs), dtype=np.float32)
        else:
            self.observation_space = spaces.Dict({"observation": space, **parts})

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """As the environment's; no previous action, reward 0."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._with_inputs(observation, None), info

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, with this action among the inputs if it was played."""
        played = self._inner.playing
        observation, reward, terminated, truncated, info = self.env.step(action)
        if "final_attempt_obs" in info:
            info = {**info, "final_attempt_obs": self._with_inputs(info["final_attempt_obs"], action, False)}
        return self._with_inputs(observation, action if played else None), reward, terminated, truncated, info

    def _with_inputs(self, observation: Any, action: Any, attempt_start: bool | None = None) -> Any:
        start = self._inner.attempt_start if attempt_start is None else attempt_start
        scale = math.prod(wrapper.factor for wrapper in self._scaling)
        reward = np.array([self._inner.attempt_reward * scale], dtype=np.float32)
        flag = np.array([start], dtype=np.float32)
        previous = self._encode(action)
        if self._append:
            return np.concatenate([observation, previous, reward, flag])
        return {
            "observation": observation,
            "previous_action": previous,
            "previous_reward": reward,
            "attempt_start": flag,
        }

    def _encode(self, action: Any) -> Vector:
        if action is None:
            return np.zeros(self._size, dtype=np.float32)
        if isinstance(self.env.action_space, spaces.Discrete):
            return one_hot(int(action) - int(self.env.action_space.start), self._size)
        return np.array(action, dtype=np.float32)


class ScaleReward(gym.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Multiplies the reward the agent is paid; statistics in ``info["rollout"]`` keep the default scale.

    Args:
        env: An mtbench environment.
        scale: One factor for all tasks, or factors by task (1 where a task is not named).

    Raises:
        UsageError: A factor is named for a task that the suite does not have.
    """

    def __init__(self, env: gym.Env[Any, Any], scale: float | Mapping[str, float]) -> None:
        RecordConstructorArgs.__init__(self, scale=scale)
        gym.Wrapper.__init__(self, env)
        self._inner = _rollout(env)
        self._by_task = dict(scale) if isinstance(scale, Mapping) else None
        self._scale = 1.0 if isinstance(scale, Mapping) else float(scale)
        for task in self._by_task or {}:
            if task not in self._inner.suite.tasks:
                raise unknown("task", task, list(self._inner.suite.tasks), f"suite {self._inner.suite.name!r}")

    @property
    def factor(self) -> float:
        """What rewards of the current task are multiplied with."""
        return self._scale if self._by_task is None else self._by_task.get(self._inner.task, 1.0)

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, with the reward multiplied."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return observation, float(reward) * self.factor, terminated, truncated, info


def _scaling_below(env: gym.Env[Any, Any]) -> list[ScaleReward]:
    found = []
    while isinstance(env, gym.Wrapper):
        if isinstance(env, ScaleReward):
            found.append(env)
        env = env.env
    return found


class TaskLabel(gym.ObservationWrapper[Any, Any, Any], RecordConstructorArgs):
    """Shows the agent its task: a one-hot over the suite's tasks joins the observation.

    For label-conditioned baselines outside evaluation; ``expose_task_label=True`` does the same inside the
    environment, where records take note of it. A float32 vector grows by the one-hot, other observations become or
    stay a Dict with the key ``task``.

    Args:
        env: An mtbench environment that does not expose its label already.
    """

    def __init__(self, env: gym.Env[Any, Any]) -> None:
        RecordConstructorArgs.__init__(self)
        gym.ObservationWrapper.__init__(self, env)
        self._inner = _rollout(env)
        if self._inner.expose_task_label:
            raise UsageError("The environment exposes its task label already (expose_task_label=True).")
        self._tasks = list(self._inner.suite.tasks)
        label = spaces.Box(0.0, 1.0, (len(self._tasks),), dtype=np.float32)
        self._with_label = WithVector(env.observation_space, "task", label)
        self.observation_space = self._with_label.space

    def step(self, action: Any) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """As the environment's, with the label on every observation, also one in ``info``."""
        observation, reward, terminated, truncated, info = super().step(action)
        if "final_attempt_obs" in info:
            info = {**info, "final_attempt_obs": self.observation(info["final_attempt_obs"])}
        return observation, reward, terminated, truncated, info

    def observation(self, observation: Any) -> Any:
        """The observation and the task's one-hot."""
        label = one_hot(self._tasks.index(self._inner.task), len(self._tasks))
        return self._with_label.join(observation, label)
