"""What the meta-rollout layer adds to a step of the bare popgym game: at most 5 microseconds.

``make bench`` prints the table. Both sides play the same variants and actions in one process, resets included.
"""

import importlib
import time

import gymnasium as gym
import numpy as np
import pytest

import mtbench  # noqa: F401
from mtbench.suites.popgym import TASKS

EASY = [task for task in TASKS if task.endswith("Easy")]
STEPS = 2_000
ROUNDS = 15

ADDED = {}


def bare_player(task, actions, variants):
    module, attribute = TASKS[task].base.split(":")
    game = getattr(importlib.import_module(module), attribute)()

    def play():
        following = iter(variants)
        game.reset(seed=next(following))
        for action in actions:
            _, _, terminated, truncated, _ = game.step(action)
            if terminated or truncated:
                game.reset(seed=next(following))

    return play


def rollout_player(task, actions):
    env = gym.make("MTPOPGym-v0", tasks=[task], k=1, objective="k-episode")

    def play():
        """Returns the variants met."""
        env.reset(seed=0)
        variants = [env.unwrapped.variant]
        for action in actions:
            _, _, terminated, _, _ = env.step(action)
            if terminated:
                env.reset()
                variants.append(env.unwrapped.variant)
        return variants

    return play


def actions_for(task):
    rng = np.random.default_rng(0)
    env = gym.make("MTPOPGym-v0", tasks=[task], k=1).unwrapped
    env.reset(seed=0)
    indices = [int(i) for i in rng.integers(len(env._actions), size=STEPS)]
    return [env._actions[i] for i in indices], indices


@pytest.mark.parametrize("task", EASY)
def test_added_time_per_step(benchmark, task):
    native, indices = actions_for(task)
    ours = rollout_player(task, indices)
    bare = bare_player(task, native, ours())
    bare_times = []

    def timed_bare():
        began = time.perf_counter()
        bare()
        bare_times.append(time.perf_counter() - began)

    # The bare game is timed right before each round of ours, so both meet the same noise.
    benchmark.pedantic(ours, setup=timed_bare, rounds=ROUNDS, warmup_rounds=1)
    bare_us, ours_us = (1e6 * float(np.min(times)) / STEPS for times in (bare_times, benchmark.stats.stats.data))
    benchmark.extra_info["added_us_per_step"] = ADDED[task] = (bare_us, ours_us)


def test_print_the_table(capsys):
    if not ADDED:
        pytest.skip("nothing was timed")
    with capsys.disabled():
        print(f"\n{'task':32} {'popgym us':>10} {'mtbench us':>10} {'added us':>9}")
        for task, (bare, ours) in ADDED.items():
            print(f"{task:32} {bare:10.2f} {ours:10.2f} {ours - bare:9.2f}")
        worst = max(ours - bare for bare, ours in ADDED.values())
        print(f"{'worst':32} {'':10} {'':10} {worst:9.2f}")
