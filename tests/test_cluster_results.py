"""The files of results/cluster support the statements of its page."""

import pandas as pd

from tests.paths import RESULTS

FOLDER = RESULTS / "cluster"


def test_no_kill_changed_a_record_or_doubled_a_rollout():
    frame = pd.read_csv(FOLDER / "chaos.csv")
    assert frame["kills"].sum() >= 20
    assert set(frame["killed"]) == {"worker", "collector", "node"}
    assert frame["complete"].all()
    assert (frame["doubled"] == 0).all()
    assert frame.loc[frame["work"] == "evaluation", "same_records"].all()
    training = frame[frame["work"] == "training"]
    assert (training["lost_collectors"] >= training["kills"]).all()


def test_an_evaluation_on_ray_takes_about_as_long():
    best = pd.read_csv(FOLDER / "evaluation.csv").groupby("side")[["seconds", "processor_seconds"]].min()
    assert (best.loc["ray"] <= 1.15 * best.loc["local"]).all()
