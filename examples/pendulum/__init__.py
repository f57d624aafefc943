"""A whole suite outside the mtbench package: swing up a pendulum whose velocity is hidden, with a continuous torque.

The tasks are POPGym's three pendulums (Morad et al. 2023, ``popgym/envs/position_only_pendulum.py``), which differ in
the length of an attempt. Copy this folder to begin a suite of your own:

============================ ===========================================================================================
``__init__.py``              the declaration: tasks, splits, observations, actions, a picture; and the ID
``engine.py``                all attempts of a batch in a few NumPy operations; leave it out, and batches are slower
``oracle.py``                an expert that reads the hidden state; leave it out, and there is no ``--policy oracle``
``references.json``          what a score of 0 and 1 mean; leave it out, and scores are plain returns
``measure_references.py``    what made that file
``test_pendulum.py``         the contract tests of mtbench, and the engine beside the single environment
============================ ===========================================================================================

After ``import examples.pendulum`` everything works as with the IDs of mtbench. On the command line, ``--suite`` imports
it:

    mtbench evaluate MetaPendulum-v0 --suite examples.pendulum --policy oracle --out runs/pendulum

Observation, ``Box(5,)`` float32: cosine and sine of the angle (0 is up), steps of the rollout / 1000, attempt, previous
reward. Action, ``Box(1,)`` float32: the torque. A variant seeds the angle and the speed at the start, which are new in
every attempt.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from PIL import Image, ImageDraw

import mtbench
from mtbench.suite import Frame, Progress, Suite, Task, seed_splits

TORQUE = 2.0
_FAMILY = "PositionOnlyPendulum"
TASKS = {
    task.name: task
    for difficulty, steps in (("Easy", 200), ("Medium", 150), ("Hard", 100))
    for task in [Task(_FAMILY + difficulty, f"popgym.envs:{_FAMILY}{difficulty}", _FAMILY, steps)]
}


class Codec:
    """Adds what the agent may know of its rollout."""

    actions = None  # the game takes the agent's torque as it is

    def encode(self, observation: npt.NDArray[np.float32], progress: Progress) -> npt.NDArray[np.float32]:
        """Five numbers; see the module."""
        extra = progress.elapsed / 1000, float(progress.attempt), progress.reward
        return np.array([*observation, *extra], dtype=np.float32)


class Pendulum(Suite):
    """Three pendulums; see the module."""

    name = "pendulum"
    title = "Hidden-velocity pendulum"
    engine = "examples.pendulum.engine:PendulumEngine"
    oracle = "examples.pendulum.oracle:action"
    references = "examples.pendulum:references.json"
    distributions = ("popgym",)
    tasks = TASKS
    splits = seed_splits(tuple(TASKS))
    attempt_variants = "new"
    shows_reward = True
    frame_shape = (128, 128, 3)
    frames_per_second = 20

    def observation_space(self, k: int) -> spaces.Box:
        """``Box(5,)`` float32."""
        return spaces.Box(-1.0, max(1.0, k), (5,), dtype=np.float32)

    def action_space(self) -> spaces.Box:
        """``Box(1,)`` float32."""
        return spaces.Box(-TORQUE, TORQUE, (1,), dtype=np.float32)

    def codec(self, task: Task, base: gym.Env[Any, Any]) -> Codec:
        """Adds what the agent may know of its rollout."""
        return Codec()

    def return_bounds(self, task: Task) -> tuple[float, float]:
        """Upstream scales the rewards of an attempt so that they sum to a number in [-1, 1]."""
        return -1.0, 1.0

    def render(self, base: gym.Env[Any, Any], task: Task, progress: Progress) -> Frame:
        """The pole, and a bar that shows the time left."""
        height, width, _ = self.frame_shape
        picture = Image.new("RGB", (width, height), (245, 242, 235))
        draw = ImageDraw.Draw(picture)
        angle, _ = base.unwrapped.state  # type: ignore[attr-defined]
        middle, length = (width // 2, height // 2), 48
        tip = middle[0] - length * np.sin(angle), middle[1] - length * np.cos(angle)
        draw.line([middle, tip], fill=(160, 60, 50), width=8)
        draw.ellipse([middle[0] - 4, middle[1] - 4, middle[0] + 4, middle[1] + 4], fill=(40, 40, 40))
        left = 1 - progress.attempt_steps / task.max_steps
        draw.rectangle([4, height - 8, 4 + (width - 8) * left, height - 4], fill=(70, 110, 160))
        return np.asarray(picture).copy()


SUITE = Pendulum()
mtbench.register(
    mtbench.Row("MetaPendulum-v0", "swing up, velocity hidden", {"suite": "examples.pendulum:SUITE", "k": 2})
)
