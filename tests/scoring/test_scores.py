import numpy as np
import pytest
from typer.testing import CliRunner

from mtbench.cli import app
from mtbench.records import RecordError, Run
from mtbench.scoring import score
from mtbench.scoring.intervals import METHODS, t_quantile
from mtbench.scoring.references import load_references
from mtbench.scoring.report import FORMATS, notes, render, tables
from mtbench.suites.popgym import TASKS
from tests import toy
from tests.paths import RESULTS
from tests.scoring.runs import made_up

SCALES = load_references("popgym").scales


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
    assert own.successes["coverage"].low < 0.4
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
    assert any("1 is oracle on VelocityOnlyCartpoleEasy" in note for note in notes(score([made_up()])))


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
        (made_up("b", tasks=list(TASKS)[:3]), "only one of them has RepeatPreviousEasy"),
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


def test_coverage_is_counted_in_each_run():
    """One run always succeeds, the other in one rollout of three: covered and not, though 2/3 succeed in all."""
    runs = [
        made_up(train_seed=seed, tasks=["MineSweeperEasy"], success=lambda t, a, r, seed=seed: seed == 0 or r % 3 == 0)
        for seed in range(2)
    ]
    own = score(runs).agents[0]
    assert own.successes["success"].value == pytest.approx(2 / 3)
    assert own.successes["coverage"].value == 0.5


def test_the_order_of_rows_does_not_matter():
    run = made_up(k=3, value=lambda t, a, r: len(t) + a + r / 100, success=lambda t, a, r: (a + r) % 2 == 0)
    shuffled = Run(run.path, run.episodes.sample(frac=1, random_state=0), run.manifest)
    assert render(score([shuffled]), "json") == render(score([run]), "json")


def test_three_runs_against_one_compare_rollouts():
    """The means of runs would say 1."""
    runs = [made_up("x", train_seed=seed, value=lambda t, a, r: r + 0.5) for seed in range(3)]
    found = score([*runs, made_up("y", value=lambda t, a, r: r)]).improvement[("x", "y")]
    assert found.value == pytest.approx(np.mean([i + 0.5 > j for i in range(6) for j in range(6)]))


def test_validation_and_test_cases_are_not_compared():
    with pytest.raises(RecordError, match="cases is 'evaluation' in one"):
        score([made_up("a", cases="evaluation"), made_up("b", cases="validation")])


def test_runs_of_other_versions_are_told_apart():
    """Where they may matter: mtbench's, Gymnasium's, NumPy's and the suite's, not Python's or a stranger's package."""

    def run(agent, seed, **versions):
        return made_up(agent=agent, train_seed=seed, versions={"python": f"3.{seed}", "x": str(seed), **versions})

    runs = [
        run("one", 0, popgym="1.0.6", numpy="2.3"),
        run("one", 1, popgym="1.0.7", numpy="2.3"),
        run("two", 2, popgym="1.0.7", numpy="2.3"),
    ]
    scores = score(runs)
    assert scores.versions == {"popgym": {"1.0.6": ["one"], "1.0.7": ["one", "two"]}}
    (note,) = [note for note in notes(scores) if "versions" in note]
    assert note == ("Played with different versions, which may play differently: popgym 1.0.6 (one), 1.0.7 (one, two).")
    same = score(runs[1:])
    assert same.versions == {}
    assert not any("versions" in note for note in notes(same))
    assert score([runs[0], made_up(agent="old")]).versions["numpy"] == {"2.3": ["one"], "not recorded": ["old"]}


def test_names_that_look_alike_are_numbered():
    scores = score([made_up("mine"), made_up("mine\x00"), made_up("\x1b[31mmine"), made_up("\n")])
    assert [own.agent for own in scores.agents] == ["mine", "mine (2)", "mine (3)", "(no name)"]


# ---- intervals ----


def seeds(n, agent="mine", effect=lambda seed: seed / 10, **more):
    return [
        made_up(agent, train_seed=seed, value=lambda t, a, r, seed=seed: effect(seed) + r / 1000, **more)
        for seed in range(n)
    ]


@pytest.mark.parametrize("n", [2, 3, 7])
def test_whole_runs_are_resampled(n):
    """All tasks of a run share its effect, so every interval is Student's of the runs."""
    own = score(seeds(n)).agents[0]
    effects = np.arange(n) / 10
    half = t_quantile(n - 1) * effects.std(ddof=1) / n**0.5
    scale = SCALES["oracle"]
    width = 1 / np.array([scale.high[task].value - scale.low[task].value for task in TASKS])
    mine = own.returns["MineSweeperEasy"]
    assert (mine.value - mine.low, mine.high - mine.value) == pytest.approx((half, half))
    attempt = own.attempts["MineSweeperEasy"][0]
    assert attempt.high - attempt.low == pytest.approx(2 * half)
    mean = own.aggregates["oracle"]["mean"]
    assert mean.high - mean.value == pytest.approx(half * width.mean())
    _, low, high = own.profiles["oracle"]
    assert (high - low).max() > 0.5


def test_the_old_bootstrap_is_there_on_demand():
    scores = score(seeds(3), interval="stratified-bootstrap")
    old, new = (s.agents[0].aggregates["oracle"]["mean"] for s in (scores, score(seeds(3))))
    assert old.value == new.value
    assert old.high - old.low < (new.high - new.low) / 4
    assert any("rliable" in note and "too narrow" in note for note in notes(scores))
    with pytest.raises(ValueError, match="Did you mean 'jackknife'"):
        score(seeds(2), interval="jacknife")


