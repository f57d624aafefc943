"""Swings the pendulum up by its energy and balances it: a controller that reads the hidden velocity."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout

_CAUGHT = 0.6  # within this angle of the top, in radians, it balances


def action(env: MetaRollout) -> npt.NDArray[np.float32]:
    """The torque in the current state, ``(1,)`` float32.

    Args:
        env: The environment; ``env.base`` is the game that plays the current attempt.
    """
    if not env.playing:  # between two attempts the action is ignored
        return np.zeros(1, dtype=np.float32)
    base: Any = env.base.unwrapped
    angle, speed = base.state
    angle = ((angle + np.pi) % (2 * np.pi)) - np.pi
    if abs(angle) < _CAUGHT:
        torque = -12.0 * angle - 3.0 * speed
    else:
        energy = speed**2 / 6 + 5.0 * (np.cos(angle) - 1.0)  # 0 at rest at the top
        torque = -2.0 * np.sign(speed if speed else 1.0) * np.sign(energy)
    return np.clip([torque], -2.0, 2.0).astype(np.float32)
