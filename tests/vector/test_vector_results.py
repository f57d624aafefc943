"""The files of results/vector support the statements of its page."""

import pandas as pd

from mtbench.suites.popgym import TASKS

from ..paths import ROOT

FOLDER = ROOT / "results" / "vector"


def test_no_task_can_be_told_from_upstreams():
    frame = pd.read_csv(FOLDER / "distributions.csv")
    assert list(frame["task"].drop_duplicates()) == list(TASKS)
    assert len(frame) == 2 * len(TASKS)
    assert frame["p_corrected"].min() > 0.05


def test_a_billion_steps_do_not_grow():
    frame = pd.read_csv(FOLDER / "endurance.csv")
    assert frame["steps"].iloc[-1] >= 1e9
    assert frame["resident_mib"].iloc[-1] < 1.01 * frame["resident_mib"].iloc[0]
