"""BabyAI beside minigrid: steps a second, in turns in one process, under random actions, layouts included.

`per core` counts the processor time of this process. Upstream's environments are as ``gymnasium.make`` makes them,
without the checking wrappers. Batches draw their layouts in other processes, so they are timed on the wall.
"""

import time

import gymnasium as gym
import numpy as np
import pytest
from sides import Sides

from mtbench.rollout import MetaRollout
from mtbench.suites.babyai import SUITE
from mtbench.suites.babyai.layouts import upstream

SIDES = Sides()
TASKS = ["GoToRedBall", "PickupDist", "UnlockPickup", "KeyCorridorS3R3", "GoTo", "GoToImpUnlock"]


class One:
    """Ours: two attempts on each layout."""

    def __init__(self, tasks, steps):
        self.env, self.steps = MetaRollout(SUITE, tasks=tasks, k=2), steps
        self.env.reset(seed=0)
        self.actions = np.random.default_rng(0).integers(7, size=steps).tolist()

    def play(self):
        env = self.env
        for action in self.actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()


class Upstream:
    """Its environments in turns, one attempt on each layout."""

    def __init__(self, tasks, steps):
        self.envs, self.steps = [upstream(task) for task in tasks], steps
        self.actions = np.random.default_rng(0).integers(7, size=steps).tolist()
        self.rng = np.random.default_rng(0)

    def play(self):
        env = self.envs[0]
        env.reset(seed=0)
        for action in self.actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env = self.envs[self.rng.integers(len(self.envs))]
                env.reset(seed=int(self.rng.integers(5000)))


class Many:
    """Ours side by side."""

    def __init__(self, num_envs, batches):
        self.venv = gym.make_vec("mtbench:MTBabyAI-v0", num_envs=num_envs)
        self.actions = np.random.default_rng(0).integers(7, size=(batches, num_envs))
        self.steps = batches * num_envs
        self.venv.reset(seed=0)
        for actions in self.actions:  # until layouts are drawn ahead
            self.venv.step(actions)

    def play(self):
        for actions in self.actions:
            self.venv.step(actions)


@pytest.mark.parametrize("task", TASKS)
def test_one_task(benchmark, task):
    names = [f"BabyAI-{task}-v0"]
    SIDES.compare(benchmark, f"{task}, single, per core", One(names, 20_000), Upstream(names, 3000), time.process_time)


def test_all_tasks(benchmark):
    names = list(SUITE.splits["train"].tasks)
    ours, theirs = One(names, 40_000), Upstream(names, 10_000)
    SIDES.compare(benchmark, "all 50 tasks of training, single, per core", ours, theirs, time.process_time)


@pytest.mark.parametrize("num_envs", [64, 256])
def test_batches(benchmark, num_envs):
    names = list(SUITE.splits["train"].tasks)
    ours, theirs = Many(num_envs, 100_000 // num_envs), Upstream(names, 10_000)
    SIDES.compare(benchmark, f"MTBabyAI-v0, {num_envs} environments, all cores, wall", ours, theirs, time.perf_counter)


def test_print_the_table(capsys):
    SIDES.show(capsys)
