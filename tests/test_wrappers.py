import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mtbench.rollout import MetaRollout
from mtbench.suites.popgym import TASKS
from mtbench.testing.contract.helpers import play
from mtbench.wrappers import RL2Inputs, ScaleReward, TaskLabel
from tests import toy

ID = "MTPOPGym-v0"


def make(**kwargs):
    return gym.make(ID, tasks=["RepeatFirstEasy"], **kwargs)


@pytest.mark.parametrize("attempt_reset", ["next-step", "same-step"])
def test_rl2_inputs_tell_the_story_so_far(attempt_reset):
    env = RL2Inputs(make(attempt_reset=attempt_reset))
    env.action_space.seed(0)
    obs, _ = env.reset(seed=0)
    assert obs["previous_action"].sum() == 0
    assert obs["attempt_start"].tolist() == [1.0]
    starts, rewards, over = 1, [], False
    step = 0
    while not over:
        action = env.action_space.sample()
        obs, _, over, _, info = env.step(action)
        step += 1
        ignored = attempt_reset == "next-step" and step == 52
        assert obs["previous_action"].sum() == (0 if ignored else 1)
        assert ignored or obs["previous_action"][action] == 1
        assert obs["attempt_start"][0] == (step == (52 if attempt_reset == "next-step" else 51))
        starts += int(obs["attempt_start"][0])
        rewards.append(float(obs["previous_reward"][0]))
        assert env.observation_space.contains(obs)
        if "final_attempt_obs" in info:
            assert env.observation_space.contains(info["final_attempt_obs"])
            assert info["final_attempt_obs"]["attempt_start"][0] == 0
    assert starts == 2
    assert sum(rewards) == pytest.approx(info["rollout"]["returns"].sum(), abs=1e-5)


def test_rl2_appends_the_same_numbers():
    apart, flat = RL2Inputs(make()), RL2Inputs(make(), layout="append")
    keys = ("observation", "previous_action", "previous_reward", "attempt_start")
    for one, two in zip(play(apart, 3), play(flat, 3), strict=True):
        np.testing.assert_array_equal(np.concatenate([one[0][key] for key in keys]), two[0])
    assert set(apart.observation_space.keys()) == set(keys)
    assert flat.observation_space.shape == (30 + 27 + 2,)


def test_rl2_reward_is_on_the_agents_scale():
    env = RL2Inputs(make(reward_scales={"RepeatFirstEasy": 51.0}, objective="k-episode"))
    for obs, reward, *_ in play(env, 0)[1:]:
        assert obs["previous_reward"][0] == np.float32(reward)


def test_rl2_above_scaled_rewards_shows_what_is_paid():
    env = RL2Inputs(ScaleReward(ScaleReward(make(objective="k-episode"), 10.0), {"RepeatFirstEasy": 3.0}))
    for obs, reward, *_ in play(env, 0)[1:]:
        assert obs["previous_reward"][0] == pytest.approx(reward)


def test_the_task_label_is_on_the_last_observation_of_an_attempt_too():
    env = TaskLabel(make(attempt_reset="same-step"))
    finals = [info["final_attempt_obs"] for *_, info in play(env, 0) if "final_attempt_obs" in info]
    assert len(finals) == 1
    assert env.observation_space.contains(finals[0])


def test_rl2_takes_vector_actions():
    env = RL2Inputs(MetaRollout(toy.SUITE, k=2), layout="append")
    env.reset(seed=0)
    obs, *_ = env.step(np.array([0.25], dtype=np.float32))
    assert obs[3:].tolist() == [0.25, 0.25, 0.0]


def test_rl2_needs_a_vector_to_append_to():
    with pytest.raises(ValueError, match='use "dict"'):
        RL2Inputs(RL2Inputs(make()), layout="append")
    with pytest.raises(ValueError, match="layout"):
        RL2Inputs(make(), layout="list")


def test_scale_reward_is_the_environments_own_scaling():
    task = "RepeatFirstEasy"
    for wrapped in (ScaleReward(make(), 7.0), ScaleReward(make(), {task: 7.0, "MineSweeperEasy": 3.0})):
        inside = make(reward_scales={task: 7.0})
        for one, two in zip(play(wrapped, 1), play(inside, 1), strict=True):
            assert one[1] == pytest.approx(two[1])
    with pytest.raises(ValueError, match="Did you mean 'RepeatFirstEasy'"):
        ScaleReward(make(), {"RepeatFirstEas": 2.0})


def test_task_label_equals_the_exposed_one():
    for one, two in zip(play(TaskLabel(make()), 1), play(make(expose_task_label=True), 1), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
        assert one[0][30 + list(TASKS).index("RepeatFirstEasy")] == 1
    with pytest.raises(ValueError, match="already"):
        TaskLabel(make(expose_task_label=True))


@pytest.mark.parametrize(
    "wrap", [RL2Inputs, lambda env: RL2Inputs(env, layout="append"), lambda env: ScaleReward(env, 2.0), TaskLabel]
)
def test_wrapped_environments_pass_the_checker(wrap):
    check_env(wrap(make()), skip_render_check=True)


def test_wrappers_want_our_environments():
    with pytest.raises(ValueError, match="needs an mtbench environment"):
        RL2Inputs(gym.make("CartPole-v1"))
