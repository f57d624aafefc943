import csv
import io
import json

import numpy as np
import pytest

from mtbench.records import RecordError, Run, episodes_frame
from mtbench.scoring import score
from mtbench.scoring.figures import save_figure
from mtbench.scoring.references import load_references
from mtbench.scoring.report import FORMATS, notes, render
from mtbench.suites.popgym import TASKS

SCALES = load_references("popgym").scales


def made_up(
    agent="mine",
    value=None,
    train_seed=None,
    rollouts=6,
    k=2,
    objective="k-shot",
    tasks=tuple(TASKS),
    success=lambda task, attempt, rollout: None,
    **more,
):
    """A run whose attempt i on a task returns `value(task, i, rollout)`, and succeeds if `success(...)` says so."""
    value = value or (lambda task, attempt, rollout: attempt + rollout / 100)
    rows = [
        {
            "suite": "popgym",
            "split": "test",
            "task": task,
            "variant": 0,
            "rollout": rollout,
            "attempt": attempt,
            "return": value(task, attempt, rollout),
            "length": 1,
            "success": success(task, attempt, rollout),
            "agent": agent,
            "train_seed": train_seed,
            "step": None,
        }
        for task in tasks
        for rollout in range(rollouts)
        for attempt in range(1, k + 1)
    ]
    manifest = {
        "env_id": "MTPOPGym-v0",
        "suite": "popgym",
        "split": "test",
        "tasks": list(tasks),
        "k": k,
        "objective": objective,
        "rollouts_per_task": rollouts,
        "agent": agent,
        "train_seed": train_seed,
        "evaluation_version": 1,
        "env_kwargs": {},
        **more,
    }
    return Run(f"runs/{agent}-{train_seed}", episodes_frame(rows), manifest)


def test_success_and_coverage():
    """The second task succeeds in its last two of three attempts, the third in every other rollout."""
    names = list(TASKS)[:3]

    def success(task, attempt, rollout):
        return [True, attempt > 1, rollout % 2 == 0][names.index(task)]

    scores = score([made_up(tasks=names, k=3, success=success)])
    own = scores.agents[0]
    assert [estimate.value for estimate in own.success[names[1]]] == [0, 1, 1]
    assert own.successes["success"].value == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert own.successes["coverage"].value == pytest.approx(2 / 3)
    # Of six rollouts of the third task, at least four succeed in some replicates, in most not.
    assert own.successes["coverage"].low == pytest.approx(2 / 3)
    assert own.successes["coverage"].high == 1
    assert own.successes["success"].low < own.successes["success"].value < own.successes["success"].high
    text = render(scores, "md")
    assert "Success over tasks" in text
    assert f"success,{names[1]},attempt 2,1.0,1.0,1.0" in render(scores, "csv")
    assert score([made_up()]).agents[0].successes == {}


def test_the_last_attempt_counts_in_k_shot_and_the_mean_in_k_episode():
    mean_rollout = np.mean(range(6)) / 100
    shot = score([made_up()]).agents[0]
    episode = score([made_up(objective="k-episode")]).agents[0]
    for task in TASKS:
        assert shot.returns[task].value == pytest.approx(2 + mean_rollout)
        assert episode.returns[task].value == pytest.approx(1.5 + mean_rollout)
        assert [e.value for e in shot.attempts[task]] == pytest.approx([1 + mean_rollout, 2 + mean_rollout])
        assert shot.adaptation[task].value == pytest.approx(1.0)


@pytest.mark.parametrize("scale", ["published", "oracle"])
@pytest.mark.parametrize("end", ["low", "high"])
def test_the_anchors_score_zero_and_one(scale, end):
    anchors = getattr(SCALES[scale], end)
    run = made_up(value=lambda task, attempt, rollout: anchors[task].value)
    own = score([run]).agents[0]
    expected = {"low": 0.0, "high": 1.0}[end]
    assert [e.value for e in own.normalized[scale].values()] == pytest.approx([expected] * 27)
    assert own.aggregates[scale]["mean"].value == pytest.approx(expected)
    assert own.aggregates[scale]["IQM"].value == pytest.approx(expected)


def test_published_falls_back_to_the_oracle_and_says_so():
    high = SCALES["published"].high
    assert {task for task in TASKS if high[task].entry == "oracle"} == {
        "VelocityOnlyCartpoleEasy",
        "VelocityOnlyCartpoleMedium",
        "VelocityOnlyCartpoleHard",
        "MineSweeperEasy",
    }
    assert any("1 is `oracle` on VelocityOnlyCartpoleEasy" in note for note in notes(score([made_up()])))


