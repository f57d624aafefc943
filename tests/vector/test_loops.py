"""The compiled loops of the batched contract, each tested alone."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mtbench.vector import loops, streams
from mtbench.vector.engine import PROGRESS

NONE = np.zeros(0, dtype=np.int64)


def random_streams(n, spare):
    """N seeded streams; with `spare`, each holds the unused half of a draw."""
    found = np.zeros(n, streams.STREAM)
    for i in range(n):
        streams.seed(found[i], i)
        if spare:
            streams.next_uint32(found[i])
    assert (found["has_spare"] == spare).all()
    return found


def playing(*attempts):
    progress = np.zeros(len(attempts), PROGRESS)
    progress["attempt"], progress["phase"] = attempts, loops.PLAYING
    return progress


# Three tasks need two draws of 32 bits, which keep `has_spare` as it was. One task needs no draw, so that the variant's
# draw alone changes `has_spare`.
@pytest.mark.parametrize("spare", [False, True])
@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("listed", [NONE, np.array([5, 8, 13])])
def test_the_prediction_is_what_comes_next_and_leaves_the_streams_alone(spare, tasks, listed):
    random, progress = random_streams(4, spare), playing(0, 0, 0, 0)
    before, drawn_from = random.copy(), np.arange(10, 10 + tasks)
    next_tasks, next_variants = np.full((2, 4), -7)
    drawn = (drawn_from, 100, len(listed) or 50, listed)
    loops.predict_next(0, 4, progress, random, np.zeros(4, dtype=np.int64), *drawn, next_tasks, next_variants)
    assert np.array_equal(random, before)
    task, variants, begins = np.zeros(4, dtype=np.int64), np.zeros((4, 2), dtype=np.int64), np.zeros(4, dtype=np.int64)
    follows = np.full(4, loops.NEXT_ROLLOUT, dtype=np.int8)
    replacements = np.zeros(4, streams.STREAM)
    loops.begin_next(0, 4, progress, random, replacements, follows, task, variants, begins, *drawn, True)
    assert not np.array_equal(random, before)
    assert next_tasks.tolist() == task.tolist()
    assert next_variants.tolist() == begins.tolist() == variants[:, 1].tolist()


def test_predictions_are_made_only_where_rollouts_begin():
    random, progress = random_streams(3, False), playing(0, 1, 0)
    next_tasks, next_variants = np.full((2, 3), -7)
    begins = np.array([-1, 4, 4])  # nothing begins, a second attempt, a rollout
    loops.predict_next(0, 3, progress, random, begins, np.array([2]), 0, 9, NONE, next_tasks, next_variants)
    assert next_variants[:2].tolist() == [-1, -1]
    assert next_variants[2] >= 0
    assert next_tasks.tolist() == [-7, -7, 2]


def test_an_attempt_that_once_succeeded_stays_a_success():
    progress, successes = playing(0), np.array([[True, True]])  # from the previous rollout
    played, success = np.zeros(1, dtype=np.int64), np.array([False])
    seen = []
    for attempt, step, won in ((0, 0, False), (0, 1, True), (0, 2, False), (1, 3, False), (1, 4, True), (1, 5, False)):
        progress["attempt"], progress["elapsed"] = attempt, step
        success[:] = won
        loops.record_success(0, 1, progress, played, success, successes)
        seen.append(successes[0].tolist())
    assert seen == [[False, False], [True, False], [True, False], [True, False], [True, True], [True, True]]


def test_a_step_that_plays_nothing_notes_nothing():
    successes = np.array([[False, True]])
    loops.record_success(0, 1, playing(0), np.array([-1]), np.array([True]), successes)
    assert successes.tolist() == [[False, True]]


def before(progress, actions, random=None, returns=None, lengths=None):
    n = len(progress)
    played = np.full(n, -7)
    random = random_streams(n, False) if random is None else random
    returns = np.zeros((n, 2)) if returns is None else returns
    lengths = np.zeros((n, 2), dtype=np.int64) if lengths is None else lengths
    tasks, counts = np.zeros(n, dtype=np.int64), np.array([3])
    loops.before(0, n, progress, random, tasks, counts, np.array(actions), played, returns, lengths)
    return played


def test_before_replaces_actions_that_the_task_lacks_and_no_others():
    progress, random = playing(0, 0, 0), random_streams(3, False)
    untouched = random.copy()
    played = before(progress, [2, 3, 0], random)
    assert progress["valid"].tolist() == [True, False, True]
    assert played[[0, 2]].tolist() == [2, 0]
    assert 0 <= played[1] < 3
    assert (random == untouched).tolist() == [True, False, True]


def test_before_clears_the_statistics_at_a_rollouts_first_step_only():
    progress = playing(0, 0)
    progress["elapsed"] = [0, 1]
    returns, lengths = np.full((2, 2), 9.0), np.full((2, 2), 9)
    before(progress, [0, 0], returns=returns, lengths=lengths)
    assert returns.tolist() == [[0.0, 0.0], [9.0, 9.0]]
    assert lengths.tolist() == [[0, 0], [9, 9]]


@pytest.mark.parametrize("phase", [loops.NOT_RESET, loops.BETWEEN, loops.OVER])
def test_before_plays_nothing_where_no_attempt_is_under_way(phase):
    progress = playing(0)
    progress["phase"] = phase
    assert before(progress, [1]).tolist() == [-1]


def after(
    progress, earned=0.0, ended=False, cut=False, rules=(2, False, -1, False, loops.NEXT_STEP, False, True), scale=1.0
):
    """One step of one environment: reward, terminated, truncated, what begins next, returns, lengths."""
    returns, lengths = np.zeros((1, 2)), np.zeros((1, 2), dtype=np.int64)
    follows, reward, terminated, truncated = (
        np.zeros(1, dtype=np.int8),
        np.zeros(1),
        np.zeros(1, bool),
        np.zeros(1, bool),
    )
    base = np.array([earned]), np.array([ended]), np.array([cut])
    out = (reward, terminated, truncated)
    task, scales = np.zeros(1, dtype=np.int64), np.array([scale])
    loops.after(0, 1, progress, *base, task, scales, returns, lengths, follows, *out, rules)
    return reward[0], bool(terminated[0]), bool(truncated[0]), int(follows[0]), returns[0].tolist(), lengths[0].tolist()


def test_after_pays_and_counts_the_attempt_under_way():
    progress = playing(1)
    assert after(progress, 0.5) == (0.5, False, False, loops.GOES_ON, [0.0, 0.5], [0, 1])
    assert progress["elapsed"][0] == 1
    assert progress["reward"][0] == 0.5


def test_after_clips_before_it_scales_and_keeps_the_statistics_as_they_are():
    clipped = (2, False, -1, False, loops.NEXT_STEP, True, True)
    assert after(playing(0), 7.0, rules=clipped, scale=10.0)[::4] == (10.0, [7.0, 0.0])
    assert after(playing(0), -7.0, rules=clipped, scale=0.1)[::4] == (-0.1, [-7.0, 0.0])


@pytest.mark.parametrize(("attempt", "paid"), [(0, 0.0), (1, 0.5)])
def test_after_pays_only_the_last_attempt_under_k_shot(attempt, paid):
    progress = playing(attempt)
    reward, *_, returns, _ = after(progress, 0.5, rules=(2, True, -1, False, loops.NEXT_STEP, False, True))
    assert reward == paid
    assert returns[attempt] == progress["reward"][0] == 0.5


@pytest.mark.parametrize("cut", [False, True])
def test_after_the_last_attempt_the_rollout_is_over(cut):
    progress = playing(1)
    assert after(progress, ended=not cut, cut=cut)[1:4] == (True, False, loops.GOES_ON)
    assert progress["phase"][0] == loops.OVER
    progress = playing(1)
    single = (2, False, -1, True, loops.NEXT_STEP, False, True)  # the game's own flags
    assert after(progress, ended=not cut, cut=cut, rules=single)[1:3] == (not cut, cut)


def test_after_an_earlier_attempt_comes_a_step_between_or_the_next_attempt():
    progress = playing(0)
    assert after(progress, ended=True)[1:4] == (False, False, loops.GOES_ON)
    assert progress["phase"][0] == loops.BETWEEN
    assert after(progress)[1:] == (False, False, loops.NEXT_ATTEMPT, [0.0, 0.0], [0, 0])
    same_step = (2, False, -1, False, loops.SAME_STEP, False, True)
    assert after(playing(0), ended=True, rules=same_step)[3] == loops.NEXT_ATTEMPT


def test_after_the_longest_rollout_it_is_truncated():
    limited = (2, False, 3, False, loops.NEXT_STEP, False, True)
    for ended in (False, True):
        progress = playing(0)
        progress["elapsed"] = 1
        assert after(progress.copy(), ended=ended, rules=limited)[1:3] == (False, False)
        progress["elapsed"] = 2
        assert after(progress, ended=ended, rules=limited)[1:3] == (False, True)
        assert progress["phase"][0] == loops.OVER


@pytest.mark.parametrize(("action", "refused"), [(-1, 0), (0, -1), (4, -1), (5, 0)])
def test_actions_outside_the_space_are_refused(action, refused):
    assert loops.refused(playing(0), np.array([action]), 5, loops.NEXT_STEP) == refused


def test_a_step_is_refused_before_a_reset_and_where_nothing_resets():
    progress = playing(0, 0)
    progress["phase"][1] = loops.NOT_RESET
    assert loops.refused(progress, np.zeros(2, dtype=np.int64), 5, loops.NEXT_STEP) == 1
    progress["phase"][1] = loops.OVER
    assert loops.refused(progress, np.zeros(2, dtype=np.int64), 5, loops.NEXT_STEP) == -1
    assert loops.refused(progress, np.zeros(2, dtype=np.int64), 5, loops.NEVER) == 1
