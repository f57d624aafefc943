"""The experts show that every task can be solved in this package's environments."""

import numpy as np
import pytest
from scipy import stats

from mtbench.evaluation import evaluate
from mtbench.scoring.references import load_references
from mtbench.suites.popgym import SUITE, TASKS
from tests.paths import committed as recorded

EXACT = ("Autoencode", "RepeatPrevious", "RepeatFirst", "CountRecall", "MineSweeper")
PLAYED = {name: TASKS[name] for name in SUITE.splits["test"].tasks}


@pytest.fixture(scope="module")
def returns(tmp_path_factory):
    """Second-attempt returns of the oracle by task, from a new run."""
    run = evaluate("MTPOPGym-v0", "oracle", tmp_path_factory.mktemp("oracle") / "run", rollouts_per_task=20)
    last = run.episodes[run.episodes["attempt"] == 2]
    return {task: last[last["task"] == task]["return"].to_numpy() for task in PLAYED}


@pytest.mark.parametrize("task", [name for name, task in PLAYED.items() if task.family in EXACT])
def test_every_answer_is_right(returns, task):
    # Up to the rounding of adding 1/n n times.
    np.testing.assert_allclose(returns[task], 1.0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("task", [name for name, task in PLAYED.items() if "Cart" in task.family])
def test_every_pole_is_balanced(returns, task):
    assert returns[task].min() >= 0.99


def committed(task):
    run = recorded("MTPOPGym-v0/oracle")
    rows = run.episodes[(run.episodes["task"] == task) & (run.episodes["attempt"] == 2)]
    return rows["return"].to_numpy()


@pytest.mark.parametrize(("task", "arms"), [("MultiarmedBanditEasy", 10), ("MultiarmedBanditMedium", 20)])
def test_the_bandit_earns_the_best_arm(task, arms):
    """E[max of n uniforms] = n / (n + 1) pays 2 n / (n + 1) - 1 = (n - 1) / (n + 1)."""
    values = committed(task)
    assert abs(values.mean() - (arms - 1) / (arms + 1)) < 4 * stats.sem(values)


def best_higher_lower(decks):
    """The exact expected return of counting cards, which no player without knowledge of the deck's order beats.

    With t cards seen, the current one of rank c, the others seen are a hypergeometric sample; the bet on the side
    with more unseen cards gains |higher - lower| / unseen on average, and every guess weighs 1 / cards.
    """
    cards, total = 52 * decks, 0.0
    for rank in range(13):
        low, high = 4 * decks * rank, 4 * decks * (12 - rank)
        lows, highs = np.arange(low + 1)[:, None], np.arange(high + 1)[None, :]
        for seen in range(1, cards):
            p_low = stats.hypergeom.pmf(lows, cards - 1, low, seen - 1)
            others = np.clip(seen - 1 - lows, 0, cards - 1 - low)  # outside, p_low is 0
            probability = p_low * stats.hypergeom.pmf(highs, cards - 1 - low, high, others)
            gain = np.abs((high - highs) - (low - lows)) / (cards - seen)
            total += float((probability * gain).sum()) / 13 / cards
    return total


def test_higher_lower_counts_cards_perfectly():
    """The published 0.529 on Easy is a maximum over training curves: no player reaches it on average."""
    best = best_higher_lower(1)
    values = committed("HigherLowerEasy")
    assert abs(values.mean() - best) < 4 * stats.sem(values)
    published = load_references("popgym").scales["published"].high["HigherLowerEasy"].value
    assert best == pytest.approx(0.5276, abs=1e-4)
    assert best < published < best + 0.002


@pytest.mark.parametrize("task", PLAYED)
def test_the_oracle_reaches_the_best_published_score(task):
    """Within the noise of 1000 rollouts where both are the same optimum (HigherLower)."""
    values = committed(task)
    high = load_references("popgym").scales["published"].high[task].value
    assert values.mean() + 2 * stats.sem(values) >= high - 1e-12


@pytest.mark.parametrize("task", PLAYED)
def test_the_shipped_reference_agrees_with_the_committed_run(task):
    """The two have different numbers of rollouts, so they agree up to chance."""
    values, anchor = committed(task), load_references("popgym").scales["oracle"].high[task]
    assert abs(values.mean() - anchor.value) <= 4 * (stats.sem(values) ** 2 + anchor.sem**2) ** 0.5 + 1e-5


def test_a_suite_without_an_oracle_is_told():
    from mtbench_agents.oracle import Oracle

    from mtbench.rollout import MetaRollout
    from tests import toy

    with pytest.raises(ValueError, match="no oracle for the suite 'toy'"):
        Oracle().bind([MetaRollout(toy.SUITE)])
