"""The batched games beside ``SyncVectorEnv`` and the bare popgym classes: steps a second, and the first seconds.

``make bench`` prints the table. Everything plays random actions over all 27 tasks in one process, in turns, so that
all meet the same noise. One core is measured in the thread's own CPU time, all cores on the wall.
"""

import os
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest

from mtbench.spaces import native_actions
from mtbench.suites.popgym import SUITE, TASKS

NUM_ENVS = 1024
CPUS = os.cpu_count()
ROUNDS = 5

ROWS = {}
STARTS = {}


class Batch:
    """A vector environment of the ID, and how fast it steps."""

    def __init__(self, num_envs, batches, **kwargs):
        self.venv = gym.make_vec("mtbench:MTPOPGym-v0", num_envs=num_envs, **kwargs)
        self.actions = np.random.default_rng(0).integers(27, size=(64, num_envs))
        self.steps, self.batches = num_envs * batches, batches
        self.venv.reset(seed=0)
        for i in range(batches):
            self.venv.step(self.actions[i % 64])

    def play(self):
        for i in range(self.batches):
            self.venv.step(self.actions[i % 64])


class Bare:
    """The popgym classes themselves, one of each, with actions that exist."""

    def __init__(self, rounds):
        self.games = [SUITE.make_base(task) for task in TASKS.values()]
        rng = np.random.default_rng(0)
        spaces = [native_actions(game.action_space) for game in self.games]
        self.actions = [[space[i] for i in rng.integers(len(space), size=rounds)] for space in spaces]
        self.steps = rounds * len(self.games)

    def play(self):
        for game, actions in zip(self.games, self.actions, strict=True):
            game.reset(seed=0)
            for action in actions:
                _, _, terminated, truncated, _ = game.step(action)
                if terminated or truncated:
                    game.reset()


def million_steps_per_second(side, clock):
    began = clock()
    side.play()
    return side.steps / (clock() - began) / 1e6


def test_one_core(benchmark):
    ours, sync, bare = Batch(NUM_ENVS, 500, num_workers=1), Batch(NUM_ENVS, 5, vectorization_mode="sync"), Bare(400)
    rates = {"popgym classes": [], "SyncVectorEnv": [], "mtbench": []}

    def upstream():
        rates["popgym classes"].append(million_steps_per_second(bare, time.thread_time))
        rates["SyncVectorEnv"].append(million_steps_per_second(sync, time.thread_time))

    benchmark.pedantic(
        lambda: rates["mtbench"].append(million_steps_per_second(ours, time.thread_time)), setup=upstream, rounds=ROUNDS
    )
    for name, values in rates.items():
        ROWS[f"{name}, one core, {27 if 'classes' in name else NUM_ENVS:,} environments"] = max(values)
    benchmark.extra_info["times_sync"] = max(rates["mtbench"]) / max(rates["SyncVectorEnv"])
    assert max(rates["mtbench"]) > max(rates["SyncVectorEnv"])


@pytest.mark.parametrize("num_envs", [NUM_ENVS, 8 * NUM_ENVS])
@pytest.mark.parametrize("copy", [True, False], ids=["copies", "shared"])
def test_all_cores(benchmark, num_envs, copy):
    workers = sorted({1, CPUS})
    sides = {n: Batch(num_envs, 512_000 // num_envs, num_workers=n, copy=copy) for n in workers}
    rates = {n: [] for n in workers}

    def all_of_them():
        for n, side in sides.items():
            rates[n].append(million_steps_per_second(side, time.perf_counter))

    benchmark.pedantic(all_of_them, rounds=ROUNDS)
    for n in workers:
        array = "" if copy else ", one array"
        ROWS[f"mtbench, {n} thread(s) on the wall, {num_envs:,} environments{array}"] = max(rates[n])


_START = """
import time
began = time.perf_counter()
import gymnasium as gym, mtbench
venv = gym.make_vec("MTPOPGym-v0", num_envs=1024)
venv.reset(seed=0)
venv.step(venv.action_space.sample())
print(time.perf_counter() - began)
"""


@pytest.mark.parametrize("name", ["cold", "cached"])
def test_start(benchmark, name, tmp_path_factory):
    cache = tmp_path_factory.getbasetemp() / "numba"

    def start():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache)}
        done = subprocess.run(
            [sys.executable, "-c", _START], capture_output=True, text=True, check=True, env=environment
        )
        STARTS[name] = float(done.stdout)

    benchmark.pedantic(start, rounds=1)


def test_print_the_table(capsys):
    if not ROWS:
        pytest.skip("nothing was timed")
    sync = next((rate for name, rate in ROWS.items() if name.startswith("Sync")), None)
    with capsys.disabled():
        print(f"\n{'':62}{'M steps/s':>10}{'x Sync':>9}")
        for name, rate in ROWS.items():
            print(f"{name:62}{rate:10.3f}" + (f"{rate / sync:9.1f}" if sync else ""))
        for name, seconds in STARTS.items():
            print(f"{f'import to first step, {name}':62}{seconds:10.2f} s")
