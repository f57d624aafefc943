"""The audit's intervals, by simulation: the committed table is what the code gives."""

import csv
import importlib.util

import numpy as np
import pytest

from tests.paths import ROOT

HERE = ROOT / "results" / "intervals"


@pytest.fixture(scope="module")
def simulation():
    spec = importlib.util.spec_from_file_location("simulated_audit", HERE / "audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def committed():
    with (HERE / "audit.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_audits_intervals_cover(committed):
    numbers = ["1", "2", "3", "5", "10"]
    assert {(row["shared"], row["runs"]) for row in committed} == {(s, r) for s in ("0.0", "0.2") for r in numbers}
    assert all(0.92 <= float(row["coverage"]) <= 0.98 for row in committed)


@pytest.mark.parametrize(("shared", "runs"), [(0.0, 1), (0.2, 3)])
def test_the_committed_coverage_is_what_the_code_gives(simulation, committed, shared, runs):
    expected = {
        row["statistic"]: float(row["coverage"])
        for row in committed
        if (float(row["shared"]), int(row["runs"])) == (shared, runs)
    }
    experiments = 150
    for row in simulation.simulate(shared, runs, experiments):
        error = np.sqrt(0.05 * 0.95 / experiments)
        assert abs(float(row["coverage"]) - expected[row["statistic"]]) < 4 * error, row


def test_pairing_by_case_narrows_intervals(committed):
    for row in committed:
        if row["width of unpaired"]:
            assert float(row["width"]) < 0.6 * float(row["width of unpaired"])
