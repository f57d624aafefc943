"""Procgen and Atari beside what they are made of: steps a second, in turns in one process, under random actions.

`per core` counts the processor time of all threads, so that what else runs does not matter much.
Upstream's single environments are gym3's ``ProcgenGym3Env`` and ``AtariEnv`` with OpenCV's resize; its vector
environments are ``ProcgenGym3Env`` and ``AtariVectorEnv``, which play one game.
"""

import os
import time
import warnings

import gymnasium as gym
import numpy as np
import pytest
from sides import Sides

from mtbench.rollout import MetaRollout
from mtbench.suites.atari import SUITE as ATARI
from mtbench.suites.procgen import SUITES

NUM_ENVS = 64
SIDES = Sides()

PROCGEN_GAMES = ["climber", "coinrun", "jumper", "ninja", "leaper"]
ATARI_GAMES = ["breakout", "ms_pacman", "pong", "boxing"]  # from short games to long ones


class One:
    """A single environment of ours."""

    def __init__(self, suite, game, steps, **kwargs):
        self.env, self.steps = MetaRollout(suite, tasks=[game], **kwargs), steps
        self.env.reset(seed=0)
        self.actions = np.random.default_rng(0).integers(self.env.action_space.n, size=steps).tolist()

    def play(self):
        env = self.env
        for action in self.actions:
            _, _, terminated, truncated, _ = env.step(action)
            if terminated or truncated:
                env.reset()


class Many:
    """A vector environment of ours."""

    def __init__(self, env_id, batches, num_envs=NUM_ENVS, **kwargs):
        self.venv = gym.make_vec(f"mtbench:{env_id}", num_envs=num_envs, **kwargs)
        self.actions = np.random.default_rng(0).integers(self.venv.single_action_space.n, size=(batches, num_envs))
        self.steps = batches * num_envs
        self.venv.reset(seed=0)
        self.venv.step(self.actions[0])

    def play(self):
        for actions in self.actions:
            self.venv.step(actions)


class Gym3:
    """Procgen through gym3, stepping in the caller's thread."""

    def __init__(self, game, mode, num_envs, batches):
        pytest.importorskip("gym3")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from procgen.env import ProcgenGym3Env
        self.env = ProcgenGym3Env(num_envs, game, distribution_mode=mode, num_levels=2000, num_threads=0)
        self.actions = np.random.default_rng(0).integers(15, size=(batches, num_envs)).astype(np.int32)
        self.steps = batches * num_envs

    def play(self):
        for actions in self.actions:
            self.env.act(actions)
            self.env.observe()


class ALE:
    """The v5 environment and a resize."""

    def __init__(self, game, steps):
        cv2 = pytest.importorskip("cv2")
        from ale_py.env import AtariEnv

        cv2.setNumThreads(1)
        self.env = AtariEnv(game, frameskip=4, repeat_action_probability=0.25, full_action_space=True)
        self.resize = lambda screen: cv2.resize(screen, (84, 84), interpolation=cv2.INTER_AREA)
        self.env.reset(seed=0)
        self.steps = steps
        self.actions = np.random.default_rng(0).integers(18, size=steps).tolist()

    def play(self):
        for action in self.actions:
            screen, _, terminated, truncated, _ = self.env.step(action)
            self.resize(screen)
            if terminated or truncated:
                self.env.reset()


class ALEVector:
    """ALE's own vector environment by the same rules."""

    def __init__(self, game, num_envs, batches, num_threads):
        from ale_py import AtariVectorEnv

        rules = {"repeat_action_probability": 0.25, "full_action_space": True, "grayscale": False, "stack_num": 1}
        rules |= {"frameskip": 4, "maxpool": False, "noop_max": 0, "use_fire_reset": False, "reward_clipping": False}
        self.env = AtariVectorEnv(game, num_envs, num_threads=num_threads, **rules)
        self.env.reset(seed=0)
        self.actions = np.random.default_rng(0).integers(18, size=(batches, num_envs))
        self.steps = batches * num_envs

    def play(self):
        for actions in self.actions:
            self.env.step(actions)


@pytest.mark.parametrize("game", PROCGEN_GAMES)
def test_one_procgen(benchmark, game):
    ours = One(SUITES["procgen-easy"], game, 2000, k=2)
    SIDES.compare(benchmark, f"procgen {game}, single, per core", ours, Gym3(game, "easy", 1, 2000))


@pytest.mark.parametrize("game", PROCGEN_GAMES)
def test_many_procgen(benchmark, game):
    ours = Many("MTProcgen-Easy-v0", 100, tasks=[game], num_workers=1)
    theirs = Gym3(game, "easy", NUM_ENVS, 100)
    SIDES.compare(benchmark, f"procgen {game}, {NUM_ENVS} environments, per core", ours, theirs)


@pytest.mark.parametrize("game", ATARI_GAMES)
def test_one_atari(benchmark, game):
    SIDES.compare(benchmark, f"atari {game}, single, per core", One(ATARI, game, 1500), ALE(game, 1500))


@pytest.mark.parametrize("game", ATARI_GAMES)
def test_one_atari_beside_its_interface(benchmark, game):
    """The interface that ours is made of, with one environment; it is not seeded again after each game."""
    ours, theirs = One(ATARI, game, 1500), ALEVector(game, 1, 1500, 1)
    SIDES.compare(benchmark, f"atari {game}, single, beside AtariVectorEnv, wall", ours, theirs, time.perf_counter)


@pytest.mark.parametrize("game", ATARI_GAMES)
def test_many_atari(benchmark, game):
    ours, theirs = Many("MTAtari-v0", 40, tasks=[game]), ALEVector(game, NUM_ENVS, 40, 1)
    SIDES.compare(benchmark, f"atari {game}, {NUM_ENVS} environments, per core", ours, theirs)


@pytest.mark.parametrize("game", ATARI_GAMES)
def test_many_atari_on_the_wall(benchmark, game):
    ours, theirs = Many("MTAtari-v0", 40, tasks=[game]), ALEVector(game, NUM_ENVS, 40, os.cpu_count())
    SIDES.compare(benchmark, f"atari {game}, {NUM_ENVS} environments, all cores, wall", ours, theirs, time.perf_counter)


@pytest.mark.parametrize(
    ("env_id", "batches"), [("MTProcgen-Easy-v0", 200), ("MTProcgen-MemoryHard-v0", 200), ("MTAtari-v0", 40)]
)
def test_all_games(benchmark, env_id, batches):
    """The whole ID: all cores beside one."""
    one, all_of_them = Many(env_id, batches, num_workers=1), Many(env_id, batches)
    # Atari's consoles have threads of their own.
    compared = "wall / per core" if env_id == "MTAtari-v0" else "all cores / one, wall"
    SIDES.compare(benchmark, f"{env_id}, {NUM_ENVS} environments, {compared}", all_of_them, one, time.perf_counter)


def test_print_the_table(capsys):
    SIDES.show(capsys)
