"""Against scipy, closed forms, and the committed simulation of coverage."""

import importlib.util
import itertools

import numpy as np
import pytest
from scipy import stats

from mtbench.scoring import aggregates as agg
from mtbench.scoring.intervals import (
    METHODS,
    Sample,
    bootstrap,
    jackknife,
    percentiles,
    t_quantile,
)
from tests.paths import RESULTS

RNG = np.random.default_rng(0)


def sample(values, method="jackknife", replicates=500):
    return Sample(values, method, replicates=replicates, rng=np.random.default_rng(0))


def over_runs(means):
    return means[..., 0].mean(axis=-2)


@pytest.mark.parametrize("df", [1, 1.37, 2, 2.5, 3, 4, 7.2, 9, 30, 999, 12_345.6])
def test_t_quantiles_are_scipys(df):
    assert t_quantile(df) == pytest.approx(stats.t.ppf(0.975, df), rel=1e-9)


@pytest.mark.parametrize("runs", [2, 3, 5, 10])
def test_a_linear_statistic_has_students_interval(runs):
    values = RNG.normal(size=(runs, 4, 3, 1))
    means = values.mean(axis=2)[..., 0]
    found = sample(values).estimate(over_runs)
    for task in range(4):
        expected = stats.t.interval(0.95, runs - 1, means[:, task].mean(), stats.sem(means[:, task]))
        assert (found[task].low, found[task].high) == pytest.approx(expected)


def test_runs_stay_whole():
    """A shared effect of runs: the mean over tasks is as uncertain as one task, not less."""
    values = np.repeat(RNG.normal(size=(5, 1, 1, 1)), 27, axis=1)
    found = sample(values)
    whole = found.estimate(lambda v: agg.mean(v[..., 0]))[()]
    one = found.estimate(over_runs)[3]
    assert whole.high - whole.low == pytest.approx(one.high - one.low)
    old = sample(values, "stratified-bootstrap").estimate(lambda v: agg.mean(v[..., 0]))[()]
    assert old.high - old.low < (whole.high - whole.low) / 4


def test_the_jackknife_is_its_definition():
    values = RNG.normal(size=(5, 6))
    without = [agg.interquartile_mean(np.delete(values, i, axis=0)) for i in range(5)]
    expected = np.sqrt(4 / 5 * ((without - np.mean(without)) ** 2).sum())
    assert jackknife(agg.interquartile_mean, values) == pytest.approx(expected)


@pytest.mark.parametrize(("runs", "deleted"), [(4, 2), (6, 3)])
def test_deleting_several_runs_is_shao_and_wus(runs, deleted):
    values = RNG.normal(size=(runs, 6))
    kept = list(itertools.combinations(range(runs), runs - deleted))
    without = np.array([agg.median(values[list(subset)]) for subset in kept])
    expected = np.sqrt((runs - deleted) / (deleted * len(kept)) * ((without - without.mean()) ** 2).sum())
    assert jackknife(agg.median, values, deleted) == pytest.approx(expected)
    # Of a mean, any number of deleted runs gives the standard error.
    assert jackknife(agg.mean, values, deleted) == pytest.approx(stats.sem(values.mean(axis=1)))


def test_many_runs_are_deleted_in_a_sample_of_subsets():
    values = RNG.normal(size=(20, 5))
    found = jackknife(agg.mean, values, 10, np.random.default_rng(0))
    assert found == pytest.approx(stats.sem(values.mean(axis=1)), rel=0.1)


@pytest.mark.parametrize("name", agg.AGGREGATES)
@pytest.mark.parametrize("shape", [(1, 6, 8, 2), (1, 6, 1, 1), (2, 6, 4, 1), (3, 6, 1, 2), (8, 5, 2, 1)])
def test_intervals_contain_their_estimates(name, shape):
    aggregate = agg.AGGREGATES[name]
    values = RNG.exponential(0.5, size=shape)
    found = sample(values).estimate(lambda v: aggregate.of(v[..., -1]), aggregate.least, smooth=aggregate.smooth)[()]
    assert found.low <= found.value <= found.high


