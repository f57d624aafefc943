"""Cart poles with half their state hidden: PositionOnly, VelocityOnly and NoisyPositionOnly.

- The physics are Gymnasium's CartPole-v1 (Euler steps of 0.02 s; action 1 pushes right with 10 N, action 0 left).
- PositionOnly shows the cart's position and the pole's angle, VelocityOnly their velocities, but the position and the
  angle at the start. NoisyPositionOnly adds Gaussian noise to what PositionOnly shows, clipped to twice the limits.
- Every step is worth 1 / steps. The attempt ends 2.4 m or 12 degrees from the middle, and is cut off after its last
  step.

(popgym/envs/position_only_cartpole.py, velocity_only_cartpole.py, noisy_position_only_cartpole.py and
gymnasium/envs/classic_control/cartpole.py; 200, 400 and 600 steps, the noisy ones 200 with a deviation of 0.1, 0.2 and
0.3. Sines and cosines may differ from NumPy's in the last bit.)
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mtbench.vector import streams
from mtbench.vector.compiled import compiled

_GRAVITY, _FORCE, _TAU = 9.8, 10.0, 0.02
_CART, _POLE = 1.0, 0.1
_MASS = _POLE + _CART
_LENGTH = 0.5  # to the pole's middle
_POLE_LENGTH = _POLE * _LENGTH
_MOST_X, _MOST_ANGLE = 2.4, 12 * 2 * math.pi / 360
_BOUNDS = np.array([2 * _MOST_X, 2 * _MOST_ANGLE], dtype=np.float32)


@compiled
def start(game: Any, rules: Any, stream: Any) -> None:
    """Near the middle, nearly upright."""
    for i in range(4):
        game.pole[i] = -0.05 + 0.1 * streams.random(stream)
    _show(game, rules, stream, 0)


@compiled
def step(game: Any, rules: Any, stream: Any, action: int, first: int) -> tuple[float, bool, bool]:
    """Reward, terminated, truncated. `first` is 0 to show positions, 1 to show velocities."""
    x, x_dot, angle, angle_dot = game.pole[0], game.pole[1], game.pole[2], game.pole[3]
    force = _FORCE if action == 1 else -_FORCE
    cosine, sine = math.cos(angle), math.sin(angle)
    pushed = (force + _POLE_LENGTH * (angle_dot * angle_dot) * sine) / _MASS
    turning = (_GRAVITY * sine - cosine * pushed) / (_LENGTH * (4.0 / 3.0 - _POLE * (cosine * cosine) / _MASS))
    moving = pushed - _POLE_LENGTH * turning * cosine / _MASS
    x, x_dot = x + _TAU * x_dot, x_dot + _TAU * moving
    angle, angle_dot = angle + _TAU * angle_dot, angle_dot + _TAU * turning
    game.pole[0], game.pole[1], game.pole[2], game.pole[3] = x, x_dot, angle, angle_dot
    game.steps += 1
    _show(game, rules, stream, first)
    fallen = abs(x) > _MOST_X or abs(angle) > _MOST_ANGLE
    return rules.reward, fallen, game.steps >= rules.max_steps


@compiled
def _show(game: Any, rules: Any, stream: Any, first: int) -> None:
    for i in range(2):
        shown = np.float32(game.pole[2 * i + first])
        if rules.noise > 0.0:
            shown = np.float32(shown + np.float32(rules.noise * streams.standard_normal(stream)))
            shown = max(min(shown, _BOUNDS[i]), -_BOUNDS[i])
        game.seen[i] = shown
