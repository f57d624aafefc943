"""docs/contract.md, point 6: under k-shot every observation shows the previous true reward, on every ID."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from mtbench.vector import make_vec
from mtbench.wrappers import RL2Inputs

from . import SHORT_GAMES
from .batches import assert_same_rollouts
from .helpers import equal, play, short_tasks, suite_of, tasks_of

# For suites with long attempts: steps that reach the second attempt, except on Atari, whose attempts are too long.
MOST_STEPS = {"metaworld-ml45": 520, "metaworld-ml10": 520, "atari": 100}


def split_off(obs, suite):
    """Split an observation into the reward that it shows, and the rest."""
    if suite.shows_reward:  # these tests assume that it is the last number of a vector
        return obs[-1], obs
    if not isinstance(obs, dict):
        return obs[-1], obs[:-1]
    rest = {name: part for name, part in obs.items() if name != "reward"}
    assert obs["reward"].shape == (1,)
    return obs["reward"][0], rest["image"] if list(rest) == ["image"] else rest


@pytest.mark.parametrize("attempt_reset", ["next-step", "same-step"])
def test_every_observation_shows_the_true_reward(make, env_id, attempt_reset):
    """The true rewards are those of the same rollout under k-episode, unclipped and unscaled."""
    most_steps = MOST_STEPS.get(suite_of(env_id).name)
    k = {"k": 2, "attempt_reset": attempt_reset, "max_steps": most_steps}
    shown = make(objective="k-shot", reward_scales=dict.fromkeys(tasks_of(env_id), 100.0), clip_rewards=True, **k)
    paid = make(objective="k-episode", reward_scales={}, clip_rewards=False, **k)
    suite, unpaid = shown.unwrapped.suite, 0
    for seed in range(1 if most_steps else 3):
        one, two = play(shown, seed), play(paid, seed)
        for a, b in zip(one, two, strict=True):
            reward, rest = split_off(a[0], suite)
            assert reward == np.float32(b[1])
            assert reward.dtype == np.float32
            assert equal(rest, b[0])
            assert ("final_attempt_obs" in a[4]) == ("final_attempt_obs" in b[4])
            if "final_attempt_obs" in a[4]:
                reward, rest = split_off(a[4]["final_attempt_obs"], suite)
                assert reward == np.float32(b[1])
                assert equal(rest, b[4]["final_attempt_obs"])
            unpaid += b[1] != 0 and a[1] == 0
        assert split_off(one[0][0], suite)[0] == 0
        assert equal(one[-1][4], two[-1][4])
    assert unpaid > 0 or suite.extra not in ("popgym", "metaworld"), "these pay something at every step"


def test_an_exploration_reward_is_shown_and_not_paid(env_id):
    """The base environment's reward is replaced, because random actions earn nothing on some suites."""
    env = gym.make(env_id, objective="k-shot", k=2, tasks=tasks_of(env_id)[:1]).unwrapped
    env.reset(seed=0)
    step = env.base.step
    env.base.step = lambda action: (step(action)[0], 0.5, True, False, {"success": False})
    obs, reward, *_ = env.step(env.action_space.sample())
    assert (reward, split_off(obs, env.suite)[0]) == (0.0, 0.5)
    assert env.observation_space.contains(obs)
    obs, reward, *_ = env.step(env.action_space.sample())  # between the attempts
    assert (reward, split_off(obs, env.suite)[0]) == (0.0, 0.0)
    obs, reward, *_ = env.step(env.action_space.sample())
    assert split_off(obs, env.suite)[0] == 0.5
    assert reward != 0.0


