"""Meta-World: manipulation skills with a hidden goal, three attempts at the same goal.

============== ======================================================================================
metaworld-ml45 45 skills to train on and 5 held out (Yu et al. 2019; ``env_dict.py``, ``ML45_V3``)
metaworld-ml10 10 and 5 of the same
============== ======================================================================================

Skills are those of ``metaworld`` 3 (``-v3``) under its default reward function, ``v2`` (0 to 10 in each step), 500
steps in each attempt. An attempt succeeds if upstream reports success at any of its steps.

Observation: ``Box(41,)`` float32: upstream's 39 values (hand, gripper and objects, in this step and the one before), of
which upstream's meta-learning benchmarks set the goal's three to zero; 1 where an attempt begins, else 0; the
attempt's steps / 500.

A variant is the number of a goal. Goals were drawn by upstream's rules and are shipped (``draw_goals.py``). Each skill
has 50 goals for training, 50 others for evaluation on the train split, and again 50 of each kind for the test split.

Published settings that the suites follow:

- ML45: 45 skills to train on and 5 held out, drawn uniformly, then one of 50 goals (paper Section 2; the release,
  ``metaworld_ml.py``);
- three attempts of 500 steps at the same goal, whose returns all count (Figure 4);
- a goal that is not observed, and a flag that says where an attempt begins (``metaworld_ml.py``);
- success as the maximum of upstream's flag over an attempt (``metaworld_ml.py``); coverage as the share of skills with
  success in at least 2/3 of the attempts (Figure 4).

:data:`DEPARTURES` lists where the suites differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from mtbench.pictures import captioned
from mtbench.suite import AttemptVariants, Frame, Progress, Split, Suite, Task, VariantRange

#: Where the suites differ from the paper or from its released code ("the release"); `mtbench info` prints them.
DEPARTURES = (
    "Skills are the -v3 of metaworld 3, the port to Gymnasium, under the same version of the reward; the release plays "
    "the -v2 of an older commit (metaworld_ml.py, which names it; examples/07_metaworld.py).",
    "The observation has one more value, the attempt's steps / 500; the release's has 40 (metaworld_ml.py).",
    "Between two attempts one step ignores its action, so that three attempts take 1,502 steps; in the release the "
    "first observation of the next attempt replaces the last of the one before, and they take 1,500 "
    '(metaworld_ml.py). attempt_reset="same-step" gives its timing.',
    "The rollout's last observation is the last of its last attempt; the release's is the first of one more attempt, "
    "and its last step sets both terminated and truncated (metaworld_ml.py).",
    "Evaluating training skills plays 50 other goals of each; the release evaluates on the 50 goals of training "
    "(metaworld_ml.py, examples/07_metaworld.py).",
    "`evaluate` plays the test split, five held-out skills, unless told otherwise; the paper's results are those of "
    'the 45 training skills (Figure 4): use split="train".',
    "Goals are fixed and shipped; upstream's benchmarks draw 50 of each skill anew whenever they are made "
    "(metaworld/__init__.py).",
    "The paper has no results of ML10 (Section 4), which is here as metaworld-ml10.",
)

MOST_STEPS = 500
GOALS = 50  # of each skill, for each use

_ML45_TRAIN = (
    *("assembly", "basketball", "button-press-topdown", "button-press-topdown-wall", "button-press"),
    *("button-press-wall", "coffee-button", "coffee-pull", "coffee-push", "dial-turn", "disassemble"),
    *("door-close", "door-open", "drawer-close", "drawer-open", "faucet-open", "faucet-close", "hammer"),
    *("handle-press-side", "handle-press", "handle-pull-side", "handle-pull", "lever-pull"),
    *("pick-place-wall", "pick-out-of-hole", "push-back", "pick-place", "plate-slide", "plate-slide-side"),
    *("plate-slide-back", "plate-slide-back-side", "peg-insert-side", "peg-unplug-side", "soccer"),
    *("stick-push", "stick-pull", "push-wall", "push", "reach-wall", "reach", "shelf-place", "sweep-into"),
    *("sweep", "window-open", "window-close"),
)
_ML45_TEST = (*("bin-picking", "box-close", "hand-insert", "door-lock", "door-unlock"),)
_ML10_TRAIN = (
    *("reach", "push", "pick-place", "door-open", "drawer-close", "button-press-topdown"),
    *("peg-insert-side", "window-open", "sweep", "basketball"),
)
_ML10_TEST = (*("drawer-open", "door-close", "shelf-place", "sweep-into", "lever-pull"),)

_HAND = [-0.525, 0.348, -0.0525], [0.525, 1.025, 0.7]  # sawyer_xyz_env.py: _HAND_SPACE


def _bound(hand: list[float], gripper: float, objects: float, extra: list[float]) -> npt.NDArray[np.float32]:
    now = [*hand, gripper, *[objects] * 14]
    hidden = [gripper] * 3  # always 0; with equal bounds, wrappers that rescale would divide by zero
    return np.array([*now, *now, *hidden, *extra], dtype=np.float32)


@dataclass(frozen=True, slots=True)
class _Codec:
    """Adds to an observation whether it is the first of its attempt, and the attempt's steps."""

    actions: None = None

    def encode(self, observation: npt.NDArray[np.float64], progress: Progress) -> npt.NDArray[np.float32]:
        row = np.empty(41, dtype=np.float32)
        row[:39] = observation
        row[39], row[40] = progress.attempt_start, progress.attempt_steps / MOST_STEPS
        return row


