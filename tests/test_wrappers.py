import functools

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from mtbench.rollout import MetaRollout
from mtbench.testing._contract.batches import assert_same_rollouts
from mtbench.testing._contract.helpers import play
from mtbench.wrappers import RL2Inputs, VectorRL2Inputs
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


@pytest.mark.parametrize("layout", ["dict", "append"])
def test_wrapped_environments_pass_the_checker(layout):
    check_env(RL2Inputs(make(), layout), skip_render_check=True)


def test_wrappers_want_our_environments():
    with pytest.raises(ValueError, match="needs an mtbench environment"):
        RL2Inputs(gym.make("CartPole-v1"))


# Short games. The limits end some rollouts between two attempts or in an attempt that pays nothing.
GAMES = {"tasks": ["MineSweeperEasy", "RepeatFirstEasy"], "reward_scales": {"MineSweeperEasy": 3.0}}
CASES = {
    "vectors": (ID, "append", {**GAMES, "max_steps": 23}),
    "clipped": (ID, "dict", {**GAMES, "clip_rewards": True, "max_steps": 60, "attempt_reset": "same-step"}),
    "dicts": ("MTBabyAI-v0", "dict", {"objective": "k-shot", "max_steps": 40, "attempt_reset": "same-step"}),
    "real actions": ("ML10-v0", "append", {"tasks": ["push-v3"], "k": 2, "max_steps": 15}),
}
# Meta-World's environments take long to make, and what differs there is the same in each mode.
RUNS = [(case, mode) for case in CASES for mode in AutoresetMode if case != "real actions"]
RUNS.append(("real actions", AutoresetMode.SAME_STEP))


@pytest.mark.parametrize(("case", "mode"), RUNS)
def test_batches_show_what_the_single_wrapper_shows(case, mode):
    """Bit for bit, also in ``final_obs`` and ``final_attempt_obs``, and after resets by mask."""
    pytest.importorskip("numba")
    env_id, layout, kwargs = CASES[case]
    num_envs = 2 if case == "real actions" else 4
    try:
        batch = gym.make_vec(env_id, num_envs=num_envs, autoreset_mode=mode, **kwargs)
    except gym.error.DependencyNotInstalled as missing:
        pytest.skip(str(missing))
    ours = VectorRL2Inputs(batch, layout)
    theirs = gym.make_vec(
        env_id,
        num_envs=num_envs,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        wrappers=[functools.partial(RL2Inputs, layout=layout)],
        **kwargs,
    )
    assert ours.observation_space == theirs.observation_space
    assert ours.single_observation_space == theirs.single_observation_space
    assert assert_same_rollouts(ours, theirs, 80) >= 4
    ours.close()
    theirs.close()


def test_what_a_batch_returned_is_not_edited_later():
    pytest.importorskip("numba")
    venv = VectorRL2Inputs(gym.make_vec(ID, num_envs=2))
    first, _ = venv.reset(seed=0)
    kept = {name: part.copy() for name, part in first.items()}
    venv.step(np.array([1, 2]))
    assert all(np.array_equal(first[name], part) for name, part in kept.items())


def test_an_action_that_is_not_played_may_be_anything():
    """Where a step only begins the next rollout, as the engine allows it."""
    pytest.importorskip("numba")
    venv = VectorRL2Inputs(gym.make_vec(ID, num_envs=2, max_steps=1))
    venv.reset(seed=0)
    venv.step(np.array([1, 2]))
    observations, *_ = venv.step(np.array([99, -1]))
    assert not observations["previous_action"].any()


def test_the_wrapper_of_batches_names_what_to_do_for_other_vector_environments():
    with pytest.raises(ValueError, match="vectorization_mode"):
        VectorRL2Inputs(gym.make_vec(ID, num_envs=2, vectorization_mode="sync"))


def test_scales_do_not_change_the_shown_reward():
    pytest.importorskip("metaworld")
    kwargs = {"objective": "k-shot", "k": 2, "tasks": ["push-v3"], "max_steps": 20}
    inner = gym.make("ML10-v0", **kwargs)
    env = RL2Inputs(gym.make("ML10-v0", reward_scales={"push-v3": 10.0}, **kwargs), layout="append")
    for a, b in zip(play(env, 0), play(inner, 0), strict=True):
        shown, previous_reward = a[0][41], a[0][42 + 4]
        assert np.array_equal(a[0][:42], b[0])
        assert previous_reward == pytest.approx(10.0 * shown, rel=1e-6)
