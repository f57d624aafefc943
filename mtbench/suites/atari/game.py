"""One Atari game. Its screens are reduced as in the ALE's vector interface, bit for bit."""

from __future__ import annotations

import re
import struct
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from mtbench.suite import Frame

FRAME = (84, 84, 3)
NUM_ACTIONS = 18

#: The rules: the ALE's ``v5`` environments (Machado et al. 2018).
FRAME_SKIP, STICKINESS, MOST_FRAMES = 4, 0.25, 108_000

_RANDOM_STATE = re.compile(rb"(?:\d+ ){624}\d+")  # a Mersenne Twister as C++ writes it: 624 words and a position
_NESTED_LENGTH = slice(24, 28)


class SeededStart:
    """Computes the emulator's state after loading a game with a seed, from the state after loading with the seed 0.

    A seed only affects the sticky actions, and hardly any game draws sticky actions while it loads. For all other games
    these states differ only in the random generator. Writing the generator's initial state into a saved state takes
    0.5 ms; loading takes 70 ms.

    Args:
        saved: The state of an emulator that has just loaded its game with the seed 0, as ``ALEState`` pickles it.

    Attributes:
        possible: Whether this works: the game drew nothing while it loaded, and the state has ale-py 0.12's layout.
    """

    def __init__(self, saved: bytes) -> None:
        begin, end = ([match.span() for match in _RANDOM_STATE.finditer(saved)] or [(0, 0)])[-1]
        self._before, self._after = saved[: max(begin - 4, 0)], saved[end:]
        self._rest = struct.unpack("<i", saved[_NESTED_LENGTH])[0] - (end - begin)
        self.possible: Final = self.of(0) == saved

    def of(self, seed: int) -> bytes:
        """The state after loading with `seed`."""
        twister = np.random.MT19937()
        twister._legacy_seeding(seed)
        state: Any = twister.state["state"]
        text = f"{' '.join(map(str, state['key'].tolist()))} {state['pos']}".encode()
        saved = bytearray(self._before + struct.pack("<i", len(text)) + text + self._after)
        saved[_NESTED_LENGTH] = struct.pack("<i", self._rest + len(text))
        return bytes(saved)


class AtariGame(gym.Env[Frame, int]):
    """``reset(seed=...)`` begins a game.

    A copy or an unpickled game replays the game's actions, because part of the emulator's state cannot be read.

    Args:
        game: Name of a ROM.
    """

    observation_space: gym.Space[Frame] = spaces.Box(0, 255, FRAME, np.uint8)
    action_space: gym.Space[Any] = spaces.Discrete(NUM_ACTIONS)

    def __init__(self, game: str) -> None:
        from ale_py import ALEInterface, ALEState, LoggerMode, roms

        from mtbench.suites.atari.resize import area_weights, shrink

        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.game = game
        self._variant: int | None = None
        self._played: list[int] = []  # actions since the reset
        self._ale = ALEInterface()
        self._ale.setInt("random_seed", 0)
        self._ale.setFloat("repeat_action_probability", STICKINESS)
        self._ale.setInt("max_num_frames_per_episode", MOST_FRAMES)
        rom = roms.get_rom_path(game)
        assert rom is not None
        self._rom = rom
        self._ale.loadROM(rom)
        self._actions = self._ale.getLegalActionSet()
        saved: Any = self._ale.cloneState(include_rng=True).__getstate__()  # bytes, although the stub says otherwise
        self._start, self._state_type = SeededStart(saved), ALEState
        height, width = self._ale.getScreenDims()
        self._screen = np.zeros((height, width, 3), dtype=np.uint8)
        self._shrink = shrink
        self._weights = (*area_weights(width, FRAME[1]), *area_weights(height, FRAME[0]))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Frame, dict[str, Any]]:
        """Begin a new game; every frame is a new array."""
        super().reset(seed=seed)
        self._begin(int(self.np_random.integers(2**31)) if seed is None else seed)
        return self._frame(), {}

    def step(self, action: int) -> tuple[Frame, float, bool, bool, dict[str, Any]]:
        """One step: four frames."""
        self._played.append(action)
        native, ale = self._actions[action], self._ale
        # The emulator's own frame skip is not used: it would also apply to the actions with which some games start.
        points = sum([ale.act(native, 1.0) for _ in range(FRAME_SKIP)])
        over, cut = ale.game_over(with_truncation=False), ale.game_truncated()
        if not over and not cut:  # the vector interface does not draw the last screen either
            ale.getScreenRGB(self._screen)
        return self._frame(), float(points), over, cut, {}

    def screen(self) -> Frame:
        """The console's screen, ``(210, 160, 3)``; 250 rows in games for PAL sets."""
        return self._ale.getScreenRGB()

    def _begin(self, variant: int) -> None:
        self._variant, self._played = variant, []
        if self._start.possible:
            state: Any = self._state_type.__new__(self._state_type)
            state.__setstate__(self._start.of(variant))
            self._ale.restoreState(state)
        else:
            self._ale.setInt("random_seed", variant)
            self._ale.loadROM(self._rom)
        self._ale.reset_game()
        self._ale.getScreenRGB(self._screen)

    def _frame(self) -> Frame:
        frame = np.empty(FRAME, dtype=np.uint8)
        self._shrink(self._screen.reshape(len(self._screen), -1), frame.reshape(FRAME[0], -1), *self._weights)
        return frame

    def __getstate__(self) -> dict[str, Any]:
        rng = self._np_random
        return {"game": self.game, "variant": self._variant, "played": self._played, "rng": rng, "spec": self.spec}

    def __setstate__(self, content: dict[str, Any]) -> None:
        AtariGame.__init__(self, content["game"])
        self._np_random = content["rng"]
        self.spec: EnvSpec | None = content["spec"]
        if content["variant"] is not None:
            self._begin(content["variant"])
        for action in content["played"]:
            self.step(action)
