"""Atari games side by side on the ALE's native vector interface: each slot has a console, whose thread steps it."""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from mtbench.suite import Frame, Suite
from mtbench.suites.atari import count_actions
from mtbench.suites.atari.game import FRAME, FRAME_SKIP, MOST_FRAMES, STICKINESS
from mtbench.vector.engine import Array, Engine, cpus
from mtbench.vector.forks import after_fork

_ONLY = np.zeros(1, dtype=np.int64)
_STRENGTH = np.ones(1, dtype=np.float32)  # of a paddle


class Console:
    """The emulator with one game in it, stepping in a thread of its own, beside Python's lock.

    Every seed loads the game anew, which is what seeds the emulator; upstream recomputes its palettes then, 0.07 s.

    Its state cannot be read: a copy, or a pickle, plays the same game again up to here.

    Args:
        game: A ROM's name.
    """

    def __init__(self, game: str) -> None:
        from ale_py import ALEVectorInterface, roms

        self.game = game
        self.seed = 0
        self.played: list[int] = []  # actions since the reset
        path = roms.get_rom_path(game)
        assert path is not None
        self._ale = ALEVectorInterface(
            rom_path=path,
            num_envs=1,
            frame_skip=FRAME_SKIP,
            stack_num=1,
            img_height=FRAME[0],
            img_width=FRAME[1],
            grayscale=False,
            maxpool=False,
            noop_max=0,
            use_fire_reset=False,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            max_episode_steps=MOST_FRAMES,
            repeat_action_probability=STICKINESS,
            full_action_space=True,
            batch_size=0,
            num_threads=1,
            thread_affinity_offset=-1,
            autoreset_mode="NextStep",  # never met: games are reset as soon as they are over
        )
        _consoles.add(self)

    def reset(self, seed: int) -> Frame:
        """A new game; returns a new frame."""
        self.seed, self.played = seed, []
        observations, _ = self._ale.reset(_ONLY, np.array([seed]))
        frame: Frame = observations[0, 0]
        return frame

    def send(self, action: int) -> None:
        """Begin a step."""
        self.played.append(action)
        self._ale.send(np.array([action]), _STRENGTH)

    def receive(self) -> tuple[Frame, float, bool, bool]:
        """End it: a new frame, the points, whether the game is over or has taken too long."""
        observations, rewards, terminated, truncated, _ = self._ale.recv()
        return observations[0, 0], float(rewards[0]), bool(terminated[0]), bool(truncated[0])

    def count_actions(self) -> int:
        """Actions that exist."""
        return len(self._ale.get_action_set())

    def __getstate__(self) -> tuple[str, int, list[int]]:
        return self.game, self.seed, self.played

    def __setstate__(self, content: tuple[str, int, list[int]]) -> None:
        game, seed, played = content
        Console.__init__(self, game)
        self.reset(seed)
        for action in played:
            self.send(action)
            self.receive()


_consoles: weakref.WeakSet[Console] = weakref.WeakSet()


def _never_free() -> None:
    """In a forked process: freeing a console would wait for its thread, which is not there."""
    for console in list(_consoles):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(console._ale))


after_fork(_never_free)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A game that has begun, or is about to; `frame` is its first."""

    task: int
    variant: int
    console: Console
    frame: Future[Frame]

    def __reduce__(self) -> Any:
        return _again, (self.task, self.variant, self.console)


def _again(task: int, variant: int, console: Console) -> _Begun:
    done: Future[Frame] = Future()
    done.set_result(np.zeros(FRAME, dtype=np.uint8))  # seen already
    return _Begun(task, variant, console, done)


class AtariEngine(Engine):
    """Plays what :class:`~mtbench.suites.atari.game.AtariGame` plays.

    A console plays one game only, and takes as long to begin one as for a hundred steps: what each slot plays next is
    prepared on another console meanwhile. Consoles that no slot needs wait for one that wants their game.
    """

    envs_per_worker: ClassVar[int] = sys.maxsize  # consoles have threads of their own
    prepares = True

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self._games = list(suite.tasks)
        self.num_actions = np.array([count_actions(game) for game in self._games], dtype=np.int64)
        self._playing: list[_Begun | None] = [None] * num_envs
        self._set_up()
        self._frames = np.zeros((num_envs, *FRAME), dtype=np.uint8)

    def _set_up(self) -> None:
        self._prepared: list[_Begun | None] = [None] * len(self._playing)
        self._idle: list[list[Console]] = [[] for _ in self._games]
        self._lock = threading.Lock()  # of the idle ones
        self._pool = ThreadPoolExecutor(cpus(), "mtbench-atari")

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """A new game in every slot that begins."""
        starting = (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist()
        for i in starting:
            task, variant = int(tasks[i]), int(variants[i])
            self._put_away(self._playing[i])
            ready, self._prepared[i] = self._prepared[i], None
            if ready is None or (ready.task, ready.variant) != (task, variant):
                self._put_away(ready)
                ready = self._begin(task, variant)
            self._playing[i] = ready
        for i in starting:
            begun = self._playing[i]
            assert begun is not None
            self._frames[i] = begun.frame.result()

    def prepare(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Begin next games on other consoles."""
        for i in (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist():
            self._put_away(self._prepared[i])
            self._prepared[i] = self._begin(int(tasks[i]), int(variants[i]))

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """All consoles at once."""
        played: list[tuple[int, Console]] = []
        for i in (begin + np.flatnonzero(actions[begin:end] >= 0)).tolist():
            begun = self._playing[i]
            assert begun is not None
            begun.console.send(int(actions[i]))
            played.append((i, begun.console))
        for i, console in played:
            self._frames[i], reward[i], terminated[i], truncated[i] = console.receive()

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """Frames."""
        out[begin:end] = self._frames[begin:end]

    def close(self) -> None:
        """Let the consoles go."""
        self._pool.shutdown(cancel_futures=True)
        self._playing, self._prepared = [], []
        self._idle.clear()

    def __getstate__(self) -> dict[str, Any]:
        return {name: self.__dict__[name] for name in ("_games", "num_actions", "_playing", "_frames")}

    def __setstate__(self, content: dict[str, Any]) -> None:
        self.__dict__.update(content)
        self._set_up()

    def _begin(self, task: int, variant: int) -> _Begun:
        with self._lock:
            console = self._idle[task].pop() if self._idle[task] else None
        console = console or Console(self._games[task])
        return _Begun(task, variant, console, self._pool.submit(console.reset, variant))

    def _put_away(self, begun: _Begun | None) -> None:
        if begun is None:
            return
        if not begun.frame.cancel():
            begun.frame.result()
        with self._lock:
            self._idle[begun.task].append(begun.console)
