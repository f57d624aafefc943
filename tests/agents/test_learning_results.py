"""results/learning: what is committed there is what its scripts do, and says what its page says."""

import importlib.util
import sys

import pandas as pd

from ..paths import ROOT

FOLDER = ROOT / "results" / "learning"


def script(name):
    spec = importlib.util.spec_from_file_location(f"learning_{name}", FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module


def test_committed_runs_are_those_of_the_studies():
    studies = script("studies")
    commands = {(r.study, r.name): studies.shown(r.command) for runs in studies.STUDIES.values() for r in runs}
    runs = pd.read_csv(FOLDER / "runs.csv")
    assert len(runs)
    for row in runs.itertuples():
        assert row.command == commands[row.study, row.run]
    curves = pd.read_csv(FOLDER / "curves.csv")
    assert set(zip(curves["study"], curves["run"], strict=True)) == set(zip(runs["study"], runs["run"], strict=True))
    assert (curves["score"] < 1.1).all()


def test_the_pendulum_is_swung_up():
    curve = pd.read_csv(FOLDER / "pendulum.csv")
    updates = script("pendulum").UPDATES
    end = curve.iloc[-1]
    assert (end["of"], end["updates"]) == ("test", updates)
    assert min(end["attempt_1"], end["attempt_2"]) > 0.8
    assert curve.iloc[0]["attempt_2"] < 0.3
