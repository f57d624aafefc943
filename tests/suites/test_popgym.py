"""MTPOPGym-v0 against the popgym package itself."""

import importlib

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces.utils import flatdim, flatten

from mtbench.suites.popgym import GAME_CHANNELS, NUM_ACTIONS, SUITE, TASKS
from mtbench.testing._contract.helpers import play

SEEDS = range(3)
PUBLISHED = SUITE.splits["test"].tasks


def bare(task):
    module, attribute = TASKS[task].base.split(":")
    return getattr(importlib.import_module(module), attribute)()


def native(env, index):
    """Upstream's action for our index, computed by NumPy rather than by our own table."""
    if isinstance(env.action_space, gym.spaces.MultiDiscrete):
        return np.array(np.unravel_index(index, env.action_space.nvec))
    return index


def num_actions(env):
    return flatdim(env.action_space) if isinstance(env.action_space, gym.spaces.Discrete) else 16


def test_the_spaces_fit_every_task():
    assert len(PUBLISHED) == 27
    for task in TASKS:
        env = bare(task)
        assert flatdim(env.observation_space) <= GAME_CHANNELS
        assert num_actions(env) <= NUM_ACTIONS
    assert max(flatdim(bare(task).observation_space) for task in TASKS) == GAME_CHANNELS
    assert max(num_actions(bare(task)) for task in TASKS) == NUM_ACTIONS


def test_published_tasks_have_upstreams_names():
    registered = {name.removeprefix("popgym-").removesuffix("-v0") for name in gym.registry if "popgym-" in name}
    assert set(PUBLISHED) <= registered


@pytest.mark.parametrize("task", TASKS)
def test_an_attempt_equals_the_bare_game(task):
    """Observation (undoing the encoding), reward, end and length, step by step, for both attempts."""
    game = bare(task)
    n = num_actions(game)
    env = gym.make("MTPOPGym-v0", objective="k-episode").unwrapped
    rng = np.random.default_rng(7)
    for seed in SEEDS:
        obs, _ = env.reset(seed=seed, options={"task": task})
        for attempt in range(2):
            upstream, _ = game.reset(seed=env.variant)
            size = flatdim(game.observation_space)
            elapsed, over = 0, False
            while True:
                expected = flatten(game.observation_space, upstream).astype(np.float32)
                np.testing.assert_array_equal(obs[:size], expected)
                assert not obs[size:GAME_CHANNELS].any()
                if over:
                    break
                action = int(rng.integers(n))
                upstream, reward, terminated, truncated, _ = game.step(native(game, action))
                obs, paid, ended, _, info = env.step(action)
                elapsed += 1
                over = terminated or truncated
                assert paid == reward
                assert obs[28] == 1.0
                assert obs[29] == np.float32(reward)
                assert ended == (over and attempt == 1)
            if attempt == 0:
                obs, *_ = env.step(int(rng.integers(n)))
            assert env._lengths[attempt] == elapsed <= TASKS[task].max_steps
        assert info["rollout"]["lengths"].tolist() == env._lengths


@pytest.mark.parametrize("attempt_reset", ["next-step", "same-step"])
def test_added_channels_follow_from_the_clock_alone(attempt_reset):
    """What we add to a game's observation is a function of elapsed steps, attempts, actions and rewards."""
    for task in TASKS:
        env = gym.make("MTPOPGym-v0", attempt_reset=attempt_reset, objective="k-episode", k=3)
        trace = play(env, 0, options={"task": task})
        lengths = trace[-1][4]["rollout"]["lengths"]
        first_of_attempt = np.cumsum([0, *(lengths[:-1] + (attempt_reset == "next-step"))])
        for step, (obs, reward, *_) in enumerate(trace):
            attempt = np.searchsorted(first_of_attempt, step, side="right") - 1
            expected = [step / 1000, attempt / 2, reward]
            assert obs[[26, 27, 29]].tolist() == np.float32(expected).tolist()


def test_the_attempt_channel_is_zero_for_one_attempt():
    trace = play(gym.make("MTPOPGym-v0", k=1), 0)
    assert all(obs[27] == 0.0 for obs, *_ in trace)


@pytest.mark.parametrize("task", TASKS)
def test_the_longest_attempt_is_what_we_declare(task):
    """The oracle plays every game for as many steps as possible."""
    from mtbench.suites.popgym.oracle import action

    env = gym.make("MTPOPGym-v0", tasks=[task], k=1).unwrapped
    env.reset(seed=0)
    over = False
    while not over:
        *_, over, _, info = env.step(action(env))
    assert info["rollout"]["lengths"][0] == TASKS[task].max_steps


def test_the_exploration_reward_is_observed_but_not_paid():
    env = gym.make("MTPOPGym-v0", tasks=["RepeatFirstEasy"])
    trace = play(env, 0)
    explored = [obs[29] for obs, reward, *_ in trace[1:52]]
    assert all(abs(value) == np.float32(1 / 51) for value in explored)
    assert all(step[1] == 0.0 for step in trace[:52])


@pytest.mark.parametrize("task", ["PositionOnlyCartPoleEasy", "MultiarmedBanditEasy", "MineSweeperEasy"])
def test_an_invalid_action_is_replaced_by_a_uniform_valid_one(task):
    env = gym.make("MTPOPGym-v0", tasks=[task], k=1).unwrapped
    env.reset(seed=0)
    n = len(env._actions)
    played = []
    base_step = type(env.base).step

    def spy(self, action):
        played.append(action)
        return base_step(self, action)

    env.base.step = spy.__get__(env.base)
    while len(played) < 3000:
        obs, _, terminated, *_ = env.step(NUM_ACTIONS - 1)
        assert obs[28] == 0.0
        if terminated:
            env.reset()
    counts = np.array([played.count(action) for action in env._actions])
    assert counts.sum() == len(played)
    expected = len(played) / n
    assert ((counts - expected) ** 2 / expected).sum() < n - 1 + 6 * (2 * (n - 1)) ** 0.5


def test_new_attempts_play_new_variants():
    env = gym.make("MTPOPGym-v0", tasks=["MineSweeperEasy"], k=5).unwrapped
    for seed in range(20):
        env.reset(seed=seed)
        assert len(set(env._variants)) == 5


def test_actions_do_not_change_later_variants():
    env = gym.make("MTPOPGym-v0").unwrapped
    env.reset(seed=0)
    planned = list(env._variants)
    env.step(26)
    assert env._variants == planned


def test_bounds_are_as_tight_as_the_games_allow():
    space = SUITE.observation_space(2)
    unbounded = ~(np.isfinite(space.low) & np.isfinite(space.high))
    assert np.flatnonzero(unbounded).tolist() == [0, 1]
    assert space.high[26] == np.float32(1.663)
