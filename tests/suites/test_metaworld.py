"""Meta-World compared with upstream's own classes."""

import copy
import functools
import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("metaworld")

import mujoco
from metaworld.env_dict import ALL_V3_ENVIRONMENTS, ML10_V3, ML45_V3

from mtbench.rollout import MetaRollout
from mtbench.suites.metaworld import SUITES
from mtbench.suites.metaworld.draw_goals import SEED, draw
from mtbench.suites.metaworld.game import SkillGame, goals, loaded

ML45 = SUITES["metaworld-ml45"]


@functools.lru_cache(maxsize=2)
def compiled_from(path):
    return compile_model(path)


compile_model = mujoco.MjModel.from_xml_path


def upstream(skill, goal):
    """A new environment of upstream's own. Its model is a copy, because compiling one takes 0.1 s."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mujoco.MjModel, "from_xml_path", lambda path: copy.copy(compiled_from(path)))
        env = ALL_V3_ENVIRONMENTS[skill]()
    env._freeze_rand_vec = env._set_task_called = True
    env._last_rand_vec = goals()[skill][goal].copy()
    return env


def scripted(policy, env, observation):
    """The action of upstream's policy, which sees the goal."""
    told = np.concatenate([observation[:36], env._get_pos_goal()])
    with np.errstate(all="ignore"):
        return np.clip(policy.get_action(told), -1, 1).astype(np.float32)


@pytest.mark.parametrize("skill", sorted(ALL_V3_ENVIRONMENTS))
def test_equal_to_upstream(skill):
    """Observations, rewards, flags and infos are equal, under random actions and under the scripted policy.

    In between, another game steps on the same model. Each attempt is followed by one that starts from the saved state.
    One goal is played to the time limit; the same code plays all goals, so of the others the beginning is enough.
    """
    from metaworld.policies import ENV_POLICY_MAP

    ours, other = SkillGame(skill), SkillGame(skill)
    policy, rng = ENV_POLICY_MAP[skill](), np.random.default_rng(0)
    other.reset(seed=100)
    for goal, steps in ((0, 500), (1, 150), (57, 150)):
        theirs = upstream(skill, goal)
        start, _ = theirs.reset()
        observation = start
        assert np.array_equal(ours.reset(seed=goal)[0], observation)
        expected = []
        for step in range(steps):
            at_random = rng.uniform(-1, 1, size=4).astype(np.float32)
            action = at_random if goal == 1 else scripted(policy, theirs, observation)
            seen, *rest, info = ours.step(action)
            observation, *their_rest, their_info = theirs.step(action)
            assert np.array_equal(seen, observation)
            assert rest == their_rest
            np.testing.assert_equal(info, their_info)
            if step < 60:
                expected.append((action, observation, their_rest))
            if step % 7 == 0 and step < 490:
                other.step(-action)
        other.reset(seed=100)
        assert np.array_equal(ours.reset(seed=goal)[0], start)
        for action, observation, their_rest in expected:
            seen, *rest, _ = ours.step(action)
            assert np.array_equal(seen, observation)
            assert rest == their_rest


@pytest.mark.parametrize("skill", sorted(ALL_V3_ENVIRONMENTS))
def test_all_that_changes_in_a_model_is_moved_back(skill):
    game = SkillGame(skill)
    game.reset(seed=0)
    shared = loaded(skill)

    def content():
        arrays = {name: getattr(shared.model, name) for name in dir(shared.model) if not name.startswith("_")}
        return {name: value.copy() for name, value in arrays.items() if isinstance(value, np.ndarray)}

    first = content()
    assert len(first) > 200
    for goal in (5, 150):
        game.reset(seed=goal)
        for _ in range(20):
            game.step(np.ones(4, dtype=np.float32))
    changed = {name for name, value in content().items() if not np.array_equal(value, first[name], equal_nan=True)}
    assert changed <= {"body_pos", "site_pos"}


