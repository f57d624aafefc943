"""The Procgen games side by side: one core for each slot, stepped by a compiled loop without Python's lock."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from mtbench.suite import Suite
from mtbench.suites.procgen import Procgen, core, mark
from mtbench.vector.compiled import SOURCES, kernel
from mtbench.vector.engine import Array, Engine
from mtbench.vector.native import call


class ProcgenEngine(Engine):
    """Plays what :class:`~mtbench.suites.procgen.game.ProcgenGame` plays."""

    envs_per_worker: ClassVar[int] = 4

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        assert isinstance(suite, Procgen)
        self._tasks = [(task.name, suite.modes[task.name]) for task in suite.tasks.values()]
        self.num_actions = np.full(len(self._tasks), core.NUM_ACTIONS, dtype=np.int64)
        self._timeouts = np.array([task.max_steps for task in suite.tasks.values()], dtype=np.int64)
        n = num_envs
        # What the cores read and write, and the frames shown: an ended attempt keeps its last.
        self._frames, self._shown = np.zeros((2, n, math.prod(core.FRAME)), dtype=np.uint8)
        self._actions, self._rewards = np.zeros(n, dtype=np.int32), np.zeros(n, dtype=np.float32)
        self._over = np.zeros(n, dtype=np.uint8)
        self._cores: list[core.Core | None] = [None] * n
        self._handles = np.zeros(n, dtype=np.uint64)
        self._playing, self._levels = np.full((2, n), -1, dtype=np.int64)
        self._steps = np.zeros(n, dtype=np.int64)
        self._act = _address_of_act()

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """A new core for a new level; the same level begins again in the same core."""
        for i in (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist():
            task, level = int(tasks[i]), int(variants[i])
            held = self._cores[i]
            if held is not None and (task, level) == (self._playing[i], self._levels[i]):
                held.restart()
            else:
                self._playing[i], self._levels[i] = task, level
                self._renew(i)
            self._steps[i] = 0
            self._shown[i] = self._frames[i]

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """One step in every core."""
        memory = (self._frames, self._shown, self._actions, self._rewards, self._over)
        slots = (self._handles, self._steps, self._timeouts, self._playing)
        _step(begin, end, self._act, *slots, *memory, actions, reward, terminated, truncated)

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """Frames, those of later attempts marked."""
        out[begin:end] = self._shown[begin:end].reshape(-1, *core.FRAME)
        for i in (begin + np.flatnonzero(progress["attempt"][begin:end])).tolist():
            mark(out[i])

    def _renew(self, i: int) -> core.Core:
        old, row = self._cores[i], slice(i, i + 1)
        if old is not None:
            old.close()
        memory = core.Buffers(self._frames[i], self._actions[row], self._rewards[row], self._over[row])
        game, mode = self._tasks[self._playing[i]]
        self._cores[i] = new = core.Core(game, mode, int(self._levels[i]), memory)
        self._handles[i] = new.handle
        return new

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_cores": [None if one is None else one.state() for one in self._cores]}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)
        self._act = _address_of_act()
        states, self._cores = content["_cores"], [None] * len(content["_cores"])
        for i, state in enumerate(states):
            if state is not None:
                self._renew(i).restore(state)

    def close(self) -> None:
        """Free the cores."""
        for i, one in enumerate(self._cores):
            if one is not None:
                one.close()
                self._cores[i] = None


def _address_of_act() -> int:
    address = ctypes.cast(core.library().libenv_act, ctypes.c_void_p).value
    assert address is not None
    return address


def _kernels(sources: str) -> Callable[..., None]:
    @kernel
    def step(
        begin: int,
        end: int,
        act: np.uint64,
        handles: Array,
        steps: Array,
        timeouts: Array,
        playing: Array,
        frames: Array,
        shown: Array,
        native_actions: Array,
        rewards: Array,
        over: Array,
        actions: Array,
        reward: Array,
        terminated: Array,
        truncated: Array,
    ) -> None:
        sources  # noqa: B018
        for i in range(begin, end):
            if actions[i] < 0:
                continue
            native_actions[i] = actions[i]
            call(act, handles[i])
            steps[i] += 1
            reward[i] = rewards[i]
            timeout = over[i] and steps[i] == timeouts[playing[i]]
            terminated[i], truncated[i] = over[i] and not timeout, timeout
            if not over[i]:
                for j in range(frames.shape[1]):
                    shown[i, j] = frames[i, j]

    return step


_step = _kernels(SOURCES)
