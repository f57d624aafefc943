"""results/gpu: the committed costs of an update and an action are those of the agent as it is."""

import importlib.util

import pandas as pd
import pytest
from mtbench_agents.transformer import acting, learner

from ..paths import ROOT

FOLDER = ROOT / "results" / "gpu"
EXACT = ["preset", "environment", "work", "bound by"]


def test_the_smallest_presets_costs_come_out_again(monkeypatch):
    """To renew them all: python results/gpu/predict.py"""
    spec = importlib.util.spec_from_file_location("predict", FOLDER / "predict.py")
    predict = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(predict)
    for module in (learner, acting):
        monkeypatch.setattr(module, "half_precision", lambda device: True)
    size, lines = predict.row("debug", "MTPOPGym-v0")
    sizes, costs = (pd.read_csv(FOLDER / name) for name in ("sizes.csv", "costs.csv"))
    assert sizes.set_index("preset").loc["debug", "parameters"] == size["parameters"]
    committed = costs[costs["preset"] == "debug"]
    for (_, row), line in zip(committed.iterrows(), lines, strict=True):
        assert [row[name] for name in EXACT] == [line[name] for name in EXACT]
        assert row["launches"] == pytest.approx(line["launches"], rel=0.05), "other versions of PyTorch differ a little"
        assert row["GB"] == pytest.approx(float(line["GB"]), rel=0.05, abs=0.01)
