"""A continuous-action game in the meta-rollout contract, and the reference agent trained on it.

POPGym's pendulum shows its position and hides its velocity; the torque is a number in [-2, 2]. It is not among the 27
games of MTPOPGym, whose actions are all discrete. As a suite it takes these few lines, and the same agent trains on it:

    python results/learning/pendulum.py --seed 0 --out runs/learning/pendulum-seed0
"""

import argparse
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from mtbench_agents.transformer.config import preset, updated
from mtbench_agents.transformer.train import Trainer
from rich.progress import Progress

from mtbench.rollout import MetaRollout
from mtbench.suite import Split, Suite, Task, VariantRange

TASK = Task("PositionOnlyPendulumEasy", "popgym.envs:PositionOnlyPendulumEasy", "PositionOnlyPendulum", 200)
_BLOCK = 2**29


class _Codec:
    actions = None  # the game takes the agent's torque as it is

    def encode(self, observation, progress):
        extra = progress.elapsed / 1000, float(progress.attempt), progress.reward
        return np.array([*observation, *extra], dtype=np.float32)


class Pendulum(Suite):
    """One game; later attempts start elsewhere."""

    name: ClassVar = "pendulum"
    title: ClassVar = "POPGym's pendulum"
    distributions: ClassVar = ("popgym",)
    tasks: ClassVar = {TASK.name: TASK}
    splits: ClassVar = {
        name: Split(
            name,
            (TASK.name,),
            variants=VariantRange(2 * i * _BLOCK, (2 * i + 1) * _BLOCK),
            evaluation=VariantRange((2 * i + 1) * _BLOCK, (2 * i + 2) * _BLOCK),
        )
        for i, name in enumerate(("train", "test"))
    }
    attempt_variants: ClassVar = "new"
    frame_shape: ClassVar = (64, 64, 3)

    def observation_space(self, k):
        """Cosine and sine, time, attempt, previous reward."""
        return spaces.Box(-1.0, max(1.0, k), (5,), dtype=np.float32)

    def action_space(self):
        """The torque."""
        return spaces.Box(-2.0, 2.0, (1,), dtype=np.float32)

    def codec(self, task, base):
        """Nothing to translate."""
        return _Codec()

    def render(self, base, task, progress):
        """Nothing to look at."""
        return np.zeros(self.frame_shape, dtype=np.uint8)


SUITE = Pendulum()
ENV_ID = "MetaPendulum-v0"
if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=MetaRollout, kwargs={"suite": SUITE, "k": 2}, disable_env_checker=True)


def main() -> None:
    """Train; the curve of both attempts' returns, exploration included, is in ``log.jsonl``."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--updates", type=int, default=4000)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    changes = {
        "env_id": ENV_ID,
        "seed": arguments.seed,
        "updates": arguments.updates,
        "sync": True,
        "evaluate_rounds": 0,  # `mtbench evaluate` knows registered suites only
        # As for the cart pole in studies.py.
        "model.context": 64,
        "learning.discounts": (0.97,),
        "learning.batch_size": 32,
        "learning.value_samples": 4,
        "learning.target_rate": 0.02,
        "learning.cooldown": arguments.updates // 4,
        "collect.replay": 100_000,
    }
    trainer = Trainer(updated(preset("small"), changes), arguments.out)
    with Progress() as progress:
        bar = progress.add_task("", total=arguments.updates, completed=trainer.learner.updates)
        trainer.run(
            lambda numbers: progress.update(bar, completed=numbers["updates"], description=str(numbers["returns"]))
        )


if __name__ == "__main__":
    main()
