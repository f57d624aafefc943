"""The layouts of BabyAI that repeat, and the shares and splits that the suite declares for them."""

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest

pytest.importorskip("minigrid")

from mtbench.registration import TABLE
from mtbench.suite import load_suite
from mtbench.suites.babyai import DISTINCT_TASKS, SUITE, TRAIN_TASKS
from mtbench.suites.babyai.layouts import Layouts
from mtbench.suites.procgen import SUITES as PROCGEN

from ..paths import ROOT

MEASURED = pd.read_csv(ROOT / "results" / "babyai" / "repeats.csv").set_index("task")
TASK = "BabyAI-OneRoomS8-v0"  # quick to draw, and many of its layouts repeat


def looks(seeds):
    layouts = Layouts(TASK)
    return [(world.tobytes(), mission) for world, mission in map(layouts.draw, seeds)]


def test_listed_seeds_repeat_nothing_and_others_do_as_often_as_measured():
    split = SUITE.splits["train-distinct"]
    training = set(looks(range(split.variants.start, split.variants.stop)))
    listed = looks(split.evaluation.values)
    assert training.isdisjoint(listed)
    assert len(set(listed)) == len(listed) == 500
    others = looks(np.random.default_rng(1).integers(5001, 300_000, size=400).tolist())
    share = SUITE.seen_variants["train"][TASK]
    assert share == MEASURED.loc[TASK, "repeated_share"]
    assert np.mean([one in training for one in others]) == pytest.approx(share, abs=0.08)  # four standard errors


def test_a_split_evaluates_on_seeds_that_training_does_not_play():
    train, distinct = SUITE.splits["train"], SUITE.splits["train-distinct"]
    assert distinct.variants == train.variants
    assert all(seed in train.evaluation for seed in distinct.evaluation.values)
    repeated = MEASURED.loc[[task for task in TRAIN_TASKS if task in MEASURED.index], "repeated_share"]
    assert set(TRAIN_TASKS) - set(DISTINCT_TASKS) == set(repeated.index[repeated > 0.9])
    assert distinct.tasks == DISTINCT_TASKS
    env = gym.make("mtbench:MTBabyAI-v0", split="train-distinct")
    env.reset(seed=0, options={"variant": distinct.evaluation.values[0]})
    assert env.unwrapped.variant == distinct.evaluation.values[0]
    with pytest.raises(ValueError, match="BabyAI-OpenRedDoor-v0"):
        gym.make("mtbench:MTBabyAI-v0", split="train-distinct", tasks=["BabyAI-OpenRedDoor-v0"])


def test_shares_are_those_measured():
    train = MEASURED[MEASURED["split"] == "train"]
    assert dict(SUITE.seen_variants["train"]) == train["repeated_share"].to_dict()
    assert SUITE.seen_variants["train"]["BabyAI-OpenRedDoor-v0"] == 1.0
    levels = pd.read_csv(ROOT / "results" / "procgen" / "overlap.csv").set_index(["game", "mode"])
    for suite in PROCGEN.values():
        for game, mode in suite.modes.items():
            percent = levels.loc[(game, mode), "test_levels_seen_in_training_percent"]
            assert suite.seen_variants["test"][game] == pytest.approx(percent / 100)


@pytest.mark.parametrize("name", sorted({row.kwargs["suite"] for row in TABLE}))
def test_what_a_suite_says_of_variants_and_tasks_is_of_its_own(name):
    suite = load_suite(name)
    assert suite.seen_variants.keys() <= suite.splits.keys()
    for split, shares in suite.seen_variants.items():
        assert shares.keys() <= {*suite.splits[split].tasks, *suite.splits[split].extra_tasks}
        assert all(0 <= share <= 1 for share in shares.values())
    assert suite.remarks.keys() <= suite.tasks.keys()


def test_layouts_that_cannot_be_solved_are_mentioned():
    assert SUITE.remarks.keys() == {"BabyAI-Unlock-v0", "BabyAI-GoToImpUnlock-v0"}
    assert "2.2 % of its layouts" in SUITE.remarks["BabyAI-Unlock-v0"]
