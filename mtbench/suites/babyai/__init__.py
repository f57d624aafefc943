"""Multi-Task BabyAI: instructions in a grid world, two attempts on the same layout.

The tasks are MiniGrid's (Chevalier-Boisvert et al. 2019, 2023). Observation, a Dict:

========= ==================== =====================================================================================
image     (7, 7, 3) uint8      the view ahead: kind, color and state of each cell, in upstream's codes; at most 10
direction (4,) float32         the way the agent faces (east, south, west, north), one-hot
mission   (9,) int64           numbers of the instruction's words: 0 is padding, 1 a word that is not in :data:`WORDS`
attempt   (1,) float32         the index of the attempt (from 0) / k
========= ==================== =====================================================================================

Actions: ``Discrete(7)``, upstream's. The reward of a completed mission is 1 - 0.9 (steps / most steps). An attempt
succeeds if its reward is positive.

A variant is a layout's seed. One training task, KeyCorridor, is the same environment as one held-out task under another
name (``repeats``); the paper's split has both. Small tasks have few layouts, so evaluation on the training tasks
plays some layouts of training again (``seen_variants``; results/babyai/README.md). ``split="train-distinct"`` evaluates
on 500 seeds that give none of the repeated layouts found, and leaves out the tasks of :data:`NO_DISTINCT_LAYOUTS`.

Published settings that the suite follows:

- 68 tasks, 50 to train on and 18 held out, drawn uniformly (paper Appendix B and Figure 11; the names are those of
  ``examples/10_babyai.py``);
- a partial view of 7 x 7 cells, missions as numbers from a vocabulary of 29 words (Appendix B), at most 9 of them
  (the release, ``babyai.py``);
- two attempts on the same layout, whose returns both count (Section 4);
- training layouts from the seeds 0 to 5,000, others for evaluation (``examples/10_babyai.py``);
- one ignored step between the attempts (``babyai.py``).

:data:`DEPARTURES` lists where the suite differs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.pictures import captioned
from mtbench.spaces import one_hot
from mtbench.suite import AttemptVariants, Frame, Progress, Split, Suite, Task, VariantList, VariantRange, read_data
from mtbench.suites.babyai.layouts import IMAGE, NUM_ACTIONS

#: Where the suite differs from the paper or from its released code ("the release"); `mtbench info` prints them.
DEPARTURES = (
    "`attempt` is 0 in the first attempt and 1/2 in the second; the release counts from 1/2, shows 1 from the last "
    "observation of the first attempt on, and 3/2 in the last observation of the rollout (babyai.py).",
    "The training task GoToObjS6 is minigrid's -v1 with rooms of size 6; the release names -v0 "
    "(examples/10_babyai.py), which minigrid up to 2.3.1 registered with rooms of size 4.",
    "The test split has the 18 held-out tasks, and `evaluate` plays it unless told otherwise; the paper's Figure 17 "
    "and the release's example evaluate all 68 on unseen layouts (examples/10_babyai.py): evaluate both splits.",
    "Layouts of evaluation are the seeds 5,001 to 249,999 on the train split (250,000 to 299,999 for validation) "
    "and 600,000 to 1,000,000 on the test split, whose resets draw the seeds between; the release draws from 5,001 to "
    "1,000,000 for all tasks (examples/10_babyai.py).",
    "Five training layouts of SynthS5R2 (seeds 1,741, 2,678, 3,586, 4,033 and 4,527), and about one in 600 of its "
    "other seeds, leave the agent no place, and upstream never stops looking for one (RoomGrid.place_agent in "
    "minigrid/core/roomgrid.py): here the layout is drawn again, as upstream does where an object finds no place.",
    "Direction and attempt are two keys of the observation; the release has one vector `extra` of both, and bounds "
    "the image by 255 where this suite's bound is 10 (babyai.py).",
    "Fifteen further tasks with missions of at most 9 words, which the paper does not have (Figure 17), can be named "
    "in `tasks` on the train split.",
)

#: The words in the missions of the 68 tasks. Their numbers are 2, 3 and so on, in this order.
WORDS = (
    *("a", "ball", "behind", "blue", "box", "door", "door,", "front", "go", "green", "grey", "in", "key", "left"),
    *("object", "of", "on", "open", "pick", "purple", "red", "right", "the", "then", "to", "up", "yellow", "you"),
    "your",
)
MOST_WORDS = 9
#: The largest number in an image. The numbers are codes of kinds, colors and states, not brightness.
LARGEST = 10
_NUMBERS = {word: number for number, word in enumerate(WORDS, start=2)}

_DATA, _REPEATS = (read_data("mtbench.suites.babyai", name) for name in ("tasks.json", "repeats.json"))
TRAIN_TASKS, TEST_TASKS, OTHER_TASKS = (tuple(_DATA[name]) for name in ("train", "test", "also"))


def _family(name: str) -> str:
    """The family of a task: ``GoToLocal`` for ``BabyAI-GoToLocalS8N7-v0``."""
    return re.sub(r"(S\d+)?(N\d+|R\d+)?(Carrying)?-v\d+$", "", name.removeprefix("BabyAI-"))


TASKS = {
    name: Task(name, "", _family(name), steps)
    for part in ("train", "test", "also")
    for name, steps in _DATA[part].items()
}
#: Training tasks that are not in ``train-distinct``: training plays nearly all of their layouts.
NO_DISTINCT_LAYOUTS: tuple[str, ...] = tuple(_REPEATS["no_distinct_layouts"])
DISTINCT_TASKS = tuple(task for task in TRAIN_TASKS if task not in NO_DISTINCT_LAYOUTS)
SPLITS = {
    "train": Split(
        "train",
        TRAIN_TASKS,
        VariantRange(0, 5001),
        VariantRange(5001, 250_000),
        extra_tasks=OTHER_TASKS,
        validation=VariantRange(250_000, 300_000),
    ),
    "test": Split("test", TEST_TASKS, VariantRange(300_000, 600_000), VariantRange(600_000, 1_000_001)),
    "train-distinct": Split(
        "train-distinct",
        DISTINCT_TASKS,
        VariantRange(0, 5001),
        VariantList(tuple(_REPEATS["distinct_seeds"])),
        validation=VariantRange(250_000, 300_000),
    ),
}
SEEN_VARIANTS: Mapping[str, Mapping[str, float]] = {
    "train": _REPEATS["repeated"],
    "train-distinct": {task: 0.0 for task in DISTINCT_TASKS if task in _REPEATS["repeated"]},
}
REPEATS: dict[str, str] = _DATA["same"]
REFUSED = {
    name: f"its missions have up to {words} words, and observations have room for {MOST_WORDS}"
    for name, words in _DATA["too_long"].items()
}


def mission_numbers(mission: str) -> npt.NDArray[np.int64]:
    """The numbers of a mission's words, ``(9,)`` int64."""
    numbers = np.zeros(MOST_WORDS, dtype=np.int64)
    for at, word in enumerate(mission.split()):
        numbers[at] = _NUMBERS.get(word, 1)
    return numbers