def test_where_the_reward_is(env_id):
    """Vectors get a number at the end, Dicts a key, and images become a Dict; POPGym always has a channel for it."""
    plain, shown = gym.make(env_id, objective="k-episode"), gym.make(env_id, objective="k-shot")
    before, after = plain.observation_space, shown.observation_space
    reward = gym.spaces.Box(-np.inf, np.inf, (1,), np.float32)
    if plain.unwrapped.suite.shows_reward:
        assert after == before
    elif isinstance(before, gym.spaces.Dict):
        assert after == gym.spaces.Dict({**before.spaces, "reward": reward})
    elif before.dtype == np.uint8:
        assert after == gym.spaces.Dict({"image": before, "reward": reward})
    else:
        assert after.shape == (before.shape[0] + 1,)
        assert np.array_equal(after.low, [*before.low, -np.inf])
        assert np.array_equal(after.high, [*before.high, np.inf])


@pytest.mark.parametrize("label", [False, True])
def test_gymnasium_checker_is_content(env_id, label):
    env = gym.make(env_id, objective="k-shot", expose_task_label=label, **short_tasks(env_id))
    check_env(env.unwrapped, skip_render_check=True)


def test_label_and_reward_side_by_side(make, env_id):
    env = make(objective="k-shot", expose_task_label=True, max_steps=30)
    without = make(objective="k-shot", max_steps=30)
    names = list(env.unwrapped.suite.tasks)
    for a, b in zip(play(env, 1), play(without, 1), strict=True):
        assert env.observation_space.contains(a[0])
        if isinstance(a[0], dict):
            assert set(a[0]) == {*b[0], "task"}
            rest, label = {name: a[0][name] for name in b[0]}, a[0]["task"]
        else:
            rest, label = a[0][: -len(names)], a[0][-len(names) :]
        assert equal(rest, b[0])
        assert np.flatnonzero(label).tolist() == [names.index(a[4]["task"])]


ARMS = {
    "next-step": (AutoresetMode.NEXT_STEP, {}),
    "same-step": (AutoresetMode.SAME_STEP, {"attempt_reset": "same-step", "expose_task_label": True}),
    "disabled": (AutoresetMode.DISABLED, {"expose_task_label": True}),
}


@pytest.mark.parametrize("arm", ARMS)
def test_batches_show_what_single_environments_show(env_id, arm):
    """All is equal bit for bit, also ``final_obs``, ``final_attempt_obs``, and observations after resets by mask."""
    pytest.importorskip("numba")
    mode, kwargs = ARMS[arm]
    suite = suite_of(env_id).name
    if not suite_of(env_id).engine:
        pytest.skip("no engine for this suite")
    steps = MOST_STEPS.get(suite, 60) // (4 if suite == "atari" else 1)
    kwargs = {"objective": "k-shot", "k": 2, "max_steps": steps, **kwargs}
    kwargs |= short_tasks(env_id)
    num_envs = 2 if suite in SHORT_GAMES else 8
    ours = make_vec(env_id, num_envs, autoreset_mode=mode, **kwargs)
    theirs = gym.make_vec(
        env_id, num_envs=num_envs, vectorization_mode="sync", vector_kwargs={"autoreset_mode": mode}, **kwargs
    )
    assert type(ours).__name__ == "VectorMetaRollout"
    assert ours.observation_space == theirs.observation_space
    assert ours.single_observation_space == theirs.single_observation_space
    assert assert_same_rollouts(ours, theirs, steps + 15) >= 1
    ours.close()
    theirs.close()


@pytest.mark.parametrize("layout", ["dict", "append"])
def test_the_wrapper_takes_the_reward_along(env_id, layout):
    env = gym.make(env_id, objective="k-shot", k=2, max_steps=60, attempt_reset="same-step", **short_tasks(env_id))
    if layout == "append" and not (isinstance(env.observation_space, gym.spaces.Box)):
        pytest.skip("the layout `append` needs a vector")
    env = RL2Inputs(env, layout)
    check_env(env, skip_render_check=True)
    for obs, *_, info in play(env, 0):
        assert env.observation_space.contains(obs)
        assert env.observation_space.contains(info.get("final_attempt_obs", obs))
