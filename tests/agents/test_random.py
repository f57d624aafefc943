"""The random policy through our wrapper against the games' own random scores, measured without it."""

import pytest
from scipy import stats

from mtbench.evaluation import evaluate
from mtbench.suite import read_data
from mtbench.suites.popgym import TASKS

REFERENCES = read_data("mtbench.suites.popgym", "references.json")["tasks"]


@pytest.fixture(scope="module")
def returns(tmp_path_factory):
    out = tmp_path_factory.mktemp("random") / "run"
    run = evaluate("MTPOPGym-v0", "random", out, rollouts_per_task=150, seed=1)
    last = run.episodes[run.episodes["attempt"] == 2]
    return {task: last[last["task"] == task]["return"].to_numpy() for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_random_scores_agree_within_four_standard_errors(returns, task):
    values, reference = returns[task], REFERENCES[task]["random_popgym"]
    error = (stats.sem(values) ** 2 + reference["sem"] ** 2) ** 0.5
    assert abs(values.mean() - reference["mean"]) < 4 * error


@pytest.mark.parametrize("task", TASKS)
def test_the_anchor_agrees_with_the_games_own_random_score(task):
    anchor, own = REFERENCES[task]["random"], REFERENCES[task]["random_popgym"]
    assert abs(anchor["mean"] - own["mean"]) < 4 * (anchor["sem"] ** 2 + own["sem"] ** 2) ** 0.5