class _Codec:
    """Makes the Dict observation from the parts of a base observation."""

    actions: ClassVar[range] = range(NUM_ACTIONS)

    def __init__(self) -> None:
        self._mission, self._numbers = "", mission_numbers("")

    def encode(self, observation: Any, progress: Progress) -> dict[str, npt.NDArray[Any]]:
        image, direction, mission = observation
        if mission != self._mission:
            self._mission, self._numbers = mission, mission_numbers(mission)
        return {
            "attempt": np.array([progress.attempt / progress.k], dtype=np.float32),
            "direction": one_hot(direction, 4),
            "image": image,
            "mission": self._numbers.copy(),
        }


class BabyAI(Suite):
    """68 tasks and 15 more; see the module for layouts, observations and splits."""

    name = "babyai"
    title = "Multi-Task BabyAI"
    engine = "mtbench.suites.babyai.engine:BabyAIEngine"
    oracle = "mtbench.suites.babyai.oracle:action"
    references = "mtbench.suites.babyai:references.json"
    extra = "babyai"
    distributions: tuple[str, ...] = ("minigrid",)
    packages: tuple[str, ...] = ("minigrid", "numba")
    tasks: Mapping[str, Task] = TASKS
    splits: Mapping[str, Split] = SPLITS
    departures: tuple[str, ...] = DEPARTURES
    attempt_variants: AttemptVariants = "same"
    has_success = True
    repeats: Mapping[str, str] = REPEATS
    seen_variants: Mapping[str, Mapping[str, float]] = SEEN_VARIANTS
    remarks: Mapping[str, str] = _DATA["remarks"]
    refused: Mapping[str, str] = REFUSED
    frame_shape: tuple[int, int, int] = (544, 512, 3)

    def observation_space(self, k: int) -> spaces.Dict:
        """See the module."""
        return spaces.Dict(
            {
                "attempt": spaces.Box(0.0, 1.0, (1,), np.float32),
                "direction": spaces.Box(0.0, 1.0, (4,), np.float32),
                "image": spaces.Box(0, LARGEST, IMAGE, np.uint8),
                "mission": spaces.MultiDiscrete([len(WORDS) + 2] * MOST_WORDS),
            }
        )

    def action_space(self) -> spaces.Discrete:
        """``Discrete(7)``: left, right, forward, pick up, drop, toggle, done."""
        return spaces.Discrete(NUM_ACTIONS)

    def make_base(self, task: Task) -> gym.Env[Any, Any]:
        """One task."""
        from mtbench.suites.babyai.game import BabyAIGame

        return BabyAIGame(task.name)

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> _Codec:
        """Makes the Dict observation."""
        return _Codec()

    def return_bounds(self, task: Task) -> tuple[float, float]:
        """A completed mission pays between 0 and 1, once."""
        return 0.0, 1.0

    def success(self, reward: float, info: dict[str, Any]) -> bool:
        """Only a completed mission pays a reward."""
        return reward > 0

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """The whole grid, with the agent's view in a lighter shade, over the mission and a line of text."""
        from PIL import Image, ImageOps

        from mtbench.suites.babyai.game import BabyAIGame

        assert isinstance(base, BabyAIGame)
        picture = Image.fromarray(base.picture())
        fitted = ImageOps.pad(picture, (512, 496), Image.Resampling.BILINEAR, color=(24, 26, 29))
        return captioned(np.asarray(fitted), task, progress, self.frame_shape, second=base.mission)


SUITE = BabyAI()
SUITES = {SUITE.name: SUITE}
