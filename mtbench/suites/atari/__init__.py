"""Multi-Game Atari: whole games from pixels, with unclipped rewards.

A meta-rollout is one game, and its end flags are the game's own. A variant is the seed of the sticky actions.

Observation: ``Box(84, 84, 3)`` uint8, the last of the 4 frames of a step in colour, reduced by averaging. Frames are
neither stacked nor merged by a maximum.

Published settings that the suite follows:

- ten games, one policy, unclipped rewards, no frame stacking, no greyscale (paper Appendix B, Figure 9); rewards
  clipped to [-1, 1] in ``MTAtari-Clipped-v0`` (Figure 9);
- the rules of the ALE's ``v5`` environments (Appendix B; Machado et al. 2018): each frame repeats the previous
  action with probability 0.25, each step plays 4 frames, a game has at most 108,000 frames;
- all 18 actions in every game of the paper, losing a life does not end the game, 84 x 84 pixels (the release,
  ``ale_retro.py`` and ``examples/08_ale.py``).

:data:`DEPARTURES` lists where the suite differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtbench.pictures import captioned
from mtbench.suite import AttemptVariants, Frame, Progress, Split, Suite, Task, seed_splits
from mtbench.suites.atari.game import FRAME, FRAME_SKIP, MOST_FRAMES, NUM_ACTIONS, AtariGame

#: Where the suite differs from the paper or from its released code ("the release"); `mtbench info` prints them.
DEPARTURES = (
    "A step plays 4 frames, as in the v5 environments that the paper names (Appendix B); the release's example plays 5 "
    "(examples/08_ale.py).",
    "The observation of a game's last step repeats the frame of the step before, because the ALE's vector interface "
    "draws no last frame; the release shows the last frame (ale_retro.py).",
    "Every reset draws one of the games uniformly; the release gives each of its actors one game for good, so that all "
    "games are always played in parallel (examples/08_ale.py).",
    "Frames are (84, 84, 3); the release's have the channels first (ale_retro.py).",
    "The 94 games beside the paper's ten (Figure 9) are further tasks; two of them, lost_luggage and skiing, have 9 "
    "actions instead of 18.",
)

PAPER_GAMES = (
    *("pong", "boxing", "breakout", "gopher", "ms_pacman"),
    *("chopper_command", "crazy_climber", "battle_zone", "qbert", "seaquest"),
)
# The other games for one player that the wheel of ale-py 0.12 ships.
OTHER_GAMES = (
    *("adventure", "air_raid", "alien", "amidar", "assault", "asterix", "asteroids", "atlantis", "atlantis2"),
    *("backgammon", "bank_heist", "basic_math", "beam_rider", "berzerk", "blackjack", "bowling", "carnival"),
    *("casino", "centipede", "crossbow", "darkchambers", "defender", "demon_attack", "donkey_kong", "double_dunk"),
    *("earthworld", "elevator_action", "enduro", "entombed", "et", "fishing_derby", "flag_capture", "freeway"),
    *("frogger", "frostbite", "galaxian", "gravitar", "hangman", "haunted_house", "hero", "human_cannonball"),
    *("ice_hockey", "jamesbond", "journey_escape", "kaboom", "kangaroo", "keystone_kapers", "king_kong", "klax"),
    *("koolaid", "krull", "kung_fu_master", "laser_gates", "lost_luggage", "mario_bros", "miniature_golf"),
    *("montezuma_revenge", "mr_do", "name_this_game", "othello", "pacman", "phoenix", "pitfall", "pitfall2"),
    *("pooyan", "private_eye", "riverraid", "road_runner", "robotank", "sir_lancelot", "skiing", "solaris"),
    *("space_invaders", "space_war", "star_gunner", "superman", "surround", "tennis", "tetris", "tic_tac_toe_3d"),
    *("time_pilot", "trondead", "turmoil", "tutankham", "up_n_down", "venture", "video_checkers", "video_chess"),
    *("video_cube", "video_pinball", "wizard_of_wor", "word_zapper", "yars_revenge", "zaxxon"),
)
#: Games without a fire button have only the first actions.
FEWER_ACTIONS = {"lost_luggage": 9, "skiing": 9}

_MOST_STEPS = MOST_FRAMES // FRAME_SKIP
TASKS = {game: Task(game, "", game, _MOST_STEPS) for game in PAPER_GAMES + OTHER_GAMES}
SPLITS = seed_splits(PAPER_GAMES, extra_tasks=OTHER_GAMES)


def count_actions(game: str) -> int:
    """Number of actions of a game."""
    return FEWER_ACTIONS.get(game, NUM_ACTIONS)


@dataclass(frozen=True, slots=True)
class _Codec:
    """Passes frames on unchanged: the game returns a new array each time."""

    actions: range

    def encode(self, observation: Frame, progress: Progress) -> Frame:
        return observation


class Atari(Suite):
    """104 games; see the module for rules and variants."""

    name = "atari"
    title = "Multi-Game Atari"
    engine = "mtbench.suites.atari.engine:AtariEngine"
    references = "mtbench.suites.atari:references.json"
    extra = "atari"
    distributions: tuple[str, ...] = ("ale-py",)
    packages: tuple[str, ...] = ("ale_py", "numba")
    tasks: Mapping[str, Task] = TASKS
    splits: Mapping[str, Split] = SPLITS
    attempt_variants: AttemptVariants = "new"
    departures: tuple[str, ...] = DEPARTURES
    single_attempt = True
    frame_shape: tuple[int, int, int] = (452, 320, 3)

    def observation_space(self, k: int) -> spaces.Box:
        """``Box(84, 84, 3)`` uint8."""
        return spaces.Box(0, 255, FRAME, np.uint8)

    def action_space(self) -> spaces.Discrete:
        """``Discrete(18)``."""
        return spaces.Discrete(NUM_ACTIONS)

    def make_base(self, task: Task) -> AtariGame:
        """One game."""
        return AtariGame(task.name)

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> _Codec:
        """Passes frames on unchanged."""
        return _Codec(range(count_actions(task.name)))

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """The console's screen, about twice its size, over a line of text."""
        from PIL import Image

        assert isinstance(base, AtariGame)
        enlarged = Image.fromarray(base.screen()).resize((320, 420), Image.Resampling.NEAREST)
        return captioned(np.asarray(enlarged), task, progress, self.frame_shape)


SUITE = Atari()
SUITES = {SUITE.name: SUITE}
