import dataclasses
import os

import numpy as np
import pytest
from mtbench_agents.transformer.replay import Replay, Rollout

from mtbench.errors import UsageError

LARGE = 200  # numbers of an observation that is read from its file


def rollout(number, length, terminated=True, width=1):
    """Everything in it says which rollout and which step it is from: 1000 * number + step."""
    at = 1000 * number + np.arange(length + 1)
    return Rollout(
        observations=np.repeat(at[:, None], width, axis=1).astype(np.float32),
        actions=at[:-1].astype(np.int64),
        rewards=at[:-1].astype(np.float32),
        terminated=terminated,
    )


def make(capacity, width=1, **kwargs):
    return Replay(capacity, np.zeros(width, np.float32), np.zeros((), np.int64), **kwargs)


def check(batch, length):
    """Slices are whole, in order, from one rollout, with what came before each observation beside it."""
    for row in range(len(batch.mask)):
        count = int(batch.mask[row].sum())
        assert batch.mask[row, :count].all()
        assert not batch.mask[row, count:].any()
        observed = batch.observations[row, : count + 1, 0]
        assert (batch.observations[row, : count + 1] == observed[:, None]).all()
        assert (batch.observations[row, count + 1 :] == observed[-1]).all(), "padding repeats the last one"
        first = observed[0]
        assert np.array_equal(observed, first + np.arange(count + 1))
        assert batch.first_step[row] == first % 1000
        assert np.array_equal(batch.actions[row, 1 : count + 1], observed[:-1])
        assert np.array_equal(batch.rewards[row, 1 : count + 1], observed[:-1])
        if batch.first_step[row] == 0:
            assert batch.actions[row, 0] == batch.rewards[row, 0] == 0
        else:
            assert batch.actions[row, 0] == batch.rewards[row, 0] == first - 1
        assert count <= length
        assert not batch.terminated[row, : count - 1].any()