def test_several_seeds_are_one_agent():
    runs = [made_up(train_seed=seed, value=lambda t, a, r, seed=seed: seed / 10) for seed in range(3)]
    scores = score(runs)
    own = scores.agents[0]
    assert own.runs == 3
    assert own.returns["MineSweeperEasy"].value == pytest.approx(0.1)
    assert own.returns["MineSweeperEasy"].low < 0.1 < own.returns["MineSweeperEasy"].high
    assert any("runs are resampled" in note for note in notes(scores))


def test_the_better_agent_is_likely_better():
    better = made_up("better", value=lambda t, a, r: 1.0 + r)
    worse = made_up("worse", value=lambda t, a, r: 0.0 - r)
    scores = score([better, worse])
    assert scores.improvement[("better", "worse")].value == 1.0
    assert score([worse, better]).improvement[("worse", "better")].value == 0.0


def test_improvement_is_between_runs_where_there_are_several():
    """Rollouts of the two agents overlap; their runs' means do not."""
    runs = [
        made_up(name, train_seed=seed, value=lambda t, a, r, shift=shift: r + shift)
        for name, shift in (("high", 1.5), ("low", 0.0))
        for seed in range(2)
    ]
    assert score(runs).improvement[("high", "low")].value == 1.0
    assert score([runs[0], runs[2]]).improvement[("high", "low")].value < 1.0


def test_one_privileged_run_marks_the_agent():
    runs = [made_up(train_seed=0), made_up(train_seed=1, privileged=True)]
    assert score(runs).agents[0].privileged
    assert score(runs[::-1]).agents[0].privileged


def test_one_rollout_is_said_to_have_no_spread():
    assert any("mean nothing" in note for note in notes(score([made_up(rollouts=1)])))


def test_equal_seeds_give_equal_intervals():
    runs = [made_up(value=lambda t, a, r: r)]
    assert render(score(runs, seed=3), "json") == render(score(runs, seed=3), "json")
    assert render(score(runs, seed=3), "json") != render(score(runs, seed=4), "json")


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (made_up("b", k=3), "k is 2 in one and 3"),
        (made_up("b", objective="k-episode"), "objective is 'k-shot'"),
        (made_up("b", tasks=list(TASKS)[:3]), "tasks is"),
        (made_up("b", evaluation_version=2), "evaluation_version is 1"),
        (made_up("b", env_kwargs={"max_steps": 3}), "arguments are"),
        (made_up("mine", rollouts=4, train_seed=2), "equally many"),
        (made_up("mine"), "have the train seed None"),
    ],
)
def test_what_cannot_be_compared_is_refused(other, message):
    with pytest.raises(RecordError, match=message):
        score([made_up(), other])


def test_nothing_to_score_is_refused():
    with pytest.raises(ValueError, match="no run"):
        score([])


def test_a_suite_without_references_is_named():
    with pytest.raises(ValueError, match="no reference scores for the suite 'chess'"):
        load_references("chess")


# ---- the formats ----


@pytest.fixture(scope="module")
def two_agents():
    return score([made_up("mine_1"), made_up("a|b & c <d>", privileged=True)])


def test_every_format_shows_every_task_and_agent(two_agents):
    for format in FORMATS:
        text = render(two_agents, format)
        for task in TASKS:
            assert task in text
        assert "mine" in text


def test_csv_is_tidy(two_agents):
    rows = list(csv.DictReader(io.StringIO(render(two_agents, "csv"))))
    cell = [r for r in rows if (r["agent"], r["scale"], r["task"]) == ("mine_1", "return", "MineSweeperEasy")]
    assert {r["statistic"] for r in cell} == {"mean", "attempt 1", "attempt 2", "last - first"}
    assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in rows)
    assert {r["statistic"] for r in rows if not r["task"]} == {"mean", "median", "IQM", "optimality gap"}


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


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_figures_are_written_and_repeatable(two_agents, tmp_path, suffix):
    for name in ("one", "two"):
        save_figure(two_agents, tmp_path / f"{name}{suffix}")
    assert (tmp_path / f"one{suffix}").stat().st_size > 5000
    if suffix != ".svg":  # matplotlib numbers an SVG's clip paths at random
        assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()


def test_wrong_figures_are_refused(two_agents, tmp_path):
    with pytest.raises(ValueError, match="figure format"):
        save_figure(two_agents, tmp_path / "x.bmp")
    with pytest.raises(ValueError, match="Did you mean 'published'"):
        save_figure(two_agents, tmp_path / "x.png", scale="publishd")