def test_an_optimality_gap_near_zero_is_in_its_interval():
    """Replicates of a gap at its end are all larger than the estimate; a percentile interval leaves it out."""
    rollouts = RNG.normal(0, 0.3, size=(1, 20, 30, 1))
    values = 1 + rollouts - rollouts.mean(axis=2, keepdims=True)  # each task's mean is 1
    gap = agg.AGGREGATES["optimality gap"]
    old = sample(values, "stratified-bootstrap").estimate(lambda v: gap.of(v[..., 0]), gap.least)[()]
    new = sample(values).estimate(lambda v: gap.of(v[..., 0]), gap.least)[()]
    assert new.value == pytest.approx(0, abs=1e-12)
    assert old.low > new.value + 0.001
    assert new.low <= new.value < new.high


def test_shares_stay_shares():
    values = np.array([1.0, 1.0, 0.9])[:, None, None, None]
    found = sample(values).estimate(over_runs, 0.0, 1.0)[0]
    assert found.high == 1.0
    assert 0 < found.low < found.value


def test_shares_that_tie_have_the_width_of_rounding():
    values = np.full((3, 4, 1, 1), 0.5)
    found = sample(values).estimate(over_runs, 0.0, 1.0, step=1 / 27)[0]
    assert found.high - found.value == pytest.approx(t_quantile(2) / 27 / 12**0.5 / 3**0.5)
    assert sample(values).estimate(over_runs)[0].high == 0.5


def test_one_runs_interval_is_nearly_scipys_bootstrap():
    values = RNG.normal(size=(1, 1, 60, 1))
    found = sample(values, replicates=8000).estimate(over_runs)[0]
    theirs = stats.bootstrap(
        (values.ravel(),), np.mean, n_resamples=8000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx(tuple(theirs), abs=0.02)


def test_one_runs_interval_has_the_width_of_few_rollouts():
    """A bootstrap of n rollouts has (n - 1) / n of the variance it should have."""
    values = RNG.normal(size=(1, 400, 3, 1))
    found = sample(values, replicates=2000).estimate(lambda v: agg.mean(v[..., 0]))[()]
    error = np.sqrt(values[0, :, :, 0].var(axis=1, ddof=1).sum() / 3) / 400
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.1)


def test_draws_come_from_the_generator_given():
    values = RNG.normal(size=(1, 3, 20, 2))
    one, two, three = (bootstrap(values, 50, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


# ---- the stratified bootstrap ----


def test_several_runs_are_resampled_within_each_task():
    values = RNG.normal(size=(6, 2, 3, 2))
    replicated = bootstrap(values, 4000, np.random.default_rng(0))
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
    replicated = bootstrap(values, 100, np.random.default_rng(0))
    np.testing.assert_allclose(replicated.sum(axis=-1), 0, atol=1e-12)


def test_its_interval_is_the_central_part_of_the_replicates():
    values = RNG.normal(size=(4, 3, 2, 1))
    found = sample(values, "stratified-bootstrap").estimate(over_runs)
    low, high = percentiles(over_runs(bootstrap(values, 500, np.random.default_rng(0))))
    assert np.array_equal(found.low, low)
    assert np.array_equal(found.high, high)


# ---- the simulation ----


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("simulated_coverage", RESULTS / "intervals" / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_committed_coverage_is_between_92_and_98_percent(simulation):
    rows = [
        row
        for row in simulation.read_table()
        if (row["tasks"], row["method"]) == ("spread", "jackknife") and row["statistic"] in agg.AGGREGATES
    ]
    cases = {(float(row["shared"]), int(row["runs"])) for row in rows if row["runs"] != "1"}
    assert cases == set(itertools.product((0.0, simulation.NOISE), (2, 3, 5, 10)))
    assert len(rows) == 4 * (len(cases) + 1)
    for row in rows:
        assert 0.92 <= float(row["coverage"]) <= 0.98, row


@pytest.mark.parametrize(("shared", "runs"), [(0.0, 2), (0.2, 3), (0.2, 10)])
def test_the_committed_coverage_comes_out_again(simulation, shared, runs):
    committed = {
        (row["method"], row["statistic"]): float(row["coverage"])
        for row in simulation.read_table()
        if (row["tasks"], float(row["shared"]), int(row["runs"])) == ("spread", shared, runs)
    }
    experiments = 60
    found = simulation.simulate("spread", shared, runs, experiments)
    assert {(row["method"], row["statistic"]) for row in found} == set(committed)
    assert {row["method"] for row in found} == set(METHODS)
    for row in found:
        expected = committed[row["method"], row["statistic"]]
        error = np.sqrt(max(expected * (1 - expected), 0.02) / experiments)
        assert abs(float(row["coverage"]) - expected) < 4.5 * error, row
