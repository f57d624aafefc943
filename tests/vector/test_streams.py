"""Compiled streams give the same numbers as the installed NumPy, bit for bit."""

import numpy as np
import pytest

pytest.importorskip("numba")

from mtbench.vector import streams
from mtbench.vector.compiled import compiled

SEEDS = [0, 1, 2, 7, 12345, 2**29 + 5, 2**31 - 1, 2**32 - 1]


def seeded(seed):
    stream = np.zeros(1, streams.STREAM)
    streams.seed(stream[0], seed)
    return stream[0], np.random.default_rng(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_gives_numpys_state(seed):
    ours, theirs = seeded(seed)
    expected = np.zeros(1, streams.STREAM)
    streams.set_state(expected[0], theirs)
    assert ours == expected[0]


def test_it_goes_on_where_a_generator_stands():
    stream, generator = np.zeros(1, streams.STREAM), np.random.default_rng(2**200)
    generator.integers(5)  # leaves half a draw
    streams.set_state(stream[0], generator)
    for _ in range(5):
        assert streams.below(stream[0], 1000) == generator.integers(1000)


@pytest.mark.parametrize("seed", SEEDS)
def test_draws_are_numpys_in_any_order(seed):
    ours, theirs = seeded(seed)
    which = np.random.default_rng(seed + 1)
    for _ in range(400):
        method, count = which.integers(5), int(which.integers(1, 900))
        if method == 0:
            assert streams.below(ours, count) == theirs.integers(count)
        elif method == 1:
            assert streams.random(ours) == theirs.random()
        elif method == 2:
            assert streams.random_float32(ours) == theirs.random(dtype=np.float32)
        elif method == 3:
            assert streams.standard_normal(ours) == theirs.standard_normal()
        else:
            mine, yours = np.arange(count, dtype=np.uint16), np.arange(count)
            streams.shuffle(ours, mine, count)
            theirs.shuffle(yours)
            assert mine.tolist() == yours.tolist()


@pytest.mark.parametrize("count", [2**29, 2**31 + 1, 2**32 - 1])
def test_large_ranges_reject_as_numpy_does(count):
    """For a range just above 2**31, nearly half of all draws are rejected."""
    ours, theirs = seeded(3)
    assert [streams.below(ours, count) for _ in range(200)] == theirs.integers(count, size=200).tolist()


@compiled
def _many_normals(stream, out):
    for i in range(len(out)):
        out[i] = streams.standard_normal(stream)


def test_normals_are_numpys_out_to_the_tails():
    ours, theirs = seeded(5)
    mine, yours = np.empty(1_000_000), theirs.standard_normal(1_000_000)
    _many_normals(ours, mine)
    assert np.array_equal(mine, yours)
    assert (np.abs(mine) > 3.66).sum() > 100, "the tail beyond the last layer is among them"


def test_streams_do_not_touch_each_other():
    both = np.zeros(2, streams.STREAM)
    streams.seed(both[0], 1)
    streams.seed(both[1], 1)
    before = both[1].copy()
    streams.below(both[0], 7)
    assert both[1] == before