def test_splits_are_upstreams_and_share_no_skill_and_no_goal():
    for name, classes in (("metaworld-ml45", ML45_V3), ("metaworld-ml10", ML10_V3)):
        splits = SUITES[name].splits
        assert list(splits["train"].tasks) == list(classes["train"])
        assert list(splits["test"].tasks) == list(classes["test"])
        assert not set(splits["train"].tasks) & set(splits["test"].tasks)
        numbers = [set(range(part.start, part.stop)) for s in splits.values() for part in (s.variants, s.evaluation)]
        assert sum(map(len, numbers)) == len(set.union(*numbers)) == 200


def test_goals_are_all_different_and_follow_from_their_seed():
    assert sorted(goals()) == sorted(ALL_V3_ENVIRONMENTS)
    assert SEED == 0
    for skill, drawn in goals().items():
        assert drawn.dtype == np.float64
        assert len(np.unique(drawn, axis=0)) == 200, skill
    number = sorted(ALL_V3_ENVIRONMENTS).index("pick-place-v3")
    assert np.array_equal(draw("pick-place-v3", number), goals()["pick-place-v3"])


def test_the_goal_is_hidden_and_the_same_in_every_attempt():
    env = MetaRollout(ML45, tasks=["pick-place-v3"], k=3, max_steps=1600)
    obs, _ = env.reset(seed=0)
    starts, over = [obs], False
    while not over:
        obs, _, over, _, info = env.step(np.zeros(4, dtype=np.float32))
        assert not obs[36:39].any()
        if obs[39]:
            starts.append(obs)
    assert len(starts) == 3
    assert all(np.array_equal(start, starts[0]) for start in starts)
    assert info["rollout"]["lengths"].tolist() == [500, 500, 500]


def test_films_show_the_robot_as_it_moves():
    env = MetaRollout(ML45, tasks=["reach-v3"])
    assert env.metadata["render_fps"] == round(1 / SkillGame("reach-v3").upstream.dt) == 80


def test_success_is_upstreams_flag_at_any_step():
    from mtbench.suites.metaworld.oracle import action

    env = MetaRollout(ML45, tasks=["reach-v3"], k=2)
    env.reset(seed=1)
    over = False
    while not over:
        wanted = action(env) if env._progress.attempt == 0 else np.zeros(4, dtype=np.float32)
        _, _, over, _, info = env.step(wanted)
    assert info["rollout"]["successes"].tolist() == [True, False]


def test_a_copy_goes_on_alike():
    one = SkillGame("door-open-v3")
    one.reset(seed=2)
    rng = np.random.default_rng(0)
    for _ in range(30):
        one.step(rng.uniform(-1, 1, 4).astype(np.float32))
    other = copy.deepcopy(one)
    for _ in range(30):
        action = rng.uniform(-1, 1, 4).astype(np.float32)
        mine, its = one.step(action), other.step(action)
        assert np.array_equal(mine[0], its[0])
        assert mine[1:4] == its[1:4]


@pytest.mark.parametrize("platform", ["disable", "glfw"])
def test_pictures_without_a_platform_for_them_are_refused(platform):
    code = """
import gymnasium as gym
env = gym.make("mtbench:ML45-v0", render_mode="rgb_array", tasks=["reach-v3"])
env.reset(seed=0)
env.step(env.action_space.sample())
try:
    env.render()
except gym.error.DependencyNotInstalled as error:
    print(error)
"""
    environment = {**os.environ, "MUJOCO_GL": platform, "DISPLAY": ""}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert "need a display, EGL or OSMesa" in done.stdout
    assert "Traceback" not in done.stderr


def test_pictures_show_the_robot_at_work():
    """Moving the hand changes a part of the picture; without a step, the picture stays the same."""
    game = SkillGame("drawer-open-v3")
    game.reset(seed=0)
    first = game.picture()
    assert (first.shape, first.dtype) == ((480, 480, 3), np.uint8)
    assert np.array_equal(game.picture(), first)
    for _ in range(20):
        game.step(np.array([0, 1, 0, 0], dtype=np.float32))
    moved = (game.picture() != first).any(axis=2)
    assert 0.005 < moved.mean() < 0.3
