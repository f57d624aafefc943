"""All pendulums of a batch at once, to the last bit what ``gymnasium``'s ``PendulumEnv`` plays in POPGym's wrapper."""

from __future__ import annotations

from typing import Any

import numpy as np

from mtbench.suite import Suite
from mtbench.vector.engine import Array, Engine

# gymnasium/envs/classic_control/pendulum.py
_GRAVITY, _DT, _MAX_SPEED, _TORQUE = 10.0, 0.05, 8.0, 2.0
_HIGHEST_START = np.array([np.pi, 1.0])
# popgym/envs/position_only_pendulum.py: a step's cost of 0 to this, moved to [1, -1] / steps.
_WORST = 16.2736044


class PendulumEngine(Engine):
    """N attempts. A variant seeds NumPy's generator, as ``reset(seed=variant)`` does upstream."""

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self.num_actions = np.ones(len(suite.tasks), dtype=np.int64)  # not used where actions are a Box
        self.success = np.zeros(num_envs, dtype=np.bool_)
        self._most_steps = np.array([task.max_steps for task in suite.tasks.values()])
        self._state = np.zeros((num_envs, 2))  # angle and speed
        self._steps, self._limit = np.zeros((2, num_envs), dtype=np.int64)

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Begin an attempt in every slot whose variant is not negative."""
        for i in (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist():
            rng = np.random.default_rng(int(variants[i]))
            self._state[i] = rng.uniform(-_HIGHEST_START, _HIGHEST_START)
            self._steps[i], self._limit[i] = 0, self._most_steps[tasks[i]]

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """One Euler step of 0.05 s in every slot that has an action."""
        at = begin + np.flatnonzero(~np.isnan(actions[begin:end, 0]))
        angle, speed = self._state[at].T
        torque = np.clip(actions[at, 0], -_TORQUE, _TORQUE)
        from_top = ((angle + np.pi) % (2 * np.pi)) - np.pi
        cost = _squared(from_top) + 0.1 * _squared(speed) + 0.001 * _squared(torque)
        speed = speed + (3 * _GRAVITY / 2 * np.sin(angle) + 3.0 * torque) * _DT
        speed = np.clip(speed, -_MAX_SPEED, _MAX_SPEED)
        self._state[at] = np.stack([angle + speed * _DT, speed], axis=1)
        self._steps[at] += 1
        reward[at] = (-cost + _WORST / 2) / (_WORST / 2) / self._limit[at]
        terminated[at], truncated[at] = False, self._steps[at] >= self._limit[at]

    def observe(self, begin: int, end: int, progress: Array, out: Any) -> None:
        """Rows of five numbers, as the suite's codec writes them."""
        angle, so_far = self._state[begin:end, 0], progress[begin:end]
        out[begin:end, 0], out[begin:end, 1] = np.cos(angle), np.sin(angle)
        out[begin:end, 2], out[begin:end, 3] = so_far["elapsed"] / 1000, so_far["attempt"]
        out[begin:end, 4] = so_far["reward"]


def _squared(values: Array) -> Array:
    """``values**2`` as NumPy computes it for single numbers: of an array, the last bit may differ."""
    return np.array([value**2 for value in values], dtype=values.dtype)
