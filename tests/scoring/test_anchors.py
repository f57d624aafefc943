"""The anchors of the oracle scales are those that results/anchors measured, as precisely as its page promises."""

import importlib.util
import json

import pandas as pd
import pytest

from mtbench.scoring.references import load_references
from mtbench.suite import load_suite
from tests.paths import RESULTS

MEASURED = {path.stem: pd.read_csv(path) for path in sorted((RESULTS / "anchors").glob("*.csv"))}


@pytest.mark.parametrize("suite", MEASURED)
def test_every_task_has_both_anchors_and_a_small_standard_error(suite):
    table = MEASURED[suite]
    assert set(zip(table["task"], table["agent"], strict=True)) == {
        (task, agent) for task in load_suite(suite).tasks for agent in ("random", "oracle")
    }
    uncertain = table.loc[table["sem_of_scale"] >= 0.005, "task"]
    assert suite.startswith("metaworld") or not len(uncertain)
    page = (RESULTS / "anchors/README.md").read_text()
    assert all(f"{task} (" in page for task in uncertain), "the page names them"
    means, errors = (table.pivot(index="task", columns="agent", values=name) for name in ("mean", "sem"))
    relative = errors.div(means["oracle"] - means["random"], axis=0).stack()
    assert relative.to_numpy() == pytest.approx(
        table.set_index(["task", "agent"])["sem_of_scale"].reindex(relative.index).to_numpy(), abs=2e-5
    )


@pytest.mark.parametrize("suite", MEASURED)
def test_the_package_has_the_measured_anchors(suite):
    """To renew them: python results/update_references.py"""
    scale = load_references(suite).scales["oracle"]
    for row in MEASURED[suite].itertuples():
        end = scale.low if row.agent == "random" else scale.high
        assert end[row.task].value == row.mean


def test_the_updating_script_changes_nothing_that_is_current(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("update_references", RESULTS / "update_references.py")
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    suites = list(MEASURED)
    files = {suite: script.file_of(suite) for suite in suites}
    copies = {suite: tmp_path / f"{suite}.json" for suite in suites}
    for suite in suites:
        copies[suite].write_text(files[suite].read_text())
    monkeypatch.setattr(script, "file_of", copies.get)
    script.main()
    for suite in suites:
        assert json.loads(copies[suite].read_text()) == json.loads(files[suite].read_text()), suite
