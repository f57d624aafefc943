"""Evaluation beside a loop over single environments: steps a second of random play, in turns in one process.

Both play the evaluation's cases. `per core` counts the processor time of this process, which plays alone. `2 jobs` is
timed on the wall, from the start of the worker process to the records on disk.
"""

import itertools
import tempfile
import time
from pathlib import Path

import gymnasium as gym
import pytest
from sides import Sides

from mtbench.cases import evaluation_cases
from mtbench.evaluation import evaluate

SIDES = Sides()


class Evaluation:
    """Ours: `evaluate`, records included."""

    def __init__(self, env_id, rollouts, jobs, arguments, folder):
        self.folders = (folder / str(i) for i in itertools.count())
        self.how = {"rollouts_per_task": rollouts, "jobs": jobs, "env_kwargs": arguments}
        self.env_id = env_id

    def play(self):
        run = evaluate(self.env_id, "random", next(self.folders), **self.how)
        self.steps = int(run.episodes["length"].sum())


class Loop:
    """One environment after the other."""

    def __init__(self, env_id, rollouts, arguments):
        self.env = gym.make(env_id, split="test", **arguments).unwrapped
        self.cases = evaluation_cases(self.env.suite, "test", self.env.tasks, rollouts, self.env.k)
        self.env.action_space.seed(0)

    def play(self):
        env, self.steps = self.env, 0
        for case in self.cases:
            env.reset(seed=case.seed, options={"task": case.task, "variant": list(case.variants)})
            over = False
            while not over:
                _, _, terminated, truncated, info = env.step(env.action_space.sample())
                over = terminated or truncated
            self.steps += int(info["rollout"]["lengths"].sum())


@pytest.fixture
def folder():
    with tempfile.TemporaryDirectory() as path:
        yield Path(path)


def test_popgym_per_core(benchmark, folder):
    ours, theirs = Evaluation("MTPOPGym-v0", 1000, 1, {}, folder), Loop("MTPOPGym-v0", 10, {})
    SIDES.compare(benchmark, "MTPOPGym-v0, 1 job, per core", ours, theirs, time.process_time)


@pytest.mark.parametrize(
    ("env_id", "rollouts", "looped", "arguments"),
    [
        ("MTProcgen-Easy-v0", 200, 10, {}),
        ("ML10-v0", 40, 4, {}),
        ("MTBabyAI-v0", 100, 5, {}),
    ],
)
def test_two_jobs(benchmark, folder, env_id, rollouts, looped, arguments):
    ours, theirs = Evaluation(env_id, rollouts, 2, arguments, folder), Loop(env_id, looped, arguments)
    SIDES.compare(benchmark, f"{env_id}, 2 jobs, wall", ours, theirs, time.perf_counter)


def test_print_the_table(capsys):
    SIDES.show(capsys)
