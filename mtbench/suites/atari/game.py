"""One Atari game on the ALE's native vector interface, which is also what steps many of them."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.suite import Frame

FRAME = (84, 84, 3)
SCREEN = (210, 160)
NUM_ACTIONS = 18

_ONLY = np.zeros(1, dtype=np.int64)
_STRENGTH = np.ones(1, dtype=np.float32)  # of a paddle


class Console:
    """The emulator with one game in it, stepping in a thread of its own.

    Every seed loads the game anew, which is what seeds the emulator; upstream recomputes its palettes then, 0.07 s.

    Its state cannot be read: a copy, or a pickle, plays the same game again up to here.

    Args:
        game: A ROM's name.
        size: Height and width of its frames.
    """

    def __init__(self, game: str, size: tuple[int, int] = FRAME[:2]) -> None:
        from ale_py import ALEVectorInterface, roms

        self.game, self.size = game, size
        self.seed = 0
        self.played: list[int] = []  # actions since the reset
        path = roms.get_rom_path(game)
        assert path is not None
        self._ale = ALEVectorInterface(
            rom_path=path,
            num_envs=1,
            frame_skip=4,
            stack_num=1,
            img_height=size[0],
            img_width=size[1],
            grayscale=False,
            maxpool=False,
            noop_max=0,
            use_fire_reset=False,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            max_episode_steps=108_000,
            repeat_action_probability=0.25,
            full_action_space=True,
            batch_size=0,
            num_threads=1,
            thread_affinity_offset=-1,
            autoreset_mode="NextStep",  # never met: games are reset as soon as they are over
        )

    def reset(self, seed: int) -> Frame:
        """A new game; returns a new frame."""
        self.seed, self.played = seed, []
        observations, _ = self._ale.reset(_ONLY, np.array([seed]))
        return _frame(observations)

    def send(self, action: int) -> None:
        """Begin a step."""
        self.played.append(action)
        self._ale.send(np.array([action]), _STRENGTH)

    def receive(self) -> tuple[Frame, float, bool, bool]:
        """End it: a new frame, the points, whether the game is over or has taken too long."""
        observations, rewards, terminated, truncated, _ = self._ale.recv()
        return _frame(observations), float(rewards[0]), bool(terminated[0]), bool(truncated[0])

    def __getstate__(self) -> tuple[str, tuple[int, int], int, list[int]]:
        return self.game, self.size, self.seed, self.played

    def __setstate__(self, content: tuple[str, tuple[int, int], int, list[int]]) -> None:
        game, size, seed, played = content
        Console.__init__(self, game, size)
        self.reset(seed)
        for action in played:
            self.send(action)
            self.receive()

    def count_actions(self) -> int:
        """Actions that exist."""
        return len(self._ale.get_action_set())


def _frame(observations: npt.NDArray[np.uint8]) -> Frame:
    frame: Frame = observations[0, 0]
    return frame


class AtariGame(gym.Env[Frame, int]):
    """``reset(seed=...)`` begins a game.

    Args:
        game: A ROM's name.
    """

    observation_space: gym.Space[Frame] = spaces.Box(0, 255, FRAME, np.uint8)
    action_space: gym.Space[Any] = spaces.Discrete(NUM_ACTIONS)

    def __init__(self, game: str) -> None:
        self._console = Console(game)
        self._twin: Console | None = None  # at full size

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """A new game; frames are new arrays."""
        super().reset(seed=seed)
        self._twin = None
        return self._console.reset(int(self.np_random.integers(2**31)) if seed is None else seed), {}

    def step(self, action: int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """One step: four frames."""
        self._console.send(action)
        return *self._console.receive(), {}

    def screen(self) -> Frame:
        """The console's screen, ``(210, 160, 3)``, from a second console that plays the same game."""
        if self._twin is None:
            self._twin = Console(self._console.game, SCREEN)
            self._screen = self._twin.reset(self._console.seed)
        for action in self._console.played[len(self._twin.played) :]:
            self._twin.send(action)
            self._screen = self._twin.receive()[0]
        return self._screen