class MetaWorld(Suite):
    """One of upstream's meta-learning benchmarks.

    Args:
        name: The suite's name.
        title: The name for display.
        train: Training skills, without their version.
        test: Held-out skills, without their version.
    """

    engine = "mtbench.suites.metaworld.engine:MetaWorldEngine"
    oracle = "mtbench.suites.metaworld.oracle:action"
    extra = "metaworld"
    distributions: tuple[str, ...] = ("metaworld", "mujoco")
    packages: tuple[str, ...] = ("metaworld", "mujoco")
    attempt_variants: AttemptVariants = "same"
    departures: tuple[str, ...] = DEPARTURES
    has_success = True
    frame_shape: tuple[int, int, int] = (512, 480, 3)
    frames_per_second = 80  # real time

    def __init__(self, name: str, title: str, train: tuple[str, ...], test: tuple[str, ...]) -> None:
        self.name: str = name
        self.title: str = title
        self.references: str = f"mtbench.suites.metaworld:references-{name.removeprefix('metaworld-')}.json"
        skills = [tuple(f"{skill}-v3" for skill in part) for part in (train, test)]
        self.tasks: Mapping[str, Task] = {
            skill: Task(skill, "", skill, MOST_STEPS) for part in skills for skill in part
        }
        goals = [VariantRange(i * GOALS, (i + 1) * GOALS) for i in range(4)]
        self.splits: Mapping[str, Split] = {
            # The third block is also the test split's. Training skills can use it, because no skill is in both splits.
            "train": Split("train", skills[0], goals[0], goals[1], validation=goals[2]),
            "test": Split("test", skills[1], goals[2], goals[3]),
        }

    def observation_space(self, k: int) -> spaces.Box:
        """``Box(41,)`` float32; see the module."""
        low, high = _HAND
        return spaces.Box(_bound(low, -1, -np.inf, [0, 0]), _bound(high, 1, np.inf, [1, 1]), dtype=np.float32)

    def action_space(self) -> spaces.Box:
        """``Box(4,)`` float32: the hand's motion along three axes, and the gripper's effort."""
        return spaces.Box(-1.0, 1.0, (4,), np.float32)

    def make_base(self, task: Task) -> gym.Env[Any, Any]:
        """The environment of one skill."""
        from mtbench.suites.metaworld.game import SkillGame

        return SkillGame(task.name)

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> _Codec:
        """Adds the start flag and the steps of the attempt."""
        return _Codec()

    def return_bounds(self, task: Task) -> tuple[float, float]:
        """Every step pays from 0 to 10."""
        return 0.0, 10.0 * task.max_steps

    def success(self, reward: float, info: dict[str, Any]) -> bool:
        """Upstream's success flag."""
        return bool(info["success"])

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """The robot, seen from a corner of the table, over a line of text."""
        from mtbench.suites.metaworld.game import SkillGame

        assert isinstance(base, SkillGame)
        return captioned(base.picture(), task, progress, self.frame_shape)


SUITES: dict[str, MetaWorld] = {
    suite.name: suite
    for suite in (
        MetaWorld("metaworld-ml45", "Meta-World ML45", _ML45_TRAIN, _ML45_TEST),
        MetaWorld("metaworld-ml10", "Meta-World ML10", _ML10_TRAIN, _ML10_TEST),
    )
}