@pytest.mark.parametrize("width", [1, LARGE])
@pytest.mark.parametrize("on_disk", [False, True])
def test_slices_are_true_whatever_was_forgotten(tmp_path, on_disk, width):
    rng = np.random.default_rng(0)
    replay = make(300, width, folder=tmp_path / "replay" if on_disk else None)
    held = []
    for number in range(1, 400):
        length = int(rng.integers(1, 60))
        replay.add(rollout(number, length, width=width))
        held.append((number, length))
        batch = replay.sample(16, 20, rng)
        check(batch, 20)
        newest = {n for n, _ in held[-len(replay) :]}
        assert {int(o[0, 0] // 1000) for o in batch.observations} <= newest, "only the newest are left"
        assert replay.timesteps == sum(length for _, length in held[-len(replay) :])
        assert replay.timesteps + len(replay) <= 300
    assert len(replay) > 3, "the ring is well used"


def test_every_rollout_is_equally_likely_and_a_slice_starts_anywhere_and_is_moved_into_it():
    """47 places of 8 timesteps overlap a rollout of 40: 8 of them are moved to its beginning, and 8 to its end."""
    replay = make(1000)
    for number, length in ((1, 10), (2, 40), (3, 5)):
        replay.add(rollout(number, length))
    batch = replay.sample(30_000, 8, np.random.default_rng(0))
    which = batch.observations[:, 0, 0] // 1000
    np.testing.assert_allclose([(which == n).mean() for n in (1, 2, 3)], 1 / 3, atol=0.015)
    starts = np.bincount(batch.first_step[which == 2], minlength=33)
    assert len(starts) == 33
    np.testing.assert_allclose(starts / starts.sum(), [8 / 47, *[1 / 47] * 31, 8 / 47], atol=0.006)
    assert set(batch.first_step[which == 3]) == {0}


def test_termination_is_marked_at_the_true_end_only():
    replay = make(1000)
    replay.add(rollout(1, 12, terminated=True))
    replay.add(rollout(2, 12, terminated=False))
    batch = replay.sample(500, 5, np.random.default_rng(0))
    for row in range(500):
        first = int(batch.observations[row, 0, 0])
        ends = first // 1000 == 1 and first % 1000 == 7
        assert batch.terminated[row].any() == ends
        assert not ends or batch.terminated[row, 4]


def test_sampling_is_seeded_and_copies():
    replay = make(100)
    replay.add(rollout(1, 30))
    one, two = (replay.sample(4, 10, np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one.observations, two.observations)
    one.observations[:] = -1
    assert (replay.observations[:31] >= 0).all()


def test_a_file_cut_while_training_is_an_error_not_data(tmp_path):
    """Zeros would be learnt from."""
    replay = make(100, LARGE, folder=tmp_path)
    replay.add(rollout(1, 30, width=LARGE))
    os.truncate(tmp_path / "observations.bin", 4 * LARGE * 10)
    with pytest.raises(OSError, match="shorter than the replay"):
        replay.sample(8, 30, np.random.default_rng(0))


def filled(rollouts, **kwargs):
    replay = make(200, **kwargs)
    rng = np.random.default_rng(1)
    for number in range(rollouts):
        replay.add(rollout(number, int(rng.integers(5, 40))))
    return replay


@pytest.mark.parametrize("rollouts", [2, 25])
@pytest.mark.parametrize("after", [0, 1, 5, 40])
def test_a_restored_replay_goes_on_alike_whatever_was_written_after_the_checkpoint(tmp_path, rollouts, after):
    original = filled(rollouts)
    written = filled(rollouts, folder=tmp_path)
    state = {name: value.copy() for name, value in written.state().items()}
    written.guard()
    for number in range(50, 50 + after):
        written.add(rollout(number, 31))
    restored = make(200, folder=tmp_path)
    restored.load_state(state)
    for number in range(100, 103):  # and it is killed again
        restored.add(rollout(number, 17))
    restored = make(200, folder=tmp_path)
    restored.load_state(state)
    for number in range(100, 130):
        for replay in (original, restored):
            replay.add(rollout(number, 17))
        one, two = (replay.sample(8, 10, np.random.default_rng(number)) for replay in (original, restored))
        assert np.array_equal(one.observations, two.observations)
        assert np.array_equal(one.terminated, two.terminated)
    with pytest.raises(UsageError, match="another capacity"):
        make(201).load_state(original.state())
    old = {name: array for name, array in original.state().items() if name not in ("checksums", "ended")}
    with pytest.raises(UsageError, match="lacks checksums, ended: an earlier version"):
        make(200).load_state(old)


def test_the_checkpoint_before_the_newest_loses_what_was_overwritten(tmp_path):
    replay = filled(25, folder=tmp_path)
    older = {name: value.copy() for name, value in replay.state().items()}
    replay.guard()
    replay.add(rollout(50, 31))
    replay.guard()
    replay.add(rollout(51, 31))
    restored = make(200, folder=tmp_path)
    with pytest.warns(UserWarning, match="rollouts are left out"):
        restored.load_state(older)
    batch = restored.sample(500, 20, np.random.default_rng(0))
    check(batch, 20)
    assert 0 < len(restored) < len(older["starts"])
    assert batch.observations.max() < 50_000, "nothing that came after it"
    with pytest.warns(UserWarning, match="rollouts are left out"):  # and once more, from the same checkpoint
        make(200, folder=tmp_path).load_state(older)


def test_half_a_record_of_the_undo_log_is_no_record(tmp_path):
    replay = filled(25, folder=tmp_path)
    state = {name: value.copy() for name, value in replay.state().items()}
    replay.guard()
    replay.add(rollout(50, 31))
    log = tmp_path / "undo.bin"
    log.write_bytes(log.read_bytes()[:-5])
    with pytest.warns(UserWarning, match="rollouts are left out"):
        make(200, folder=tmp_path).load_state(state)


def test_a_checkpoint_does_not_copy_the_replay(tmp_path):
    replay = filled(25, folder=tmp_path)
    assert sum(array.nbytes for array in replay.state().values()) < 22 * len(replay) + 100


def test_misuse_is_explained():
    with pytest.raises(UsageError, match="empty"):
        make(10).sample(1, 1, np.random.default_rng(0))
    with pytest.raises(UsageError, match="does not fit a replay of 10"):
        make(10).add(rollout(1, 10))
    make(10).add(rollout(1, 9))


def test_slices_of_all_lengths_have_as_many_timesteps():
    """Of 2 to 3 as of 4 to 7 and of 8 to 15: twice as many slices, each about half as long."""
    replay = make(1000)
    for number in range(5):
        replay.add(rollout(number, 100))
    lengths = replay.sample(30_000, 15, np.random.default_rng(0), shortest=2).mask.sum(axis=1)
    assert lengths.min() == 2
    assert lengths.max() == 15
    shares = [((lengths >= low) & (lengths < 2 * low)).mean() for low in (2, 4, 8)]
    assert shares == pytest.approx([4 / 7, 2 / 7, 1 / 7], abs=0.02)
    assert (replay.sample(100, 15, np.random.default_rng(0)).mask.sum(axis=1) == 15).all()


def test_dicts_are_kept_part_by_part(tmp_path):
    rng = np.random.default_rng(0)
    shown = {"image": rng.integers(256, size=(8, 4, 4, 3), dtype=np.uint8), "a/b": rng.normal(size=(8, 2))}
    replay = Replay(30, {name: part[0] for name, part in shown.items()}, np.zeros((), np.int64), tmp_path)
    for _ in range(5):
        replay.add(Rollout(shown, np.arange(7), np.zeros(7, dtype=np.float32), True))
    assert sorted(path.name for path in tmp_path.glob("obs*")) == [
        "observations.a%2Fb.bin",
        "observations.image.bin",
    ]
    batch = replay.sample(4, 7, rng)
    for name, part in shown.items():
        assert batch.observations[name].dtype == part.dtype
        assert all(np.array_equal(one, part) for one in batch.observations[name])
    again = Replay(30, {name: part[0] for name, part in shown.items()}, np.zeros((), np.int64), tmp_path)
    again.load_state(replay.state())
    assert np.array_equal(again.sample(4, 7, rng).observations["a/b"], batch.observations["a/b"])


def drawn(replay, draws, **how):
    """How often each rollout is drawn."""
    numbers = replay.sample(draws, 1, np.random.default_rng(0), **how).observations[:, 0, 0] // 1000
    return dict(zip(*np.unique(numbers, return_counts=True), strict=True))


def test_newer_rollouts_are_drawn_more_often():
    """P(rank < r of n) = (r / n)^(1 / recency), the newest first."""
    replay = make(100)
    for number in range(10):
        replay.add(rollout(number, 1))
    counts = drawn(replay, 100_000, recency=2.0)
    expected = np.diff(np.sqrt(np.arange(11) / 10))
    assert [counts[number] / 1e5 for number in range(9, -1, -1)] == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("recency", [1.0, 3.0])
def test_tasks_are_drawn_alike_whatever_they_have(recency):
    """The first task's rollouts are forgotten on the way; one of the second and 40 of the third are left."""
    replay = make(10_000, rollouts=41)
    numbers = {0: range(30), 1: [30], 2: range(31, 71)}
    for task, own in numbers.items():
        for number in own:
            replay.add(dataclasses.replace(rollout(number, 2), task=task))
    counts = drawn(replay, 40_000, by_task=True, recency=recency)
    assert set(counts) == {30, *range(31, 71)}
    assert counts[30] / 40_000 == pytest.approx(0.5, abs=0.01)
    newer_half = sum(counts[number] for number in range(51, 71)) / (40_000 - counts[30])
    assert newer_half == pytest.approx(0.5 ** (1 / recency), abs=0.01)


def test_all_tasks_have_as_many_timesteps_whatever_their_rollouts_length(tmp_path):
    """One task's rollouts are short, one's longer than a slice. The mean of those that are held counts."""
    replay = make(2000, rollouts=60, folder=tmp_path / "replay")
    for number in range(90):
        task = number % 3
        length = (4 if number < 45 else 8, 16, 60)[task]
        replay.add(dataclasses.replace(rollout(number, length), task=task))
    again = make(2000, rollouts=60, folder=tmp_path / "replay")
    again.load_state(replay.state())
    for held in (replay, again):
        batch = held.sample(30_000, 32, np.random.default_rng(0), by_task=True)
        counts = batch.mask.sum(axis=1)
        in_all = [counts[counts == most].sum() for most in (8, 16, 32)]
        in_all[0] += counts[counts == 4].sum()
        assert in_all / counts.sum() == pytest.approx([1 / 3] * 3, abs=0.02)


@pytest.mark.parametrize("best", [1.0, 50.0])
def test_a_task_has_timesteps_by_what_it_lacks_of_the_best_return(best, tmp_path):
    """The newest rollouts of each tell, of those that are held; a task that is learnt keeps a small share."""
    replay = make(4000, rollouts=300, folder=tmp_path / "replay")
    lengths, before, now = (4, 8, 16), (0.0, 1.0, 0.5), (1.0, 0.5, -0.5)
    for returns in (before, now):
        for number in range(300):
            task = number % 3
            rewards = np.full(lengths[task], best * returns[task] / lengths[task], dtype=np.float32)
            replay.add(dataclasses.replace(rollout(task, lengths[task]), task=task, rewards=rewards))
    again = make(4000, rollouts=300, folder=tmp_path / "replay")
    again.load_state(replay.state())
    for held in (replay, again):
        batch = held.sample(30_000, 8, np.random.default_rng(0), by_task=True, best_return=best)
        counts = batch.mask.sum(axis=1)
        tasks = batch.observations[:, 0, 0] // 1000
        in_all = np.array([counts[tasks == task].sum() for task in range(3)])
        assert in_all / counts.sum() == pytest.approx(np.array([0.4, 0.5, 1.5]) / 2.4, abs=0.01)


@pytest.mark.parametrize("timesteps", [1, 100, 10**6])
def test_a_batch_ends_with_the_slice_that_reaches_its_timesteps(timesteps):
    replay = make(2000)
    for number in range(50):
        replay.add(rollout(number, 5 + number % 20))
    whole, batch = (replay.sample(40, 16, np.random.default_rng(0), timesteps=most) for most in (None, timesteps))
    counts = batch.mask.sum(axis=1)
    assert counts[:-1].sum() < timesteps
    assert counts.sum() >= timesteps or len(counts) == 40
    assert batch.mask.shape[1] == counts.max()
    assert np.array_equal(batch.rewards, whole.rewards[: len(counts), : counts.max() + 1])
    assert np.array_equal(batch.first_step, whole.first_step[: len(counts)])


def test_a_number_of_rollouts_can_be_the_limit(tmp_path):
    replay = make(1000, rollouts=3, folder=tmp_path / "replay")
    for number in range(8):
        replay.add(rollout(number, 1 + 10 * number))
    assert set(drawn(replay, 1000)) == {5, 6, 7}
    again = make(1000, rollouts=3, folder=tmp_path / "replay")
    again.load_state(replay.state())
    assert drawn(again, 1000, by_task=True) == drawn(replay, 1000, by_task=True)
    again.add(rollout(8, 2))
    assert set(drawn(again, 1000, by_task=True)) == {6, 7, 8}
