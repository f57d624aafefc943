"""Against scipy and closed forms."""

import numpy as np
import pytest
from scipy import stats

from mtbench.scoring import aggregates as agg

RNG = np.random.default_rng(0)
SCORES = RNG.normal(0.5, 0.4, size=(5, 13))


def test_point_estimates_equal_scipys():
    assert agg.mean(SCORES) == pytest.approx(SCORES.mean())
    assert agg.median(SCORES) == pytest.approx(np.median([column.mean() for column in SCORES.T]))
    assert agg.optimality_gap(SCORES) == pytest.approx(np.mean([max(0.0, 1 - s) for s in SCORES.ravel()]))


@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (1, 4), (2, 5), (5, 13), (3, 27)])
def test_iqm_is_the_trimmed_mean(shape):
    scores = RNG.normal(size=shape)
    assert agg.interquartile_mean(scores) == pytest.approx(stats.trim_mean(scores.ravel(), 0.25))


@pytest.mark.parametrize("name", agg.AGGREGATES)
def test_aggregates_take_replicates(name):
    function = agg.AGGREGATES[name]
    stacked = RNG.normal(size=(7, 5, 13))
    assert function(stacked) == pytest.approx([float(function(scores)) for scores in stacked])


def test_a_profile_is_the_survival_function():
    thresholds = np.linspace(-1, 2, 31)
    expected = 1 - stats.ecdf(SCORES.ravel()).cdf.evaluate(thresholds)
    assert agg.performance_profile(SCORES, thresholds) == pytest.approx(expected)


def test_probability_of_improvement_is_mann_whitneys():
    x = [RNG.integers(0, 6, 9).astype(float) for _ in range(4)]
    y = [RNG.integers(1, 7, 11).astype(float) for _ in range(4)]
    estimate, _ = agg.probability_of_improvement(x, y, 10, np.random.default_rng(0))
    expected = np.mean([stats.mannwhitneyu(a, b).statistic / (len(a) * len(b)) for a, b in zip(x, y, strict=True)])
    assert estimate == pytest.approx(expected)


def test_an_agent_is_as_likely_worse_as_better_than_itself():
    x = [RNG.normal(size=20) for _ in range(3)]
    estimate, replicated = agg.probability_of_improvement(x, x, 500, np.random.default_rng(0))
    assert estimate == pytest.approx(0.5)
    assert abs(replicated.mean() - 0.5) < 4 * replicated.std() / 500**0.5


def test_improvement_replicates_spread_as_scipys():
    x, y = [RNG.normal(0.3, 1, 30)], [RNG.normal(0, 1, 40)]
    _, replicated = agg.probability_of_improvement(x, y, 4000, np.random.default_rng(0))
    ours = agg.interval(replicated)

    def statistic(a, b, axis):
        return stats.mannwhitneyu(a, b, axis=axis).statistic / (30 * 40)

    theirs = stats.bootstrap(
        (x[0], y[0]), statistic, n_resamples=4000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.02)


def test_one_runs_interval_equals_scipys_bootstrap():
    values = RNG.exponential(size=(1, 1, 60, 1))
    ours = agg.interval(agg.mean(agg.bootstrap(values, 8000, np.random.default_rng(0))[..., 0]))
    theirs = stats.bootstrap(
        (values.ravel(),), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert ours == pytest.approx(tuple(theirs), abs=0.02)


def test_several_runs_are_resampled_within_each_task():
    values = RNG.normal(size=(6, 2, 3, 2))
    replicated = agg.bootstrap(values, 4000, np.random.default_rng(0))
    means = values.mean(axis=2)
    assert replicated.shape == (4000, 6, 2, 2)
    for task in range(2):
        assert np.isin(replicated[:, :, task, 0], means[:, task, 0]).all()
    # The variance of a bootstrap mean is the population variance over n; tasks are drawn apart.
    spread = replicated.mean(axis=1)
    np.testing.assert_allclose(spread.var(axis=0), means.var(axis=0) / 6, rtol=0.1)
    assert abs(np.corrcoef(spread[:, 0, 0], spread[:, 1, 0])[0, 1]) < 0.07


def test_attempts_of_a_rollout_stay_together():
    values = RNG.normal(size=(1, 1, 50, 1)) * np.array([1.0, -1.0])
    replicated = agg.bootstrap(values, 100, np.random.default_rng(0))
    np.testing.assert_allclose(replicated.sum(axis=-1), 0, atol=1e-12)


def test_the_interval_covers_as_often_as_it_says():
    covered = 0
    for i in range(300):
        rng = np.random.default_rng(i)
        values = rng.normal(1.0, 1.0, size=(1, 1, 80, 1))
        low, high = agg.interval(agg.bootstrap(values, 400, rng)[:, 0, 0, 0])
        covered += low <= 1.0 <= high
    assert 0.90 < covered / 300 < 0.98


def test_draws_come_from_the_generator_given():
    values = RNG.normal(size=(1, 3, 20, 2))
    one, two, three = (agg.bootstrap(values, 50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)
