"""docs/contract.md, point 12: errors."""

import sys

import gymnasium as gym
import numpy as np
import pytest

from .helpers import equal, nth, play, suite_of, tasks_of


@pytest.mark.parametrize(
    ("kwargs", "error", "message"),
    [
        ({"split": "tset"}, ValueError, "Did you mean 'test'"),
        ({"tasks": ["no-such-task-at-all"]}, ValueError, "There is no task 'no-such-task-at-all' in split 'train'"),
        ({"tasks": []}, ValueError, "at least one task"),
        ({"tasks": "abc"}, ValueError, r'tasks=\["abc"\]'),
        ({"tasks": 5}, ValueError, "list of names"),
        ({"expose_task_label": "False"}, ValueError, "true or false"),
        ({"reward_scales": 3}, ValueError, "factors by task"),
        ({"k": 0}, ValueError, "`k` must be an integer of at least 1"),
        ({"k": 1.5}, ValueError, "`k` must be an integer of at least 1"),
        ({"max_steps": 0}, ValueError, "`max_steps`"),
        ({"objective": "kshot"}, ValueError, "Did you mean 'k-shot'"),
        ({"attempt_reset": "never"}, ValueError, "next-step"),
        ({"reward_scales": {"nothing": 2.0}}, ValueError, "There is no task 'nothing'"),
        ({"spilt": "test"}, TypeError, "unexpected keyword argument 'spilt'. Did you mean 'split'"),
        ({"suite": "popgim"}, ValueError, "popgym"),
    ],
)
def test_a_wrong_argument_is_refused(env_id, kwargs, error, message):
    with pytest.raises(error, match=message):
        gym.make(env_id, **kwargs)


def test_a_misspelt_task_is_answered_with_the_nearest(make, env_id):
    name = tasks_of(env_id)[0]
    with pytest.raises(ValueError, match=f"Did you mean '{name}'"):
        make(tasks=[name[:-1]])
    with pytest.raises(ValueError, match=f"Did you mean '{name}'.*"):
        make().reset(options={"task": name.swapcase()})


def test_a_non_finite_reward_scale_is_refused(make, env_id):
    with pytest.raises(ValueError, match="finite"):
        make(reward_scales={tasks_of(env_id)[0]: float("nan")})


@pytest.mark.parametrize("variant", [-1, 2**40, "3", 1.5, [0], None])
def test_a_wrong_variant_is_refused(make, variant):
    env = make(k=2)
    if variant is None:
        variant = nth(env.unwrapped.suite.splits["test"].evaluation, 0)
    with pytest.raises(ValueError, match=r"not in split 'train'|Pin one variant"):
        env.reset(options={"variant": variant})


def test_an_unknown_option_is_refused(make):
    with pytest.raises(ValueError, match="Did you mean 'task'"):
        make().reset(options={"tsak": "x"})


def test_a_refused_reset_leaves_the_rollout_alone(make):
    env, undisturbed = make(), make()
    for each in (env, undisturbed):
        each.reset(seed=0)
    with pytest.raises(ValueError, match="no task"):
        env.reset(seed=5, options={"task": "nothing"})
    for _ in range(20):
        action = env.action_space.sample()
        assert equal(env.step(action)[0], undisturbed.step(action)[0])


def test_step_needs_a_reset(make):
    env = make()
    with pytest.raises(gym.error.ResetNeeded, match="Call reset"):
        env.step(env.action_space.sample())
    play(env, 0)
    with pytest.raises(gym.error.ResetNeeded, match="over"):
        env.step(env.action_space.sample())


def test_an_action_outside_the_space_is_refused(make):
    env = make()
    env.reset(seed=0)
    n = env.action_space.n if isinstance(env.action_space, gym.spaces.Discrete) else None
    for action in [n, -1, 0.5, "left", None, [0, 1]] if n else [None, np.full(env.action_space.shape, 9.0)]:
        with pytest.raises(gym.error.InvalidAction):
            env.step(action)
    env.step(env.action_space.sample())


def test_a_missing_package_is_named_with_its_extra(env_id, monkeypatch):
    suite = suite_of(env_id)
    needed = rf"'mtbench-rl\[{suite.extra}\]'" if suite.extra else "(" + "|".join(suite.packages) + ")"
    for package in suite.packages:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, package, None)
    for make in (gym.make, gym.make_vec)[: 2 * bool(suite.packages)]:
        with pytest.raises(gym.error.DependencyNotInstalled, match=f"pip install {needed}"):
            make(env_id)
