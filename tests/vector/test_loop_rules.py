"""The compiled rules of a step, called directly, for cases that are rare on registered suites."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mtbench.vector import loops
from mtbench.vector.engine import PROGRESS


def progress_of(**fields):
    """The progress of one environment."""
    progress = np.zeros(1, PROGRESS)
    progress["phase"] = loops.PLAYING
    for name, value in fields.items():
        progress[name] = value
    return progress


def noted(progress, successes, success):
    successes = np.array([successes])
    loops.record_success(0, 1, progress, np.zeros(1, dtype=np.int64), np.array([success]), successes)
    return successes[0].tolist()


def test_successes_of_the_rollout_before_are_forgotten():
    assert noted(progress_of(elapsed=0), [True, True], False) == [False, False]
    assert noted(progress_of(elapsed=0), [True, True], True) == [True, False]


def test_a_success_is_kept_to_the_end_of_its_rollout():
    assert noted(progress_of(elapsed=3, attempt=0), [True, False], False) == [True, False]
    assert noted(progress_of(elapsed=3, attempt=1), [True, False], False) == [True, False]
    assert noted(progress_of(elapsed=3, attempt=1), [False, False], True) == [False, True]


def after(
    progress,
    *,
    earned=0.0,
    over=(False, False),
    k=2,
    k_shot=False,
    max_steps=-1,
    single_attempt=False,
    attempt_reset=loops.NEXT_STEP,
    clip=False,
    scale=1.0,
):
    """One environment's reward, flags and what begins next."""
    reward, follows = np.zeros(1), np.zeros(1, dtype=np.int8)
    terminated, truncated = np.zeros((2, 1), dtype=np.bool_)
    base_terminated, base_truncated = np.array(over).reshape(2, 1)
    returns, lengths = np.zeros((1, k)), np.zeros((1, k), dtype=np.int64)
    rules = (k, k_shot, max_steps, single_attempt, attempt_reset, clip, True)
    loops.after(
        *(0, 1, progress, np.array([earned]), base_terminated, base_truncated),
        *(np.zeros(1, dtype=np.int64), np.array([scale]), returns, lengths, follows),
        *(reward, terminated, truncated, rules),
    )
    return reward[0], bool(terminated[0]), bool(truncated[0]), int(follows[0])


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True)])
def test_a_single_attempt_passes_its_games_flags_on(flags):
    assert after(progress_of(), over=flags, k=1, single_attempt=True)[1:3] == flags


@pytest.mark.parametrize("flags", [(True, False), (False, True), (True, True)])
def test_the_last_of_several_attempts_ends_terminated(flags):
    progress = progress_of(attempt=1)
    assert after(progress, over=flags)[1:3] == (True, False)
    assert progress["phase"] == loops.OVER


@pytest.mark.parametrize(
    ("earned", "paid"), [(-7.0, -3.0), (-1.0, -3.0), (-0.5, -1.5), (0.0, 0.0), (0.5, 1.5), (7.0, 3.0)]
)
def test_rewards_are_clipped_on_both_sides_before_they_are_scaled(earned, paid):
    assert after(progress_of(), earned=earned, clip=True, scale=3.0)[0] == paid


@pytest.mark.parametrize(("attempt", "k_shot_pays"), [(0, 0.0), (1, 0.0), (2, 2.0)])
def test_only_the_last_attempt_pays_under_k_shot(attempt, k_shot_pays):
    assert after(progress_of(attempt=attempt), earned=2.0, k=3, k_shot=True)[0] == k_shot_pays
    assert after(progress_of(attempt=attempt), earned=2.0, k=3)[0] == 2.0


def test_the_step_between_attempts_pays_nothing_and_forgets_the_last_reward():
    progress = progress_of(phase=loops.BETWEEN, reward=5.0, valid=False, elapsed=4)
    assert after(progress, earned=9.0) == (0.0, False, False, loops.NEXT_ATTEMPT)
    assert (progress["reward"], progress["valid"], progress["elapsed"]) == (0.0, True, 5)


@pytest.mark.parametrize("phase", [loops.PLAYING, loops.BETWEEN])
@pytest.mark.parametrize(("elapsed", "truncated"), [(3, False), (4, True), (5, False)])
def test_a_time_limit_truncates_at_its_step(phase, elapsed, truncated):
    progress = progress_of(phase=phase, elapsed=elapsed)
    assert after(progress, max_steps=5)[1:3] == (False, truncated)
    assert (progress["phase"] == loops.OVER) == truncated


def test_a_time_limit_at_the_end_of_an_attempt_truncates_unless_it_is_the_last():
    over, same_step = (True, False), loops.SAME_STEP
    for attempt_reset in (loops.NEXT_STEP, same_step):
        limit = {"over": over, "max_steps": 5, "attempt_reset": attempt_reset}
        assert after(progress_of(elapsed=4), **limit)[1:] == (False, True, loops.GOES_ON)
        assert after(progress_of(elapsed=4, attempt=1), **limit)[1:] == (True, False, loops.GOES_ON)


def test_a_rollout_that_is_over_is_followed_by_the_next():
    assert after(progress_of(phase=loops.OVER), earned=1.0) == (0.0, False, False, loops.NEXT_ROLLOUT)
