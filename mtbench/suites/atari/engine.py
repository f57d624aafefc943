"""Batched Atari on the ALE's native vector interface: each slot has an emulator with its own thread."""

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
_STRENGTH = np.ones(1, dtype=np.float32)  # of a paddle's action


class Console:
    """An emulator with one game, which steps in its own thread without the GIL.

    A reset with a seed loads the game again, because the emulator takes a seed only then. This takes 0.07 s: upstream
    recomputes its palettes.

    The emulator's state cannot be read, so a copy or an unpickled console replays the game's actions.

    Args:
        game: Name of a ROM.
    """

    def __init__(self, game: str) -> None:
        from ale_py import ALEVectorInterface, roms

        self.game = game
        self.seed: int = 0
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
            autoreset_mode="NextStep",  # never applies: a finished game is reset before it is stepped again
        )
        _consoles.add(self)

    def reset(self, seed: int) -> Frame:
        """Begin a new game and return its first frame, a new array."""
        self.seed, self.played = seed, []
        observations, _ = self._ale.reset(_ONLY, np.array([seed]))
        frame: Frame = observations[0, 0]
        return frame

    def send(self, action: int) -> None:
        """Start a step without waiting for its result."""
        self.played.append(action)
        self._ale.send(np.array([action]), _STRENGTH)

    def receive(self) -> tuple[Frame, float, bool, bool]:
        """Wait for the step's result: a new frame, the reward, terminated, truncated."""
        observations, rewards, terminated, truncated, _ = self._ale.recv()
        return observations[0, 0], float(rewards[0]), bool(terminated[0]), bool(truncated[0])

    def count_actions(self) -> int:
        """Number of actions of the game."""
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
    """In a forked process: keep all consoles. Freeing one would wait for its thread, which the fork does not have."""
    for console in list(_consoles):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(console._ale))


after_fork(_never_free)


@dataclass(frozen=True, slots=True)
class _Begun:
    """A game that has begun or is about to begin; `frame` is its first frame."""

    task: int
    variant: int
    console: Console
    frame: Future[Frame]

    def __reduce__(self) -> Any:
        return _restored_game, (self.task, self.variant, self.console)


def _restored_game(task: int, variant: int, console: Console) -> _Begun:
    done: Future[Frame] = Future()
    done.set_result(np.zeros(FRAME, dtype=np.uint8))  # not used: it was observed before pickling
    return _Begun(task, variant, console, done)


class AtariEngine(Engine):
    """A batch of :class:`~mtbench.suites.atari.game.AtariGame`.

    A console plays only one game, and beginning a game takes as long as a hundred steps. So each slot's next game is
    prepared on another console while the slot plays. Idle consoles are kept for slots that need their game later.
    """

    envs_per_worker: ClassVar[int] = sys.maxsize  # one worker is enough: consoles have their own threads
    prepares = True

    def __init__(self, suite: Suite, num_envs: int, k: int) -> None:
        self._games = list(suite.tasks)
        self.num_actions: Array = np.array([count_actions(game) for game in self._games], dtype=np.int64)
        self._playing: list[_Begun | None] = [None] * num_envs
        self._set_up()
        self._frames = np.zeros((num_envs, *FRAME), dtype=np.uint8)

    def _set_up(self) -> None:
        self._prepared: list[_Begun | None] = [None] * len(self._playing)
        self._idle: list[list[Console]] = [[] for _ in self._games]
        self._lock = threading.Lock()  # guards the idle consoles
        self._pool = ThreadPoolExecutor(cpus(), "mtbench-atari")

    def start(self, begin: int, end: int, tasks: Array, variants: Array) -> None:
        """Begin a new game in every slot whose variant is not negative."""
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
        """Begin the predicted next games on other consoles."""
        for i in (begin + np.flatnonzero(variants[begin:end] >= 0)).tolist():
            self._put_away(self._prepared[i])
            self._prepared[i] = self._begin(int(tasks[i]), int(variants[i]))

    def step(self, begin: int, end: int, actions: Array, reward: Array, terminated: Array, truncated: Array) -> None:
        """Step all consoles in parallel."""
        played: list[tuple[int, Console]] = []
        for i in (begin + np.flatnonzero(actions[begin:end] >= 0)).tolist():
            begun = self._playing[i]
            assert begun is not None
            begun.console.send(int(actions[i]))
            played.append((i, begun.console))
        for i, console in played:
            self._frames[i], reward[i], terminated[i], truncated[i] = console.receive()

    def observe(self, begin: int, end: int, progress: Array, out: Array) -> None:
        """Copy the latest frames."""
        out[begin:end] = self._frames[begin:end]

    def close(self) -> None:
        """Free the consoles."""
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
