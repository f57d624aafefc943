import itertools

import numpy as np
import pytest

from mtbench.cases import USES, case_variants, evaluation_cases
from mtbench.registration import TABLE
from mtbench.suite import load_suite
from mtbench.suites.popgym import SUITE, TASKS

SHORT = ["RepeatFirstEasy", "PositionOnlyCartPoleEasy", "MineSweeperEasy"]
SUITES = sorted({row.kwargs["suite"] for row in TABLE} | {"procgen-hard", "procgen-memory"})


def keyed(cases):
    return {(c.task, c.rollout): c for c in cases}


def variants_of(suite, split, use):
    """Every variant of a few cases of each task of a split."""
    tasks = suite.splits[split].tasks
    return {v for c in evaluation_cases(suite, split, tasks, 50, 2, use) for v in c.variants}


def test_every_task_gets_the_same_number_of_distinct_cases():
    cases = evaluation_cases(SUITE, "test", list(TASKS), 10, 2)
    assert len(cases) == 270
    assert {(c.task, c.rollout) for c in cases} == {(task, i) for task in TASKS for i in range(10)}
    variants = [v for case in cases for v in case.variants]
    assert len(set(variants)) == len(variants) == 540
    assert all(v in SUITE.splits["test"].evaluation for v in variants)


@pytest.mark.parametrize("suite", ["popgym", "procgen-easy", "metaworld-ml45"])
@pytest.mark.parametrize("use", USES)
def test_more_rollouts_and_fewer_tasks_keep_the_cases(suite, use):
    suite = load_suite(suite)
    tasks = suite.splits["train"].tasks
    few = keyed(evaluation_cases(suite, "train", tasks[1:3], 3, 2, use))
    many = keyed(evaluation_cases(suite, "train", tasks, 120, 2, use))
    assert few.items() <= many.items()


def test_further_attempts_do_not_change_the_first_one():
    one, three = (case_variants(SUITE, "test", "RepeatFirstEasy", 20, k) for k in (1, 3))
    assert (one[:, 0] == three[:, 0]).all()
    assert not (three[:, 0] == three[:, 1]).any()


def test_attempts_of_a_kept_variant_are_equal():
    variants = case_variants(load_suite("metaworld-ml45"), "test", "door-lock-v3", 60, 3)
    assert (variants == variants[:, :1]).all()


@pytest.mark.parametrize(
    ("suite", "split", "count"),
    [("metaworld-ml45", "train", 50), ("metaworld-ml10", "test", 50), ("procgen-easy", "train", 2000)],
)
def test_few_variants_are_enumerated(suite, split, count):
    """50 rollouts play 50 goals, not the 32 that as many draws would meet; twice as many play each twice."""
    suite = load_suite(suite)
    for task in suite.splits[split].tasks[:3]:
        variants = case_variants(suite, split, task, 2 * count, 1)[:, 0]
        for once in (variants[:count], variants[count:]):
            assert sorted(once) == list(
                range(suite.splits[split].evaluation.start, suite.splits[split].evaluation.stop)
            )
    orders = {tuple(case_variants(suite, split, task, count, 1)[:, 0]) for task in suite.splits[split].tasks}
    assert len(orders) == len(suite.splits[split].tasks)


def test_listed_variants_are_enumerated():
    suite = load_suite("procgen-easy")
    listed = suite.splits["test-distinct"].evaluation.values
    assert sorted(case_variants(suite, "test-distinct", "coinrun", len(listed), 1)[:, 0]) == sorted(listed)


@pytest.mark.parametrize("name", SUITES)
def test_training_validation_and_test_share_no_variant(name):
    """But Procgen's train split, which is validated and evaluated on the levels of training, as the field does."""
    suite = load_suite(name)
    train, test = suite.splits["train"], suite.splits["test"]
    parts = [train.variants, train.validation, train.evaluation, test.variants, test.evaluation]
    if name.startswith("procgen"):
        assert train.variants == train.validation == train.evaluation
        parts = parts[2:]
    if name.startswith("metaworld"):  # whose validation goals are the test split's, of other skills
        assert not set(train.tasks) & set(test.tasks)
        assert train.validation == test.variants
        parts = [*parts[:3], test.evaluation]
    spans = sorted((part.start, part.stop) for part in parts)
    assert all(a[1] <= b[0] for a, b in itertools.pairwise(spans))


@pytest.mark.parametrize("name", SUITES)
def test_no_rollout_that_chooses_is_one_that_judges(name):
    suite = load_suite(name)
    drawn = {
        use: {
            (c.task, c.seed, c.variants)
            for c in evaluation_cases(suite, "train", suite.splits["train"].tasks, 50, 2, use)
        }
        for use in USES
    }
    assert not drawn["validation"] & drawn["evaluation"]
    if not name.startswith("procgen"):
        assert not variants_of(suite, "train", "validation") & variants_of(suite, "train", "evaluation")


@pytest.mark.parametrize("name", SUITES)
def test_models_are_not_chosen_on_the_test_split(name):
    suite = load_suite(name)
    for split in suite.splits.values():
        if split.name.startswith("test"):
            assert split.validation is None
            with pytest.raises(ValueError, match="choose models on the train split"):
                evaluation_cases(suite, split.name, split.tasks, 1, 1, "validation")


def test_an_unknown_use_is_refused():
    with pytest.raises(ValueError, match="Did you mean 'validation'"):
        evaluation_cases(SUITE, "train", SHORT, 1, 1, "validate")


def test_the_cases_of_version_2_are_frozen():
    """Changing these makes published records incomparable: bump EVALUATION_VERSION instead."""
    for (suite, split, task, use), expected in FROZEN.items():
        cases = keyed(evaluation_cases(load_suite(suite), split, [task], 2, 2, use))
        assert [(c.seed, c.variants) for _, c in sorted(cases.items())] == expected


FROZEN = {
    ("popgym", "test", "RepeatFirstEasy", "evaluation"): [
        (2817951965, (1675801442, 1981218353)),
        (2508088288, (1781799368, 1897293999)),
    ],
    ("popgym", "train", "RepeatFirstEasy", "validation"): [
        (390737672, (1020237333, 1041122707)),
        (2191252009, (1057529103, 922570537)),
    ],
    ("metaworld-ml45", "train", "reach-v3", "evaluation"): [(157512017, (92, 92)), (2703270019, (72, 72))],
    ("procgen-easy", "test-distinct", "coinrun", "evaluation"): [
        (3534873640, (2966, 2966)),
        (1786651015, (3212, 3212)),
    ],
    ("babyai", "test", "BabyAI-GoToObjS4-v0", "evaluation"): [
        (2049960428, (844160, 844160)),
        (3689470986, (716184, 716184)),
    ],
    ("atari", "test", "pong", "evaluation"): [
        (622202450, (1997385694, 1931631030)),
        (1261469304, (1725415052, 1702614414)),
    ],
}


def test_the_order_mixes_tasks():
    tasks = [c.task for c in evaluation_cases(SUITE, "test", SHORT, 40, 1)]
    assert np.mean([a == b for a, b in itertools.pairwise(tasks)]) < 0.6
