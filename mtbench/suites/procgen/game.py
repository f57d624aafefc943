"""One Procgen game as a Gymnasium environment with native 64 x 64 frames."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtbench.suite import Frame
from mtbench.suites.procgen.core import FRAME, NUM_ACTIONS, PICTURE, Buffers, Core


class ProcgenGame(gym.Env[Frame, int]):
    """One game; ``reset(seed=level)`` starts a level.

    The core draws no frame of an attempt's last state, so the attempt's last step returns the previous frame again.

    Args:
        game: The game's name.
        mode: ``"easy"``, ``"hard"`` or ``"memory"``.
        max_steps: Steps after which the core ends an attempt.
    """

    observation_space: gym.Space[Frame] = spaces.Box(0, 255, FRAME, np.uint8)
    action_space: gym.Space[Any] = spaces.Discrete(NUM_ACTIONS)

    def __init__(self, game: str, mode: str, max_steps: int) -> None:
        self.game: Final = game
        self.mode: Final = mode
        self.max_steps: Final = max_steps
        self._buffers = Buffers.new()
        self._shown = np.zeros(FRAME, np.uint8)
        self._core: Core | None = None
        self._steps, self._over = 0, False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Start level `seed`. The frame returned is a buffer that every step overwrites."""
        super().reset(seed=seed)
        level = int(self.np_random.integers(2**31 - 1)) if seed is None else seed
        if self._core is None:
            self._core = Core(self.game, self.mode, level, self._buffers)
        else:
            self._core.begin(level)
        self._steps, self._over = 0, False
        self._shown[:] = self._buffers.frame
        return self._shown, {}

    def step(self, action: int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """One step."""
        assert self._core is not None
        buffers = self._buffers
        buffers.action[0] = action
        self._core.act()
        self._steps += 1
        self._over = over = bool(buffers.over[0])
        if not over:
            self._shown[:] = buffers.frame
        timeout = over and self._steps == self.max_steps
        return self._shown, float(buffers.reward[0]), over and not timeout, timeout, {}

    def picture(self) -> Frame:
        """The current state, 512 x 512, with smooth edges. After the attempt has ended: the level's start."""
        assert self._core is not None
        picture = np.zeros(PICTURE, np.uint8)
        drawing = Core(self.game, self.mode, self._core.level, Buffers.new(), picture)
        drawing.restore(self._core.start if self._over else self._core.state())
        drawing.draw()
        drawing.close()
        return picture

    def close(self) -> None:
        """Free the core."""
        if self._core is not None:
            self._core.close()
            self._core = None

    def __getstate__(self) -> dict[str, Any]:
        held = self._core and (self._core.level, self._core.state())
        return {**self.__dict__, "_core": held, "_buffers": None}

    def __setstate__(self, content: dict[str, Any]) -> None:
        held = content.pop("_core")
        self.__dict__.update(content)
        self._core, self._buffers = None, Buffers.new()
        if held is not None:
            level, state = held
            self._core = Core(self.game, self.mode, level, self._buffers)
            self._core.restore(state)
