"""One BabyAI task: upstream draws its layouts, and compiled rules play them."""

from __future__ import annotations

from typing import Any, Final

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.suite import Frame
from mtbench.suites.babyai.layouts import IMAGE, NUM_ACTIONS, WORLD, Layouts, upstream
from mtbench.suites.babyai.rules import play_one

Seen = tuple[npt.NDArray[np.uint8], int, str]


class BabyAIGame(gym.Env[Seen, int]):
    """``reset(seed=...)`` begins an attempt on that seed's layout.

    Observations are the view ``(7, 7, 3)`` uint8, the direction from 0 to 3 and the mission.

    Args:
        task: A registered ``BabyAI-*`` name.
    """

    observation_space: gym.Space[Any] = spaces.Tuple(
        (spaces.Box(0, 255, IMAGE, np.uint8), spaces.Discrete(4), spaces.Text(200))
    )
    action_space: gym.Space[Any] = spaces.Discrete(NUM_ACTIONS)

    def __init__(self, task: str) -> None:
        self.task = task
        self._layouts = Layouts(task)
        self.world: Final = np.zeros(1, WORLD)
        self._start = self.world.copy()
        self._seed: int | None = None
        self.mission: str = ""
        self.played: list[int] = []  # since the reset
        self._twin: Any = None
        self._twin_steps = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Seen, dict[str, Any]]:
        """Begin an attempt. The same seed again reuses the layout."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31)) if seed is None else seed
        if drawn != self._seed:
            self._start[0], self.mission = self._layouts.draw(drawn)
            self._seed = drawn
        self.world[:] = self._start
        self.played, self._twin = [], None
        return self._seen(), {}

    def step(self, action: int) -> tuple[Seen, float, bool, bool, dict[str, Any]]:
        """One step."""
        self.played.append(action)
        reward, terminated, truncated = play_one(self.world, action)
        return self._seen(), reward, terminated, truncated, {}

    def _seen(self) -> Seen:
        world = self.world[0]
        return world["image"].copy(), int(world["facing"]), self.mission

    def twin(self) -> Any:
        """Upstream's environment in the same state, for rendering. Callers must not step it."""
        if self._twin is None:
            self._twin, self._twin_steps = upstream(self.task, render_mode="rgb_array"), 0
            self._twin.reset(seed=self._seed)
        for action in self.played[self._twin_steps :]:
            self._twin.step(action)
        self._twin_steps = len(self.played)
        return self._twin

    def picture(self) -> Frame:
        """The whole grid as upstream renders it, with the agent's view in a lighter shade."""
        frame: Frame = self.twin().render()
        return frame

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_twin": None}
