"""Multi-Game Procgen: 16 games with levels from a seed, two attempts on the same level.

The games are the C++ core of Cobbe et al. 2020. Each suite plays them at fixed difficulties:

==================== ================================================================================================
procgen-easy         ``easy``; five games by default (the paper's), all 16 through ``tasks=``
procgen-hard         ``hard``, all 16
procgen-memory       ``memory``: larger, partially visible worlds; the six games that have them
procgen-memory-hard  ``memory`` where it exists, else ``hard``; all 16 (the paper's)
==================== ================================================================================================

Observation: ``Box(64, 64, 3)`` uint8, as the core draws it. A black box of 4 x 4 pixels at rows and columns 1 to 4
marks every frame of the second and later attempts. Actions: ``Discrete(15)``, the same for all games.

A variant is a level's seed. Levels 0 to 1,999 are the train split. Evaluating that split plays the same levels again,
because publications compare returns on seen and unseen levels. All other levels are the test split. ``test-distinct``
has 1,000 test levels that, in every game of the suite, look like no training level and unlike each other
(``distinct-levels.json``). Some games have few different levels, see ``results/procgen``.

Published settings that the suites follow:

- the games and difficulties of "easy" (five games) and "memory-hard" (16), drawn uniformly (paper Appendix B);
- two attempts on the same level, whose returns both count (Appendix B);
- a black box in the top left corner throughout the second attempt (Appendix B); its place and size are the release's
  (``procgen_envs.py``);
- at most 2,500 steps in a rollout on easy and 5,000 on memory-hard (Appendix B; the release enforces neither);
- 2,000 training levels and unseen test levels (Section 4);
- coinrun's rewards times 100 and climber's divided by 10 in the rescaled version (Section 4);
- 64 x 64 frames, 15 actions and one ignored step between the attempts (``procgen_envs.py``).

:data:`DEPARTURES` lists where the suites differ.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtbench.pictures import captioned
from mtbench.suite import (
    AttemptVariants,
    Frame,
    Progress,
    Split,
    Suite,
    Task,
    VariantList,
    VariantRange,
    Variants,
    read_data,
)
from mtbench.suites.procgen import core
from mtbench.suites.procgen.game import ProcgenGame

#: Where the suites differ from the paper or from its released code ("the release"); `mtbench info` prints them.
DEPARTURES = (
    "The last observation of an attempt repeats the last frame that was drawn; the release shows the first frame of "
    "the restarted level there, with the black box of the second attempt (procgen_envs.py; procgen's game.cpp).",
    "The train split has the 2,000 levels of the paper (Section 4); the release's example trains on 10,001 by default "
    "(examples/09_multitask_procgen.py).",
    "Test levels go up to 2,147,483,645; the release's go up to 10,000,000 (examples/09_multitask_procgen.py).",
    "Evaluating the train split plays the training levels themselves; the paper reports unseen levels alone "
    "(Figures 6 and 8).",
    "A rollout that reaches its limit of steps is truncated, and an attempt that was not played has return 0 and "
    "length 0; the paper does not say how it counts one (Appendix B).",
    "A rollout whose last attempt ends has terminated=True and truncated=False; the release sets both "
    "(procgen_envs.py).",
    "The paper has neither the suites procgen-hard and procgen-memory, nor easy levels of further games, nor the split "
    "test-distinct (Appendix B).",
    "On Python 3.11 and later the core comes with other wheels than procgen's; the games are the same, and a few "
    "pixels of some differ (mtbench/suites/procgen/core.py).",
)

TRAIN_LEVELS = 2000
_BOX = slice(1, 5)

# Steps after which an attempt ends, for games where this is not 1,000.
_TIMEOUTS = {"leaper": 500, "maze": 500, "bigfish": 6000, "plunder": 4000, "bossfight": 4000}
GAMES = (
    *("coinrun", "starpilot", "caveflyer", "dodgeball", "fruitbot", "chaser", "miner", "jumper"),
    *("leaper", "maze", "bigfish", "heist", "climber", "plunder", "ninja", "bossfight"),
)
MEMORY_GAMES = ("caveflyer", "dodgeball", "heist", "jumper", "maze", "miner")  # game.cpp
PAPER_EASY_GAMES = ("climber", "coinrun", "jumper", "ninja", "leaper")


@dataclass(frozen=True, slots=True)
class _Codec:
    """Copies frames and draws the box of later attempts."""

    actions: ClassVar[range] = range(core.NUM_ACTIONS)

    def encode(self, observation: Frame, progress: Progress) -> Frame:
        frame: Frame = observation.copy()
        if progress.attempt:
            mark(frame)
        return frame


class Procgen(Suite):
    """Several games, each at one difficulty.

    Args:
        name: The suite's name.
        title: The name for display.
        modes: Each game's difficulty.
        default: The games that are played unless ``tasks=`` says otherwise.
    """

    engine = "mtbench.suites.procgen.engine:ProcgenEngine"
    extra = "procgen"
    distributions: tuple[str, ...] = (core.wheel_for(sys.version_info[:2]),)
    packages: tuple[str, ...] = core.PACKAGES
    attempt_variants: AttemptVariants = "same"
    departures: tuple[str, ...] = DEPARTURES
    frame_shape: tuple[int, int, int] = (544, 512, 3)

    def __init__(self, name: str, title: str, modes: dict[str, str], default: Sequence[str]) -> None:
        self.name: str = name
        self.title: str = title
        self.modes: Final = modes
        self.references: str = f"mtbench.suites.procgen:references-{name.removeprefix('procgen-')}.json"
        self.tasks: Mapping[str, Task] = {
            game: Task(game, "", game, max_steps(game, mode)) for game, mode in modes.items()
        }
        games = tuple(game for game in modes if game in default), tuple(game for game in modes if game not in default)
        distinct = DISTINCT_LEVELS[name]
        half = len(distinct) // 2
        train = VariantRange(0, TRAIN_LEVELS)
        levels: dict[str, tuple[Variants, Variants]] = {
            "train": (train, train),
            "test": (VariantRange(TRAIN_LEVELS, 2**30), VariantRange(2**30, 2**31 - 2)),
            "test-distinct": (VariantList(distinct[:half]), VariantList(distinct[half:])),
        }
        self.seen_variants: Mapping[str, Mapping[str, float]] = {
            "train": dict.fromkeys(modes, 1.0),
            "test": {game: SEEN_LEVELS[mode][game] for game, mode in modes.items()},
            "test-distinct": dict.fromkeys(modes, 0.0),
        }
        self.splits: Mapping[str, Split] = {
            split: Split(split, games[0], variants, evaluation, games[1], train if split == "train" else None)
            for split, (variants, evaluation) in levels.items()
        }

    def observation_space(self, k: int) -> spaces.Box:
        """``Box(64, 64, 3)`` uint8."""
        return spaces.Box(0, 255, core.FRAME, np.uint8)

    def action_space(self) -> spaces.Discrete:
        """``Discrete(15)``: eight directions, nothing, and six buttons of which a game uses one or none."""
        return spaces.Discrete(core.NUM_ACTIONS)

    def make_base(self, task: Task) -> ProcgenGame:
        """One game at its difficulty."""
        return ProcgenGame(task.name, self.modes[task.name], task.max_steps)

    def return_bounds(self, task: Task) -> tuple[float, float]:
        """Loose bounds: no game pays more than 10, or less than -10, per step on average."""
        return -10.0 * task.max_steps, 10.0 * task.max_steps

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> _Codec:
        """Copies frames and draws the box of later attempts."""
        return _Codec()

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """The game at 512 x 512 pixels, over a line of text."""
        assert isinstance(base, ProcgenGame)
        return captioned(base.picture(), task, progress, self.frame_shape)

    def require_packages(self) -> None:
        """Check that one of the wheels with the core is installed; see :func:`core.require_library`."""
        core.require_library()


def max_steps(game: str, mode: str) -> int:
    """Steps after which the core ends an attempt (each game's .cpp)."""
    return 2000 if (game, mode) == ("jumper", "memory") else _TIMEOUTS.get(game, 1000)


def mark(frames: Frame, which: Any = ...) -> None:
    """Draw the box of later attempts into a frame, or into some of a batch."""
    frames[which, _BOX, _BOX, :] = 0


_DATA = read_data("mtbench.suites.procgen", "distinct-levels.json")
DISTINCT_LEVELS = {suite: tuple(levels) for suite, levels in _DATA["levels"].items()}
#: By mode and game: the share of test levels that look like a training level.
SEEN_LEVELS: dict[str, dict[str, float]] = _DATA["seen"]

_MEMORY_HARD = {game: "memory" if game in MEMORY_GAMES else "hard" for game in GAMES}
SUITES: dict[str, Procgen] = {
    suite.name: suite
    for suite in (
        Procgen("procgen-easy", "Multi-Game Procgen (easy)", dict.fromkeys(GAMES, "easy"), PAPER_EASY_GAMES),
        Procgen("procgen-hard", "Multi-Game Procgen (hard)", dict.fromkeys(GAMES, "hard"), GAMES),
        Procgen("procgen-memory", "Multi-Game Procgen (memory)", dict.fromkeys(MEMORY_GAMES, "memory"), MEMORY_GAMES),
        Procgen("procgen-memory-hard", "Multi-Game Procgen (memory, else hard)", _MEMORY_HARD, GAMES),
    )
}
