"""What the registered suites do not exercise, on a suite small enough to follow by hand."""

import numpy as np
import pytest

from mtbench.rollout import MetaRollout
from tests import toy

ONE = np.array([1.0], dtype=np.float32)


def steps(env, n, action=ONE):
    return [env.step(action) for _ in range(n)]


def test_a_kept_variant_plays_the_same_goal_again():
    env = MetaRollout(toy.SUITE, k=3)
    for seed in range(10):
        env.reset(seed=seed)
        goal, info = env.base.goal, {}
        goals = []
        while "rollout" not in info:
            *_, info = env.step(ONE)
            goals.append(env.base.goal)
        assert set(goals) == {goal}
        assert info["rollout"]["lengths"].tolist() == [goal] * 3


def test_success_is_kept_for_each_attempt():
    env = MetaRollout(toy.SUITE, k=2)
    env.reset(seed=0, options={"variant": 1})  # the goal is at 2
    steps(env, 2)
    steps(env, 1)
    info = steps(env, 8, np.array([0.0], dtype=np.float32))[-1][4]
    assert info["rollout"]["successes"].tolist() == [True, False]
    assert info["rollout"]["successes"].dtype == np.bool_
    assert info["rollout"]["returns"].tolist() == [2.0, 0.0]


def test_success_is_what_the_suite_says_and_no_reward_earned():
    env = MetaRollout(toy.SUITE)
    env.reset(seed=0, options={"variant": 1})  # the goal is at 2
    steps(env, 1)
    info = steps(env, 7, 0 * ONE)[-1][4]
    assert info["rollout"]["returns"].tolist() == [1.0]
    assert info["rollout"]["successes"].tolist() == [False]


def test_a_rollout_ends_terminated_even_where_the_base_truncates():
    env = MetaRollout(toy.SUITE)
    env.reset(seed=0)
    assert steps(env, 8, 0 * ONE)[-1][2:4] == (True, False)


@pytest.mark.parametrize(("action", "flags"), [(1.0, (True, False)), (0.0, (False, True))])
def test_a_single_attempt_suite_passes_the_base_flags_through(action, flags):
    env = MetaRollout(toy.SingleAttempt())
    env.reset(seed=0)
    result = env.step(ONE * action)
    while not (result[2] or result[3]):
        result = env.step(ONE * action)
    assert result[2:4] == flags


def test_a_time_limit_between_attempts_leaves_the_rest_unplayed():
    env = MetaRollout(toy.SUITE, k=3, max_steps=2)
    env.reset(seed=0, options={"variant": 1})
    final = steps(env, 2)[-1]
    assert final[2:4] == (False, True)
    assert final[4]["rollout"]["lengths"].tolist() == [2, 0, 0]


def test_a_time_limit_can_fall_on_the_ignored_step():
    env = MetaRollout(toy.SUITE, k=2, max_steps=3)
    env.reset(seed=0, options={"variant": 1})
    final = steps(env, 3)[-1]
    assert final[2:4] == (False, True)
    assert final[0][1] == 1.0, "the observation is the first of the second attempt"


def test_the_end_of_the_last_attempt_beats_the_time_limit():
    env = MetaRollout(toy.SUITE, k=1, max_steps=2)
    env.reset(seed=0, options={"variant": 1})
    assert steps(env, 2)[-1][2:4] == (True, False)


def test_the_time_limit_can_fall_where_same_step_would_fold():
    env = MetaRollout(toy.SUITE, k=2, max_steps=2, attempt_reset="same-step")
    env.reset(seed=0, options={"variant": 1})
    final = steps(env, 2)[-1]
    assert final[2:4] == (False, True)
    assert final[4]["rollout"]["lengths"].tolist() == [2, 0]


def test_same_step_shows_the_last_reward_with_the_new_attempt():
    env = MetaRollout(toy.SUITE, k=2, attempt_reset="same-step")
    env.reset(seed=0, options={"variant": 0})  # the goal is at 1
    obs, reward, terminated, truncated, info = env.step(ONE)
    assert obs.tolist() == [0.0, 1.0, 1.0]
    assert info["final_attempt_obs"].tolist() == [1.0, 0.0, 1.0]
    assert (reward, terminated, truncated) == (1.0, False, False)


