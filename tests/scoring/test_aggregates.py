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
    function = agg.AGGREGATES[name].of
    stacked = RNG.normal(size=(7, 5, 13))
    assert function(stacked) == pytest.approx([float(function(scores)) for scores in stacked])


def test_a_profile_is_the_survival_function():
    thresholds = np.linspace(-1, 2, 31)
    expected = 1 - stats.ecdf(SCORES.ravel()).cdf.evaluate(thresholds)
    assert agg.performance_profile(SCORES, thresholds) == pytest.approx(expected)


def test_a_score_at_a_threshold_is_not_above_it():
    assert agg.performance_profile(np.array([[0.5, 1.0]]), np.array([0.25, 0.5, 1.0])).tolist() == [1.0, 0.5, 0.0]


def test_the_iqm_comes_first():
    assert list(agg.AGGREGATES) == ["IQM", "median", "mean", "optimality gap"]
