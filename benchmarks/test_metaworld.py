"""Steps a second beside upstream's, in turns in one run: ``python -m pytest benchmarks/test_metaworld.py -p no:xdist``

Upstream is its own environment classes, reset to the same goals by the same driver; whole attempts, resets included.
"""

import os
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from sides import Sides

from mtbench.rollout import MetaRollout
from mtbench.suites.metaworld import SUITES
from mtbench.suites.metaworld.game import goals

SIDES = Sides()
SUITE = SUITES["metaworld-ml45"]
SKILLS = list(SUITE.tasks)
K, LENGTH = 3, 500


def actions():
    return np.random.default_rng(0).uniform(-1, 1, size=(LENGTH, 4)).astype(np.float32)


class One:
    """Meta-rollouts of single environments, one of each skill."""

    def __init__(self, skills):
        self.envs = {skill: MetaRollout(SUITE, split=split_of(skill), tasks=[skill], k=K) for skill in skills}
        self.actions, self.steps, self.seed = actions(), len(skills) * K * LENGTH, 0
        for env in self.envs.values():
            env.reset(seed=0)  # models load

    def play(self):
        self.seed += 1
        for env in self.envs.values():
            env.reset(seed=self.seed)
            for attempt in range(K):
                for action in self.actions:
                    env.step(action)
                if attempt < K - 1:
                    env.step(action)


class Upstream:
    """Upstream's environments, which know nothing of meta-rollouts."""

    def __init__(self, skills):
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS

        self.envs = {skill: ALL_V3_ENVIRONMENTS[skill]() for skill in skills}
        for env in self.envs.values():
            env._freeze_rand_vec = env._set_task_called = True
        self.actions, self.steps, self.seed = actions(), len(skills) * K * LENGTH, 0

    def play(self):
        self.seed += 1
        for skill, env in self.envs.items():
            env._last_rand_vec = goals()[skill][self.seed].copy()
            for _ in range(K):
                env.reset()
                for action in self.actions:
                    env.step(action)


class Many:
    """A batch of all skills of training."""

    def __init__(self, num_envs, batches, **kwargs):
        self.venv = gym.make_vec("mtbench:ML45-v0", num_envs=num_envs, **kwargs)
        self.venv.reset(seed=0)
        self.batches, self.steps = batches, num_envs * batches
        self.actions = np.random.default_rng(0).uniform(-1, 1, size=(16, num_envs, 4)).astype(np.float32)

    def play(self):
        for i in range(self.batches):
            self.venv.step(self.actions[i % 16])


def split_of(skill):
    return next(name for name, split in SUITE.splits.items() if skill in split.tasks)


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("skill", ["reach-v3", "pick-place-v3", "box-close-v3", "button-press-v3", "hammer-v3"])
def test_one_skill(benchmark, skill):
    SIDES.compare(benchmark, f"{skill}, single, per core", One([skill]), Upstream([skill]), time.process_time)


def test_all_skills(benchmark):
    ours, theirs = One(SKILLS), Upstream(SKILLS)
    SIDES.compare(benchmark, "all 50 skills, single, per core", ours, theirs, time.process_time)


@pytest.mark.parametrize("num_envs", [16, 64, 256])
def test_all_cores(benchmark, num_envs):
    ours, theirs = Many(num_envs, 4000 // num_envs), Many(num_envs, 4000 // num_envs, num_workers=1)
    name = f"ML45-v0, {num_envs} environments, {os.cpu_count()} processes / one, wall"
    SIDES.compare(benchmark, name, ours, theirs, time.perf_counter)


def test_beside_gymnasiums_processes(benchmark):
    """One process for each environment, as Gymnasium's AsyncVectorEnv has them."""
    ours, theirs = Many(32, 100), Many(32, 100, vectorization_mode="async")
    SIDES.compare(benchmark, "ML45-v0, 32 environments / AsyncVectorEnv, wall", ours, theirs, time.perf_counter)


def test_print_the_table(capsys):
    SIDES.show(capsys)