def test_the_command_line_chooses_the_interval(tmp_path):
    arguments = ["score", str(RESULTS / "MTPOPGym-v0" / "random"), "--interval"]
    shown = {name: CliRunner().invoke(app, [*arguments, name]).output for name in METHODS}
    assert "too narrow" in shown["stratified-bootstrap"]
    assert "too narrow" not in shown["jackknife"]
    plotted = CliRunner().invoke(app, ["plot", *arguments[1:], "jackknife", "--out", str(tmp_path / "x.svg")])
    assert plotted.exit_code == 0
    assert isinstance(CliRunner().invoke(app, [*arguments, "jacknife"]).exception, ValueError)


def test_few_runs_are_said_to_be_few():
    assert any("fewer than 5 runs" in note and "12.7" in note for note in notes(score(seeds(2))))
    assert any("fewer than 5 runs" in note and "3.2" in note for note in notes(score(seeds(4))))
    assert not any("fewer than 5 runs" in note for note in notes(score(seeds(5))))
    single = notes(score([made_up()]))
    assert any("leave out how much training runs differ" in note for note in single)


def test_an_interval_without_width_is_explained():
    explained = "An interval without width"
    assert any(explained in note for note in notes(score(seeds(3, effect=lambda seed: 0))))
    varied = [made_up(train_seed=s, value=lambda t, a, r, s=s: a * s, tasks=["MineSweeperEasy"]) for s in range(3)]
    assert not any(explained in note for note in notes(score(varied)))


def test_a_percentile_interval_that_leaves_its_estimate_out_says_why():
    """Every task's mean is its upper anchor: replicates of the gap are all larger than the gap."""
    high = SCALES["oracle"].high
    run = made_up(value=lambda t, a, r: high[t].value + (r - 2.5) / 10)
    old = score([run], interval="stratified-bootstrap")
    gap = old.agents[0].aggregates["oracle"]["optimality gap"]
    assert gap.low > gap.value + 0.01
    assert any("leave out their estimate" in note for note in notes(old))
    gap = score([run]).agents[0].aggregates["oracle"]["optimality gap"]
    assert gap.low <= gap.value <= gap.high


# ---- scales ----


def test_the_oracle_scale_is_the_default():
    assert list(SCALES) == ["oracle", "published"]
    assert [row[1] for row in tables(score([made_up()]))[0].rows] == ["oracle", "published"]


def test_the_policy_behind_an_anchor_is_said_to_define_it():
    runs = [made_up("expert", policy="oracle"), made_up("dice", policy="random"), made_up("mine", policy="x.py:f")]
    scores = score(runs)
    assert {own.agent: own.defines for own in scores.agents} == {
        "expert": {"oracle": 1},
        "dice": {"oracle": 0, "published": 0},
        "mine": {},
    }
    rows = [row[:2] for row in tables(scores)[0].rows]
    assert ["expert", "oracle (1 by definition)"] in rows
    assert ["dice", "published (0 by definition)"] in rows
    assert ["mine", "oracle"] in rows
    assert any("expert's policy defines the 1 of the scale oracle" in note for note in notes(scores))


def test_published_random_scores_are_not_our_random_policys():
    run = made_up(tasks=["pong"], suite="atari", env_id="MTAtari-v0", k=1, policy="random")
    assert score([run]).agents[0].defines == {}


def test_scores_far_outside_are_marked():
    scale = SCALES["published"]
    low, high = scale.low["AutoencodeHard"].value, scale.high["AutoencodeHard"].value
    for normalized, marked in ((2.5, True), (1.9, False), (-0.9, False), (-1.1, True)):
        value = low + normalized * (high - low)
        scores = score([made_up(tasks=["AutoencodeHard"], value=lambda t, a, r, value=value: value)])
        cell = tables(scores)[1].rows[0][-1]
        assert cell == f"{normalized:.2f}{' !' if marked else ''}"
        assert any(note.startswith("! marks") for note in notes(scores)) == marked


def test_a_task_without_references_leaves_the_scale_out_and_is_named():
    scores = score([made_up(tasks=["pong", "adventure"], suite="atari", env_id="MTAtari-v0", k=1)])
    assert scores.left_out == {"human": ["adventure"], "human-mnih2015": ["adventure"]}
    assert list(scores.references.scales) == ["raw"]
    own = scores.agents[0]
    assert own.normalized["raw"]["adventure"] == own.returns["adventure"]
    text = render(scores, "md")
    assert "Scale human is left out: it has no reference for adventure." in text
    assert "raw: the plain return" in text


def test_a_suite_of_somebody_else_has_the_raw_scale(monkeypatch):
    toy.register(monkeypatch)
    scores = score([made_up(env_id="Toy-v0", suite="toy", split="train", tasks=["a", "b"], k=1)])
    assert list(scores.references.scales) == ["raw"]
    assert scores.left_out == {}
    assert scores.agents[0].aggregates["raw"]["mean"].value == pytest.approx(1 + 0.025)
    for format in FORMATS:
        assert "raw" in render(scores, format)


def test_uncertain_anchors_are_told():
    scores = score([made_up(tasks=["door-lock-v3"], suite="metaworld-ml45", env_id="ML45-v0")])
    scale = scores.references.scales["oracle"]
    error = scale.low["door-lock-v3"].sem / (scale.high["door-lock-v3"].value - scale.low["door-lock-v3"].value)
    told = [note for note in notes(scores) if "Their standard error is above 0.005" in note]
    assert bool(told) == (error > 0.005)


# ---- the formats ----
