"""One Meta-World skill with hidden goals that are numbered."""

from __future__ import annotations

import copy
import weakref
from functools import lru_cache
from importlib import resources
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.suite import Frame

Vector = npt.NDArray[np.float64]

#: What upstream's papers show.
CAMERA = "corner2"


@lru_cache(maxsize=1)
def goals() -> dict[str, Vector]:
    """By skill, ``(200, D)`` float64; see :mod:`mtbench.suites.metaworld.draw_goals`."""
    with resources.as_file(resources.files("mtbench.suites.metaworld") / "goals.npz") as path, np.load(path) as arrays:
        return dict(arrays)


class SkillGame(gym.Env[Vector, npt.NDArray[np.float32]]):
    """``reset(seed=...)`` begins an attempt at the goal of that number.

    Observations are upstream's ``(39,)`` float64, the goal's three values zeroed. The model loads at the first reset.

    Args:
        skill: Such as ``"pick-place-v3"``.
    """

    action_space: gym.Space[Any] = spaces.Box(-1.0, 1.0, (4,), np.float32)

    def __init__(self, skill: str) -> None:
        self.skill = skill
        self._upstream: Any = None
        self._renderer: Any = None
        self._goal: int | None = None
        self._played: list[npt.NDArray[np.float32]] = []  # since the reset

    @property
    def upstream(self) -> Any:
        """Upstream's environment."""
        if self._upstream is None:
            from metaworld.env_dict import ALL_V3_ENVIRONMENTS

            from mtbench.suites.metaworld.faster import faster

            self._upstream = faster(ALL_V3_ENVIRONMENTS[self.skill])()
            self._upstream._freeze_rand_vec = self._upstream._set_task_called = True
        return self._upstream

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """Begin an attempt."""
        super().reset(seed=seed)
        drawn = goals()[self.skill]
        self._goal = int(self.np_random.integers(len(drawn))) if seed is None else seed
        self._played = []
        self.upstream._last_rand_vec = drawn[self._goal].copy()
        self.observation: Vector = self.upstream.reset()[0]
        return self.observation, {}

    def step(self, action: npt.NDArray[np.float32]) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """One step of 12.5 ms."""
        self._played.append(action.copy())
        self.observation, reward, terminated, truncated, info = self.upstream.step(action)
        return self.observation, float(reward), terminated, truncated, info

    def picture(self) -> Frame:
        """The robot, ``(480, 480, 3)``, drawn off the screen.

        Raises:
            gymnasium.error.DependencyNotInstalled: Neither EGL nor OSMesa works here.
        """
        import mujoco

        if self._renderer is None:
            try:
                self._renderer = mujoco.Renderer(self.upstream.model, 480, 480)
            except Exception as error:
                raise gym.error.DependencyNotInstalled(
                    "Pictures of Meta-World need EGL or OSMesa (libEGL.so or libOSMesa.so), and the variable "
                    f"MUJOCO_GL set to egl or osmesa before MuJoCo is imported: {error}"
                ) from error
            weakref.finalize(self, self._renderer.close)  # before EGL itself is gone
        self._renderer.update_scene(self.upstream.data, camera=CAMERA)
        frame: Frame = self._renderer.render()[::-1].copy()
        return frame

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_upstream": None, "_renderer": None}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)
        if self._goal is None:
            return
        rng, played = copy.deepcopy(self._np_random), self._played
        self.reset(seed=self._goal)
        for action in played:
            self.step(action)
        self._np_random = rng
