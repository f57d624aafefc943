"""One Meta-World skill with hidden, numbered goals."""

from __future__ import annotations

import copy
import threading
import weakref
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final, NamedTuple

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.suite import Frame

Vector = npt.NDArray[np.float64]
Action = npt.NDArray[np.float32]

PICTURE = 480, 480


@lru_cache(maxsize=1)
def goals() -> dict[str, Vector]:
    """The goals by skill, ``(200, D)`` float64; see :mod:`mtbench.suites.metaworld.draw_goals`."""
    with resources.as_file(resources.files("mtbench.suites.metaworld") / "goals.npz") as path, np.load(path) as arrays:
        return dict(arrays)


class Loaded:
    """A skill's model (20 MB, 0.1 s to load), loaded once per process and shared by all environments of the skill.

    A goal moves bodies and sites within the model. Before stepping, each environment restores its own positions.

    Args:
        skill: Such as ``"pick-place-v3"``.
    """

    def __init__(self, skill: str) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        from mtbench.suites.metaworld.faster import faster

        self._first = faster(ALL_V3_ENVIRONMENTS[skill])()
        self._first._freeze_rand_vec = self._first._set_task_called = True
        self._first.mujoco_renderer = None
        self.model: Any = self._first.model
        self.lock: Final = threading.RLock()
        self.movable: tuple[Vector, ...] = (self.model.body_pos, self.model.site_pos)
        self.player: object = None

    def another(self) -> Any:
        """A new upstream environment on this model."""
        import mujoco

        first = self._first
        one = object.__new__(type(first))
        one.model, one.data = first.model, mujoco.MjData(first.model)
        vars(one).update(vars(first) | _copied(vars(first), first.data, one.data) | vars(one))
        return one

    def restore_positions(self, player: object, places: list[Vector]) -> None:
        """Restore a player's positions of bodies and sites, unless it was the last to use the model."""
        if self.player is player:
            return
        for array, values in zip(self.movable, places, strict=True):
            array[:] = values
        self.player = player


@cache
def loaded(skill: str) -> Loaded:
    """The process's only :class:`Loaded` of a skill."""
    return Loaded(skill)


class _Start(NamedTuple):
    """The saved start of an attempt: upstream's reset takes as long as fifty steps."""

    data: Any
    attributes: dict[str, Any]
    observation: Vector


class SkillGame(gym.Env[Vector, Action]):
    """``reset(seed=...)`` begins an attempt at the goal of that number.

    Observations are upstream's ``(39,)`` float64, the goal's three values zeroed. The model loads at the first reset.

    Args:
        skill: Such as ``"pick-place-v3"``.
    """

    action_space: gym.Space[Any] = spaces.Box(-1.0, 1.0, (4,), np.float32)

    def __init__(self, skill: str) -> None:
        self.skill = skill
        self._goal: int | None = None
        self._played: list[Action] = []  # since the reset
        self.observation: Vector = np.zeros(39)
        self._set_up()

    def _set_up(self) -> None:
        self._loaded: Loaded | None = None
        self._upstream: Any = None
        self._start: _Start | None = None
        self._places: list[Vector] = []
        self._me = object()
        self._renderer: Any = None

    @property
    def upstream(self) -> Any:
        """Upstream's environment. Its model is shared: other environments change it when they step."""
        if self._upstream is None:
            self._loaded = loaded(self.skill)
            self._upstream = self._loaded.another()
        return self._upstream

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Vector, dict[str, Any]]:
        """Begin an attempt."""
        super().reset(seed=seed)
        goal = int(self.np_random.integers(len(goals()[self.skill]))) if seed is None else seed
        if self._start is None or goal != self._goal:
            self._begin(goal)
        else:
            self._begin_again(self._start)
        self._played = []
        return self.observation, {}

    def step(self, action: Action) -> tuple[Vector, float, bool, bool, dict[str, Any]]:
        """One step of 12.5 ms."""
        shared = self._loaded
        assert shared is not None
        self._played.append(action.copy())
        with shared.lock:
            shared.restore_positions(self._me, self._places)
            self.observation, reward, terminated, truncated, info = self._upstream.step(action)
        return self.observation, float(reward), terminated, truncated, info

    def picture(self) -> Frame:
        """The robot, ``(480, 480, 3)``, rendered without a window.

        Raises:
            gymnasium.error.DependencyNotInstalled: Neither EGL nor OSMesa works here.
        """
        from mtbench.suites.metaworld.pictures import camera, renderer

        upstream, shared = self.upstream, loaded(self.skill)
        if self._renderer is None:
            self._renderer = renderer(shared.model, *PICTURE)
            weakref.finalize(self, self._renderer.close)  # must happen before EGL shuts down
        with shared.lock:
            shared.restore_positions(self._me, self._places)
            self._renderer.update_scene(upstream.data, camera())
        frame: Frame = self._renderer.render()
        return frame

    def _begin(self, goal: int) -> None:
        upstream, shared = self.upstream, loaded(self.skill)
        upstream._last_rand_vec = goals()[self.skill][goal].copy()
        with shared.lock:
            shared.player = self._me
            self.observation = upstream.reset()[0]
            self._places = [array.copy() for array in shared.movable]
            data = copy.copy(upstream.data)
            self._start = _Start(data, _copied(vars(upstream), upstream.data, data), self.observation.copy())
        self._goal = goal

    def _begin_again(self, start: _Start) -> None:
        data = copy.copy(start.data)
        vars(self._upstream).update(_copied(start.attributes, start.data, data), data=data)
        self.observation = start.observation.copy()

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_loaded", "_upstream", "_start", "_places", "_me", "_renderer")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)
        self._set_up()
        if self._goal is None:
            return
        rng, played = copy.deepcopy(self._np_random), self._played
        self.reset(seed=self._goal)
        for action in played:
            self.step(action)
        self._np_random = rng


# Arrays of `data` that upstream keeps views of. A view such as `init_left_pad` changes with every step, although its
# name suggests a saved value.
_VIEWED = ("xpos", "xquat", "xmat", "geom_xpos", "geom_xmat", "site_xpos", "site_xmat", "qpos", "qvel", "mocap_pos")


def _copied(attributes: dict[str, Any], data: Any, other: Any) -> dict[str, Any]:
    """A copy of the attributes that an attempt may change; views of `data` become views of `other`."""
    fixed = (gym.Space, type(data), type(data.model))
    changing = {name: value for name, value in attributes.items() if not isinstance(value, fixed)}
    memo: dict[int, Any] = {}
    for value in changing.values():
        if not isinstance(value, np.ndarray) or value.flags.owndata:
            continue
        for name in _VIEWED:
            whole = getattr(data, name)
            if np.may_share_memory(value, whole):
                first = (value.ctypes.data - whole.ctypes.data) // value.itemsize
                memo[id(value)] = getattr(other, name).reshape(-1)[first : first + value.size].reshape(value.shape)
    return copy.deepcopy(changing, memo)
