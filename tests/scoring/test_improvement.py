"""Probability of improvement against scipy and by hand."""

import numpy as np
import pytest
from scipy import stats

from mtbench.scoring.improvement import improvement, stratified
from mtbench.scoring.intervals import percentiles

RNG = np.random.default_rng(0)


def of(x, y, method="jackknife"):
    return improvement(np.asarray(x, float), np.asarray(y, float), method, rng=np.random.default_rng(0))


def test_it_is_mann_whitneys():
    x = [RNG.integers(0, 6, 9).astype(float) for _ in range(4)]
    y = [RNG.integers(1, 7, 11).astype(float) for _ in range(4)]
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)])
    assert stratified(x, y, 10, np.random.default_rng(0))[0] == pytest.approx(expected)
    assert of([x], [y]).value == pytest.approx(expected)


def test_several_runs_are_compared_by_their_means():
    """Rollouts overlap, the means of runs do not."""
    x, y = np.tile([[0.0, 10.0]], (2, 1, 1)) + 1, np.tile([[0.0, 10.0]], (3, 1, 1))
    assert of(x, y).value == 1.0
    assert of(x[:1], y[:1]).value == pytest.approx(3 / 4)


def test_three_runs_against_one_compare_rollouts():
    x, y = RNG.normal(size=(3, 2, 5)), RNG.normal(size=(1, 2, 7))
    expected = np.mean([stats.mannwhitneyu(x[:, t].ravel(), y[0, t]).statistic / (15 * 7) for t in range(2)])
    assert of(x, y).value == pytest.approx(expected)
    assert of(y, x).value == pytest.approx(1 - expected)
    assert of(x, y, "stratified-bootstrap").value == pytest.approx(expected)
    # Runs of the first agent, of which each plays all tasks alike, are still resampled whole.
    same = np.repeat(RNG.normal(size=(3, 1, 1)), 20, axis=1).repeat(5, axis=2)
    other = np.tile(np.linspace(-2, 2, 7), (1, 20, 1))
    whole, apart = of(same, other), of(same, other, "stratified-bootstrap")
    assert whole.high - whole.low > 2 * (apart.high - apart.low)


@pytest.mark.parametrize("shapes", [((1, 3, 8), (1, 3, 9)), ((3, 3, 4), (2, 3, 4)), ((4, 3, 2), (1, 3, 5))])
def test_turned_round_it_is_the_rest(shapes):
    x, y = (RNG.normal(size=shape) for shape in shapes)
    one, two = of(x, y), of(y, x)
    assert (one.value, one.low, one.high) == pytest.approx((1 - two.value, 1 - two.high, 1 - two.low))
    assert 0 <= one.low <= one.value <= one.high <= 1


def test_one_run_each_has_the_spread_of_delongs_method():
    x, y = RNG.normal(0.2, 1, size=(1, 1, 400)), RNG.normal(size=(1, 1, 300))
    found = of(x, y)
    _, replicated = stratified([x[0, 0]], [y[0, 0]], 2000, np.random.default_rng(0))
    assert found.high - found.low == pytest.approx(np.subtract(*percentiles(replicated)[::-1]), rel=0.1)


def test_no_spread_is_no_width():
    found = of(np.ones((2, 3, 2)), np.zeros((2, 3, 2)))
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    one = of(np.ones((1, 3, 1)), np.ones((1, 3, 1)))
    assert (one.value, one.low, one.high) == (0.5, 0.5, 0.5)


def test_its_stratified_replicates_spread_as_scipys():
    x, y = [RNG.normal(0.3, 1, 30)], [RNG.normal(0, 1, 40)]
    _, replicated = stratified(x, y, 4000, np.random.default_rng(0))

    def statistic(a, b, axis):
        return stats.mannwhitneyu(a, b, axis=axis).statistic / (30 * 40)

    theirs = stats.bootstrap(
        (x[0], y[0]), statistic, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert percentiles(replicated) == pytest.approx(tuple(theirs), abs=0.02)
