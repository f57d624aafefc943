"""Batched BabyAI: compiled rules on an array of worlds, while other processes draw the next layouts."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any, ClassVar

import numpy as np

from mtbench.suite import Suite
from mtbench.suites.babyai import MOST_WORDS, mission_numbers
from mtbench.suites.babyai.drawers import Drawers, Drawn
from mtbench.suites.babyai.layouts import NUM_ACTIONS, WORLD, Layouts, World
from mtbench.suites.babyai.rules import play
from mtbench.vector.compiled import kernel
from mtbench.vector.engine import Array, Engine, cpus

# Up to this number of environments, drawing layouts in this process is faster than starting processes for it.
_FEW = 8


class BabyAIEngine(Engine):
    """A batch of :class:`~mtbench.suites.babyai.game.BabyAIGame`."""

    envs_per_worker: ClassVar[int] = 512

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self._tasks, self._k = list(suite.tasks), k
        self.num_actions: Array = np.full(len(self._tasks), NUM_ACTIONS, dtype=np.int64)
        self.success: Array = np.zeros(num_envs, dtype=np.bool_)
        self.prepares: bool = num_envs > _FEW
        self._worlds, self._starts = np.zeros((2, num_envs), WORLD)
        self._missions = np.zeros((num_envs, MOST_WORDS), dtype=np.int64)
        self._drawn: list[tuple[int, int] | None] = [None] * num_envs  # task and variant of each slot's start
        self._set_up()

    def _set_up(self) -> None:
        self._layouts: dict[int, Layouts] = {}
        self._lock = threading.Lock()  # guards `_layouts` and `_drawers`
        self._prepared: list[tuple[tuple[int, int], Future[Drawn]] | None] = [None] * len(self._drawn)
        self._drawers: Drawers | None = None

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Begin attempts. A slot that plays its layout again copies the saved start."""
        for i in (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist():
            wanted = int(tasks[i]), int(variants[i])
            if self._drawn[i] != wanted:
                self._starts[i], mission = self._draw(i, wanted)
                self._missions[i] = mission_numbers(mission)
                self._drawn[i] = wanted
            self._worlds[i] = self._starts[i]

    def prepare(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Let other processes draw the predicted next layouts."""
        starting = (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist()
        if not starting:
            return
        with self._lock:
            drawers = self._drawers = self._drawers or Drawers(cpus())
        for i in starting:
            task, variant = int(tasks[i]), int(variants[i])
            self._prepared[i] = (task, variant), drawers.draw(self._tasks[task], variant)

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """One step in every slot's world."""
        _step(begin, end, self._worlds, actions, reward, terminated, truncated, self.success)

    def observe(self, begin: int, end: int, progress: Array, out: dict[str, Array]) -> None:
        """Write observations in the layout of :mod:`mtbench.suites.babyai`."""
        parts = out["attempt"], out["direction"], out["image"], out["mission"]
        _observe(begin, end, self._worlds, self._missions, progress, self._k, *parts)

    def close(self) -> None:
        """Stop the processes that draw layouts."""
        if self._drawers is not None:
            self._drawers.close()
        self._set_up()

    def __getstate__(self) -> dict[str, Any]:
        left_out = ("_layouts", "_lock", "_prepared", "_drawers")
        return {name: value for name, value in self.__dict__.items() if name not in left_out}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)
        self._set_up()

    def _draw(self, i: int, wanted: tuple[int, int]) -> tuple[World, str]:
        prepared, self._prepared[i] = self._prepared[i], None
        if prepared is not None and prepared[0] == wanted:
            return prepared[1].result()
        if prepared is not None:
            prepared[1].cancel()
        task, variant = wanted
        with self._lock:
            if task not in self._layouts:
                self._layouts[task] = Layouts(self._tasks[task])
            return self._layouts[task].draw(variant)


@kernel
def _step(
    begin: int,
    end: int,
    worlds: World,
    actions: Array,
    reward: Array,
    terminated: Array,
    truncated: Array,
    success: Array,
) -> None:
    for i in range(begin, end):
        if actions[i] >= 0:
            reward[i], terminated[i], truncated[i] = play(worlds[i], actions[i])
            success[i] = reward[i] > 0


@kernel
def _observe(
    begin: int,
    end: int,
    worlds: World,
    missions: Array,
    progress: Any,
    k: int,
    attempt: Array,
    direction: Array,
    image: Array,
    mission: Array,
) -> None:
    for i in range(begin, end):
        attempt[i, 0] = progress[i].attempt / k
        direction[i] = 0
        direction[i, worlds[i].facing] = 1
        image[i] = worlds[i].image
        mission[i] = missions[i]
