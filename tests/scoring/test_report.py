"""Every format shows the same scores, whatever the names in them."""

import csv
import io
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from mtbench.cli import app
from mtbench.scoring import score
from mtbench.scoring.aggregates import AGGREGATES, SUCCESS_AGGREGATES, Aggregate, SuccessAggregate
from mtbench.scoring.report import FORMATS, for_rliable, notes, render, summary
from mtbench.suites.popgym import TASKS
from tests.scoring.runs import made_up


def test_every_format_shows_every_task_and_agent(two_agents):
    for format in FORMATS:
        text = render(two_agents, format)
        for task in TASKS:
            assert task in text
        assert "mine" in text


def test_an_aggregate_is_declared_once_and_shown_everywhere(monkeypatch):
    """A recipe of CONTRIBUTING: one entry, for scores or for successes."""
    worst = Aggregate(lambda scores: scores.mean(axis=-2).min(axis=-1), smooth=False, note="the worst task.")
    twice = SuccessAggregate(lambda v: v[..., -2:].min(axis=-1).mean(axis=(-2, -1)), lambda t, r, a: t * r)
    monkeypatch.setitem(AGGREGATES, "worst", worst)
    monkeypatch.setitem(SUCCESS_AGGREGATES, "last two", twice)
    scores = score([made_up(tasks=list(TASKS)[:3], success=lambda task, attempt, rollout: attempt == 2)])
    own = scores.agents[0]
    estimate = own.aggregates["oracle"]["worst"]
    assert estimate.value == min(e.value for e in own.normalized["oracle"].values())
    assert estimate.low < estimate.value < estimate.high
    assert own.successes["last two"].value == 0
    for page in (*(render(scores, format) for format in FORMATS), scores._repr_html_(), summary(scores)):
        assert "worst" in page
    for page in (*(render(scores, format) for format in FORMATS), scores._repr_html_()):
        assert "last two" in page
    assert "worst: the worst task." in notes(scores)
    frame = scores.to_dataframe("aggregates")
    assert set(frame["statistic"]) == {*AGGREGATES, *SUCCESS_AGGREGATES}


def test_csv_is_tidy(two_agents):
    rows = list(csv.DictReader(io.StringIO(render(two_agents, "csv"))))
    cell = [r for r in rows if (r["agent"], r["scale"], r["task"]) == ("mine_1", "return", "MineSweeperEasy")]
    assert {r["statistic"] for r in cell} == {"mean", "attempt 1", "attempt 2", "last - first"}
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)
    assert [r["statistic"] for r in rows if not r["task"]][:4] == ["IQM", "median", "mean", "optimality gap"]


def test_json_parses(two_agents):
    data = json.loads(render(two_agents, "json"))
    assert data["agents"][0]["normalized"]["published"]["MineSweeperEasy"]["value"] > 1
    assert data["agents"][1]["privileged"] is True
    assert data["probability_of_improvement"][0]["value"] == 0.5


def test_special_characters_do_not_break_a_format(two_agents):
    latex = render(two_agents, "latex")
    assert r"mine\_1" in latex
    assert r"\& c" in latex
    for line in latex.splitlines():
        if line.endswith(r"\\"):
            unescaped = line.replace(r"\&", "").count("&")
            assert unescaped in (2, 5, 6, 8)
    page = render(two_agents, "html")
    assert "<d>" not in page
    markdown = render(two_agents, "md")
    for block in markdown.split("### ")[1:]:
        bars = {line.replace(r"\|", "").count("|") for line in block.splitlines() if line.startswith("|")}
        assert len(bars) == 1


def test_no_negative_zero():
    text = render(score([made_up(value=lambda t, a, r: -1e-9)]), "md")
    assert "-0.000 " not in text


def test_rliables_layout_has_a_row_for_each_run():
    runs = [made_up(train_seed=seed, value=lambda task, attempt, rollout, s=seed: s / 10) for seed in range(3)]
    scores = score([*runs, made_up(agent="other")])
    content = json.loads(for_rliable(scores))
    for scale, by_agent in content["scores"].items():
        assert np.shape(by_agent["mine"]) == (3, 27)
        assert np.shape(by_agent["other"]) == (1, 27)
        means = np.mean(by_agent["mine"], axis=0)
        wanted = [scores.agents[0].normalized[scale][task].value for task in content["tasks"]]
        assert means == pytest.approx(wanted)
    assert (
        CliRunner()
        .invoke(app, ["score", "nowhere", "--export", "rlible"])
        .exception.args[0]
        .startswith("There is no layout 'rlible'")
    )
