"""Multi-Task POPGym: 27 partially observable games with small spaces.

The games are those of the ``popgym`` package (Morad et al. 2023).

Observation, ``Box(30,)`` float32:

====== =================================================================================================
0..25  the game's observation: Discrete and MultiDiscrete as one-hots side by side, real numbers as they
       are, zeros after that
26     steps since the meta-rollout began / 1000
27     index of the attempt / (k - 1); 0 where k = 1
28     1 where the previous action existed in this game, else 0 (1 before any action)
29     the previous reward on the default scale, also in attempts that pay nothing
====== =================================================================================================

A variant is the seed of one attempt. Every attempt of a rollout plays a new variant, so that no attempt reveals the
cards of the next.

Published settings that the suite follows:

- the 27 tasks with discrete actions whose spaces are smaller than 30, drawn uniformly (paper Appendix B and Figure 16);
- observations padded to 26 values; a uniformly random valid action in place of an invalid one; a channel that says
  whether the previous action was valid (Appendix B);
- one attempt to explore and one that pays; exploration rewards are shown and not paid, as in E-RL2 (Appendix B);
- a new variant of the same task in the second attempt (Section 4);
- the four channels and their scales, and one ignored step between the attempts (the release, ``popgym_envs.py``).

:data:`DEPARTURES` lists where the suite differs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from mtbench.spaces import Vector, native_actions, observation_writer
from mtbench.suite import AttemptVariants, Frame, Progress, Split, Suite, Task, seed_splits

#: Where the suite differs from the paper or from its released code ("the release"); `mtbench info` prints them.
DEPARTURES = (
    "There are 27 actions where the paper has 26 (Appendix B): popgym 1.0.7 added an answer that CountRecall lacked.",
    "popgym 1.0.7 changed CountRecall (27 answers, 17 on Hard) and MineSweeper (ends a step earlier) after the "
    "published scores (popgym pull requests 41 and 38): theirs are scores of other games.",
    "The rollout ends with the last step of the last attempt; the release plays one more step, which ignores its "
    "action (popgym_envs.py).",
    "After the ignored step between attempts, channel 28 is 1; in the release it says whether the ignored action was "
    "valid (popgym_envs.py).",
    "Channels 26 and 27 (steps and attempt) are the release's (popgym_envs.py); the paper's text has neither "
    "(Appendix B).",
    "Training and evaluation draw their seeds from separate ranges, and evaluation plays a fixed list of them; the "
    "release draws unseeded games for both (popgym_envs.py).",
    "The observation space is bounded by what the games can show, and not at all in channels 0 and 1, which can be "
    "velocities; the release's is bounded by -5 and 5 (popgym_envs.py).",
)

GAME_CHANNELS = 26
NUM_ACTIONS = 27

# Family: (class name in popgym.envs, longest attempt at each difficulty). VelocityOnly is spelt as in the
# paper and in the published tables; upstream's class capitalises the P.
_FAMILIES: dict[str, tuple[str, dict[str, int]]] = {
    "Autoencode": ("Autoencode", {"Easy": 103, "Medium": 207, "Hard": 311}),
    "RepeatPrevious": ("RepeatPrevious", {"Easy": 51, "Medium": 103, "Hard": 155}),
    "RepeatFirst": ("RepeatFirst", {"Easy": 51, "Medium": 415, "Hard": 831}),
    "CountRecall": ("CountRecall", {"Easy": 51, "Medium": 103, "Hard": 207}),
    "PositionOnlyCartPole": ("PositionOnlyCartPole", {"Easy": 200, "Medium": 400, "Hard": 600}),
    "VelocityOnlyCartpole": ("VelocityOnlyCartPole", {"Easy": 200, "Medium": 400, "Hard": 600}),
    "NoisyPositionOnlyCartPole": ("NoisyPositionOnlyCartPole", {"Easy": 200, "Medium": 200, "Hard": 200}),
    "MultiarmedBandit": ("MultiarmedBandit", {"Easy": 200, "Medium": 400}),
    "HigherLower": ("HigherLower", {"Easy": 51, "Medium": 103, "Hard": 155}),
    "MineSweeper": ("MineSweeper", {"Easy": 14}),
}

TASKS: dict[str, Task] = {
    family + difficulty: Task(family + difficulty, f"popgym.envs:{upstream}{difficulty}", family, max_steps)
    for family, (upstream, lengths) in _FAMILIES.items()
    for difficulty, max_steps in lengths.items()
}

SPLITS = seed_splits(tuple(TASKS))


class _Codec:
    """Writes a game's observation and the four shared channels into one row."""

    def __init__(self, base: gym.Env[Any, Any]) -> None:
        self.actions: Final = native_actions(base.action_space)
        self._write = observation_writer(base.observation_space)

    def encode(self, observation: Any, progress: Progress) -> Vector:
        row = np.zeros(GAME_CHANNELS + 4, dtype=np.float32)
        self._write(row, observation)
        row[26] = progress.elapsed / 1000
        if progress.attempt:
            row[27] = progress.attempt / (progress.k - 1)
        if progress.action_valid:
            row[28] = 1.0
        row[29] = progress.reward
        return row


class POPGym(Suite):
    """27 POPGym games; see the module for spaces and variants."""

    name = "popgym"
    title = "Multi-Task POPGym"
    engine = "mtbench.suites.popgym.engine:POPGymEngine"
    oracle = "mtbench.suites.popgym.oracle:action"
    references = "mtbench.suites.popgym:references.json"
    extra = "popgym"
    distributions: tuple[str, ...] = ("popgym",)
    packages: tuple[str, ...] = ("popgym",)
    tasks: Mapping[str, Task] = TASKS
    splits: Mapping[str, Split] = SPLITS
    departures: tuple[str, ...] = DEPARTURES
    attempt_variants: AttemptVariants = "new"
    shows_reward = True
    frame_shape: tuple[int, int, int] = (320, 480, 3)

    def observation_space(self, k: int) -> spaces.Box:
        """``Box(30,)``, bounded except for the two channels in which VelocityOnlyCartpole shows velocities."""
        low, high = np.zeros(GAME_CHANNELS + 4), np.ones(GAME_CHANNELS + 4)
        low[:2], high[:2] = -np.inf, np.inf
        longest = max(task.max_steps for task in self.tasks.values())
        high[26] = (k * longest + k - 1) / 1000
        low[29] = -1.0
        return spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)

    def action_space(self) -> spaces.Discrete:
        """``Discrete(27)``; each game uses the first few indices (MineSweeper's 4 x 4 squares row by row)."""
        return spaces.Discrete(NUM_ACTIONS)

    def return_bounds(self, task: Task) -> tuple[float, float]:
        """Upstream scales the rewards of every game so that an attempt sums to a number in [-1, 1]."""
        return -1.0, 1.0

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> _Codec:
        """The game's writer and its native actions."""
        return _Codec(base)

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """The game's hidden state, the agent's progress and the latest reward."""
        from mtbench.suites.popgym.drawing import draw

        return draw(base, task, progress, self.frame_shape)


SUITE = POPGym()
SUITES = {SUITE.name: SUITE}
