"""A continuous-action game in the meta-rollout contract, and the reference agent trained on it.

POPGym's pendulum shows its position and hides its velocity; the torque is a number in [-2, 2]. It is not among the 27
games of MTPOPGym, whose actions are all discrete. As a suite it takes these few lines, and the same agent trains on it:

    python results/learning/pendulum.py --seed 0 --out runs/learning/pendulum-seed0

Its curve, exploration included, and what the agent earns in the end on variants it never saw, go to pendulum.csv beside
this file.
"""

import argparse
import json
from pathlib import Path
from typing import ClassVar

import gymnasium as gym
import numpy as np
import pandas as pd
from gymnasium import spaces
from mtbench_agents.transformer.config import preset, updated
from mtbench_agents.transformer.policy import load_run
from mtbench_agents.transformer.train import Trainer
from rich.progress import Progress

from mtbench.records import write_atomically
from mtbench.rollout import MetaRollout
from mtbench.suite import Suite, Task, seed_splits

TASK = Task("PositionOnlyPendulumEasy", "popgym.envs:PositionOnlyPendulumEasy", "PositionOnlyPendulum", 200)


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
    splits: ClassVar = seed_splits([TASK.name])
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


# A longer horizon than the preset's: the pole is swung up in a second or two. The rest as for the cart pole in
# studies.py: near-ties are not imitated, data is fresh, and the rate falls for most of the run.
SETTINGS = {
    "env_id": ENV_ID,
    "updates": 10_000,
    "sync": True,
    "evaluate_rounds": 0,  # `mtbench evaluate` knows registered suites only
    "model.context": 64,
    "learning.discounts": (0.97,),
    "learning.batch_size": 32,
    "learning.value_samples": 4,
    "learning.target_rate": 0.02,
    "learning.filter_threshold": 0.05,
    "learning.cooldown": 6000,
    "collect.replay": 50_000,
    "collect.epsilon_end": 0.1,
}


def evaluated(folder: Path, rollouts: int = 50) -> list[float]:
    """Mean returns of both attempts on the test split, actions sampled from the policy."""
    envs = gym.make_vec(ENV_ID, num_envs=rollouts, split="test")
    policy = load_run(folder, (envs.single_observation_space, envs.single_action_space))
    observations, _ = envs.reset(seed=0)
    policy.start(rollouts, 0, envs.single_observation_space, envs.single_action_space)
    begins, over = np.ones(rollouts, dtype=np.bool_), False
    while not over:  # all of them end together: an attempt always takes 200 steps
        observations, rewards, terminated, _, info = envs.step(policy.act(observations, begins))
        policy.observe_rewards(rewards)
        begins, over = np.zeros(rollouts, dtype=np.bool_), bool(terminated.all())
    envs.close()
    return [float(mean) for mean in info["rollout"]["returns"].mean(axis=0)]


def main() -> None:
    """Train, test, and write the curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    trainer = Trainer(updated(preset("small"), {**SETTINGS, "seed": arguments.seed}), arguments.out)
    with Progress() as progress:
        bar = progress.add_task("", total=SETTINGS["updates"], completed=trainer.learner.updates)
        trainer.run(
            lambda numbers: progress.update(bar, completed=numbers["updates"], description=str(numbers["returns"]))
        )
    rows, seconds = [], 0.0
    for line in map(json.loads, (arguments.out / "log.jsonl").read_text().splitlines()):
        seconds += line["seconds"]
        row = {"updates": line["updates"], "steps": line["steps"], "minutes": round(seconds / 60, 2)}
        rows.append({"of": "training", **row, **_by_attempt(line["returns"])})
    rows.append({**rows[-1], "of": "test", **_by_attempt(evaluated(arguments.out))})
    write_atomically(
        Path(__file__).with_name("pendulum.csv"), lambda path: pd.DataFrame(rows).to_csv(path, index=False)
    )


def _by_attempt(returns: list[float]) -> dict[str, float]:
    return {f"attempt_{i}": round(value, 4) for i, value in enumerate(returns, 1)}


if __name__ == "__main__":
    main()
