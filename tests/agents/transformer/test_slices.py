"""Packed rows hold every slice once, whole, and nothing else; fixed shapes are few."""

import numpy as np
import pytest
import torch
from mtbench_agents.transformer.replay import Batch, Replay, Rollout
from mtbench_agents.transformer.slices import prepare

CPU = torch.device("cpu")


def sampled(lengths, size, context, seed=0, shape=(2,), dtype=np.float32):
    """Slices of rollouts whose every number is unique."""
    rng = np.random.default_rng(seed)
    replay, begin = Replay(20_000, np.zeros(shape, dtype), np.zeros((), np.int64)), 0
    for length in lengths:
        numbers = np.arange(begin, begin + length + 1)
        observations = np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (length + 1, *shape)).astype(dtype)
        replay.add(Rollout(observations, numbers[1:], numbers[1:].astype(np.float32), bool(rng.integers(2))))
        begin += length + 1
    return replay.sample(size, context, rng)


def in_places(s):
    """Observations ``(R, W, ...)``, NaN where there is none."""
    rows, width = s.steps.shape
    there = torch.arange(rows * width) if s.there is None else s.there
    placed = torch.full((rows * width, *s.observations.shape[1:]), torch.nan)
    placed[there[s.exists]] = s.observations[s.exists].float()
    return placed.view(rows, width, *s.observations.shape[1:])


@pytest.mark.parametrize("fixed", [None, 40])
@pytest.mark.parametrize("lengths", [[3, 5, 9, 40, 39, 12, 7], [40] * 6, [200, 300]])
def test_every_slice_is_there_once(lengths, fixed):
    batch = sampled(lengths, 24, 40)
    prepared = prepare(batch, CPU, fixed)
    s = prepared.slices
    counts = batch.mask.sum(axis=1)
    assert prepared.tokens == counts.sum()
    real = torch.ones(len(s.row), dtype=torch.bool) if s.weight is None else s.weight == 1
    assert real.sum() == prepared.tokens
    assert s.exists.sum() == (counts + 1).sum()
    row, place = s.row[real], s.place[real]
    observations = in_places(s)
    following = torch.stack([observations[row, place, 0], s.rewards[row, place + 1], s.actions[row, place + 1]])
    wanted = [
        (batch.observations[i, t, 0], batch.rewards[i, t + 1], batch.actions[i, t + 1], batch.terminated[i, t])
        for i in range(24)
        for t in range(counts[i])
    ]
    found = [(*map(float, column), bool(end)) for column, end in zip(following.T, s.terminated[real], strict=True)]
    assert sorted(found) == sorted(wanted)
    if fixed is None:
        assert found == [tuple(w) for w in wanted], "in the batch's order, which fixes the random draws"
    assert (s.exists.all() and len(s.exists) == (counts + 1).sum()) or fixed, "padding is not encoded"
    at = torch.arange(s.steps.numel()) if s.there is None else s.there
    if s.segment is not None:
        assert torch.equal(s.segment.flatten()[at][s.exists], s.sequence[s.exists])
    first = torch.from_numpy(batch.first_step)
    for i in range(24) if s.segment is not None else ():
        assert s.steps[s.segment == i].tolist() == list(range(first[i], first[i] + counts[i] + 1))


def test_short_slices_share_rows():
    batch = sampled([5, 9, 14, 30], 24, 40)
    prepared = prepare(batch, CPU, 40)
    rows, width = prepared.slices.rewards.shape
    assert rows < 24
    assert (prepared.tokens + 24) / (rows * width) > 0.75, "rows are nearly full"
    assert prepare(sampled([40], 24, 40), CPU, 40).slices.segment is None, "a slice in each row: plain causal attention"


def test_fixed_shapes_are_few():
    rng = np.random.default_rng(0)
    shapes = set()
    for seed in range(60):
        s = prepare(sampled(rng.integers(1, 60, size=9), 24, 40, seed), CPU, 40).slices
        shapes.add((tuple(s.observations.shape[:2]), len(s.row), s.segment is None))
    assert len(shapes) <= 9


@pytest.mark.parametrize("n", [1, 2, 50])
def test_a_target_looks_no_further_than_its_slice(n):
    batch = sampled([6, 11, 30], 12, 20)
    s = prepare(batch, CPU, None, n).slices
    at = 0
    for i, count in enumerate(batch.mask.sum(axis=1)):
        for t in range(count):
            ahead = min(n, count - t)
            assert s.ahead[at] == ahead
            assert bool(s.terminated[at]) == bool(batch.terminated[i, t + ahead - 1])
            at += 1


def test_images_stay_bytes():
    batch = sampled([5, 9], 8, 12, shape=(3, 3, 1), dtype=np.uint8)
    assert prepare(batch, CPU, 12).slices.observations.dtype == torch.uint8


def test_numbers_that_are_not_finite_are_told():
    batch = sampled([5, 9], 8, 12)
    batch.rewards[2, 1] = np.inf
    assert prepare(batch, CPU).fault == "The replay's rewards are not finite"
    assert isinstance(batch, Batch)
