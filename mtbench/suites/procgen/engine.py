"""Batched Procgen: one core for each slot, stepped by a compiled loop without the GIL."""

from __future__ import annotations

import ctypes
import math
import threading
from typing import Any, ClassVar

import numpy as np

from mtbench.suite import Suite
from mtbench.suites.procgen import Procgen, core, mark
from mtbench.suites.procgen.native import call
from mtbench.vector.compiled import kernel
from mtbench.vector.engine import Array, Engine

_FRAME = math.prod(core.FRAME)


class ProcgenEngine(Engine):
    """A batch of :class:`~mtbench.suites.procgen.game.ProcgenGame`.

    A core plays only one game. When a slot changes to another game, its core stays idle until a slot needs that game,
    so there are about twice as many cores as slots.
    """

    envs_per_worker: ClassVar[int] = 4

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        assert isinstance(suite, Procgen)
        self._tasks = [(task.name, suite.modes[task.name]) for task in suite.tasks.values()]
        self.num_actions: Array = np.full(len(self._tasks), core.NUM_ACTIONS, dtype=np.int64)
        self._timeouts = np.array([task.max_steps for task in suite.tasks.values()], dtype=np.int64)
        # By slot: its task, the steps of its attempt, and the frame it shows. An ended attempt keeps its last frame.
        self._playing, self._steps = np.full(num_envs, -1, dtype=np.int64), np.zeros(num_envs, dtype=np.int64)
        self._shown = np.zeros((num_envs, _FRAME), dtype=np.uint8)
        self._set_up_cores()

    def _set_up_cores(self) -> None:
        n = len(self._playing)
        most = n * len(self._tasks)
        # The memory that cores read and write, one row per core. Rows that are never written use no physical memory.
        self._frames = np.zeros((most, _FRAME), dtype=np.uint8)
        self._actions, self._rewards = np.zeros(most, dtype=np.int32), np.zeros(most, dtype=np.float32)
        self._over, self._handles = np.zeros(most, dtype=np.uint8), np.zeros(most, dtype=np.uint64)
        self._cores: list[core.Core] = []
        self._idle: list[list[int]] = [[] for _ in self._tasks]
        self._held = np.full(n, -1, dtype=np.int64)  # by slot, the row of its core
        self._act = _address_of_act()
        self._lock = threading.Lock()

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Start each slot's level on its core, or on another core if the slot changes the game."""
        for i in (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist():
            task, level = int(tasks[i]), int(variants[i])
            if task != self._playing[i]:
                with self._lock:
                    if self._playing[i] >= 0:
                        self._idle[self._playing[i]].append(int(self._held[i]))
                    self._held[i] = self._idle[task].pop() if self._idle[task] else self._make(task, level)
                self._playing[i] = task
            row = self._held[i]
            self._cores[row].begin(level)
            self._steps[i] = 0
            self._shown[i] = self._frames[row]

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """One step in every slot's core."""
        slots = (self._held, self._steps, self._timeouts, self._playing, self._shown)
        memory = (self._handles, self._frames, self._actions, self._rewards, self._over)
        _step(begin, end, self._act, *slots, *memory, actions, reward, terminated, truncated)

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """Write the frames, with the box in later attempts."""
        out[begin:end] = self._shown[begin:end].reshape(-1, *core.FRAME)
        mark(out, begin + np.flatnonzero(progress["attempt"][begin:end]))

    def close(self) -> None:
        """Free the cores."""
        for one in self._cores:
            one.close()
        self._cores.clear()

    def _make(self, task: int, level: int) -> int:
        row = len(self._cores)
        one = slice(row, row + 1)
        memory = core.Buffers(self._frames[row], self._actions[one], self._rewards[one], self._over[one])
        self._cores.append(core.Core(*self._tasks[task], level, memory))
        self._handles[row] = self._cores[row].handle
        return row

    def __getstate__(self) -> dict[str, Any]:
        kept = ("_tasks", "num_actions", "_timeouts", "_playing", "_steps", "_shown")
        cores = [self._cores[row] for row in self._held[self._playing >= 0].tolist()]
        levels = [(one.level, one.state()) for one in cores]
        return {**{name: self.__dict__[name] for name in kept}, "levels": levels}

    def __setstate__(self, content: dict[str, Any]) -> None:
        levels = content.pop("levels")
        self.__dict__.update(content)
        self._set_up_cores()
        for i, (level, state) in zip(np.flatnonzero(self._playing >= 0).tolist(), levels, strict=True):
            self._held[i] = self._make(int(self._playing[i]), level)
            self._cores[self._held[i]].restore(state)


def _address_of_act() -> int:
    address = ctypes.cast(core.library().libenv_act, ctypes.c_void_p).value
    assert address is not None
    return address


@kernel
def _step(
    begin: int,
    end: int,
    act: int,
    held: Array,
    steps: Array,
    timeouts: Array,
    playing: Array,
    shown: Array,
    handles: Array,
    frames: Array,
    native_actions: Array,
    rewards: Array,
    over: Array,
    actions: Array,
    reward: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    for i in range(begin, end):
        if actions[i] < 0:
            continue
        row = held[i]
        native_actions[row] = actions[i]
        call(act, handles[row])
        steps[i] += 1
        reward[i] = rewards[row]
        timeout = over[row] and steps[i] == timeouts[playing[i]]
        terminated[i], truncated[i] = over[row] and not timeout, timeout
        if not over[row]:
            for j in range(frames.shape[1]):
                shown[i, j] = frames[row, j]