def test_pinned_variants_may_differ_where_the_variant_is_kept():
    """The adaptation audit plays them."""
    env = MetaRollout(toy.SUITE, k=2)
    env.reset(options={"variant": [1, 2]})  # goals at 2 and 3
    returns = steps(env, 6)[-1][4]["rollout"]["returns"]
    assert returns.tolist() == [2.0, 3.0]


def test_one_variant_is_pinned_for_each_attempt():
    with pytest.raises(ValueError, match="one for each of the 2 attempts"):
        MetaRollout(toy.SUITE, k=2).reset(options={"variant": [1, 2, 3]})


def test_a_box_action_outside_its_space_is_refused():
    import gymnasium as gym

    env = MetaRollout(toy.SUITE)
    env.reset(seed=0)
    with pytest.raises(gym.error.InvalidAction, match=r"give numbers from -1\.0 to 1\.0 of shape \(1,\)"):
        env.step(2 * ONE)


def test_close_closes_every_base_and_needs_a_new_reset():
    import gymnasium as gym

    env = MetaRollout(toy.SUITE)
    env.reset(seed=0)
    closed = []
    env.base.close = lambda: closed.append(True)
    env.close()
    assert closed == [True]
    with pytest.raises(gym.error.ClosedEnvironmentError):
        env.step(ONE)
    env.reset(seed=0)
    env.step(ONE)


def test_a_suite_loads_from_any_module():
    assert MetaRollout("tests.toy:SUITE").suite is toy.SUITE
    with pytest.raises(ValueError, match=r"not a mtbench\.suite\.Suite"):
        MetaRollout("tests.toy:np")


def test_rewards_are_clipped_on_both_sides_and_statistics_are_not():
    env = MetaRollout(toy.SUITE, clip_rewards=True)
    env.reset(seed=0, options={"variant": 4})  # the goal is at 5
    play = env.base.step

    def tenfold(action):
        obs, reward, *rest = play(action)
        return obs, 10 * reward, *rest

    env.base.step = tenfold
    assert [env.step(ONE * size)[1] for size in (-1.0, -0.05, 0.0, 0.05, 1.0)] == pytest.approx([-1, -0.5, 0, 0.5, 1])
    info = steps(env, 3, 0 * ONE)[-1][4]
    assert info["rollout"]["returns"][0] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"tasks": ["near", "near"]}, "none twice"),
        ({"k": True}, "`k` must be an integer of at least 1, got True"),
        ({"max_steps": True}, "`max_steps` must be an integer of at least 1, got True"),
        ({"reward_scales": {"near": True}}, "must be a finite number, got True"),
    ],
)
def test_near_misses_among_arguments_are_refused(kwargs, message):
    with pytest.raises(ValueError, match=message):
        MetaRollout(toy.SUITE, **kwargs)


def test_a_picture_needs_a_reset():
    import gymnasium as gym

    env = MetaRollout(toy.SUITE, render_mode="rgb_array")
    with pytest.raises(gym.error.ResetNeeded, match=r"Call reset\(\) before render"):
        env.render()
    env.reset(seed=0)
    assert env.render().shape == toy.SUITE.frame_shape


def test_a_task_that_is_not_played_is_refused_by_where_it_was_looked_for():
    env = MetaRollout("popgym", tasks=["MineSweeperEasy"])
    with pytest.raises(ValueError, match="this environment's subset of split 'train'"):
        env.reset(options={"task": "MineSweeperHard"})
    with pytest.raises(ValueError, match="There is no task 'nothing' in split 'train'"):
        MetaRollout("popgym").reset(options={"task": "nothing"})


@pytest.mark.parametrize(("attempt_reset", "expected"), [("next-step", [1, 2, 0, 1, 2]), ("same-step", [1, 0, 1, 2])])
def test_steps_are_counted_anew_in_every_attempt(attempt_reset, expected):
    """Meta-World shows this count and pictures print it."""
    env = MetaRollout(toy.SUITE, k=2, attempt_reset=attempt_reset)
    env.reset(seed=0, options={"variant": 1})  # attempts of 2 steps
    counts = []
    for _ in expected:
        env.step(ONE)
        counts.append(env._progress.attempt_steps)
    assert counts == expected


def test_playing_says_whether_the_next_step_plays_its_action():
    env = MetaRollout(toy.SUITE, k=2)
    seen = [env.playing]
    env.reset(seed=0, options={"variant": 1})  # attempts of 2 steps
    seen.append(env.playing)
    for _ in range(5):
        env.step(ONE)
        seen.append(env.playing)
    assert seen == [False, True, True, False, True, True, False]
