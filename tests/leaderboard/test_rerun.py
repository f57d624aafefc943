"""A rerun bears out what honest agents reported, and finds what was learnt by heart or borrowed."""

import shutil

import pandas as pd
import pytest
from mtbench_agents.oracle import Oracle
from scipy import stats
from typer.testing import CliRunner

import mtbench
from mtbench import sandbox
from mtbench.cases import new_secret
from mtbench.cli import command_line
from mtbench.errors import UsageError
from mtbench.leaderboard.badges import read_badge, replay, rerun_folder, write_badge
from mtbench.leaderboard.board import README, SUBMISSIONS, build
from mtbench.leaderboard.card import CARD
from mtbench.leaderboard.rerun import Difference, rerun
from mtbench.leaderboard.submission import RUNS, read_submission
from mtbench.records import read_run, write_run
from mtbench.scoring.comparison import on_other_cases
from mtbench.scoring.intervals import Estimate
from mtbench.scoring.tables import bracket

from .conftest import CARD_TEXT

needs_landlock = pytest.mark.skipif(sandbox.version() < 1, reason="needs Linux with Landlock")

POLICY = """
import numpy as np

class Careful:
    def start(self, num_envs, seed, observation_space, action_space):
        self.rng, self.n, self.count = np.random.default_rng(seed), num_envs, int(action_space.n)

    def act(self, observations, reset_mask):
        return self.rng.integers(self.count, size=self.n)
"""


@pytest.fixture(scope="module")
def policy(tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "careful.py"
    path.write_text(POLICY)
    return f"{path}:Careful"


@pytest.fixture
def board(policy, tmp_path):
    """A leaderboard with a submission of one seed."""
    folder = tmp_path / SUBMISSIONS / "careful-agent"
    mtbench.evaluate("MTPOPGym-v0", policy, folder / RUNS / "seed0", agent="careful", train_seed=0, jobs=1)
    (folder / CARD).write_text(CARD_TEXT + "few_seeds = true\n", encoding="utf-8")
    return tmp_path


def disguised(folder, policy):
    """An oracle's rollouts under the name of a policy that does not see what the oracle sees."""
    shutil.rmtree(folder / RUNS / "seed0")
    honest = mtbench.evaluate("MTPOPGym-v0", policy, agent="careful", train_seed=0, jobs=1).manifest
    run = mtbench.evaluate("MTPOPGym-v0", Oracle(), folder / RUNS / "seed0", save_actions=True, jobs=1)
    episodes = run.episodes.assign(agent="careful", train_seed=pd.array([0] * len(run.episodes), dtype="Int64"))
    same = {key: honest[key] for key in ("agent", "policy", "policy_sha256", "privileged", "train_seed")}
    write_run(run.path, episodes, {**run.manifest, **same})


def command(board, policy, *more):
    path = board / SUBMISSIONS / "careful-agent"
    return CliRunner().invoke(
        command_line(), ["leaderboard", "rerun", str(path), "--policy", policy, "--board", str(board), *more]
    )


@needs_landlock
def test_an_honest_submission_is_reproduced(board, policy):
    shown = command(board, f"seed0={policy}")
    assert shown.exit_code == 0, shown.output
    submission = read_submission(board / SUBMISSIONS / "careful-agent")
    badge = read_badge(board, submission)
    assert badge.tier == "rerun"
    (difference,) = badge.differences.values()
    assert difference.reproduced
    assert str(difference) in shown.output
    again = read_run(rerun_folder(board, submission) / "seed0")
    assert again.manifest["isolated"]
    assert again.manifest["cases"].startswith("secret:")
    assert set(again.episodes["variant"]).isdisjoint(submission.runs[0].episodes["variant"])
    reported, found = (run.score().agents[0].aggregates["oracle"]["mean"].value for run in (submission.runs[0], again))
    assert difference.estimate.value == pytest.approx(found - reported)
    build(board)
    (line,) = [line for line in (board / README).read_text().splitlines() if "careful-agent.md" in line]
    assert line.startswith("| 1 |")
    assert f"| rerun: {bracket(difference.estimate)} |" in line


@needs_landlock
def test_an_oracle_under_another_name_passes_a_replay_but_no_rerun(board, policy):
    folder = board / SUBMISSIONS / "careful-agent"
    disguised(folder, policy)
    assert replay(read_submission(folder), jobs=1) == [], "which is why there is a tier above"
    shown = command(board, policy)
    assert shown.exit_code == 1
    assert "not reproduced" in shown.output
    build(board)
    (line,) = [line for line in (board / README).read_text().splitlines() if "careful-agent.md" in line]
    assert line.startswith("|  |"), "without a rank"
    (difference,) = read_badge(board, read_submission(folder)).differences.values()
    assert difference.estimate.value == pytest.approx(-1, abs=0.05)
    assert f"| not reproduced: {bracket(difference.estimate)} |" in line


@needs_landlock
def test_an_interrupted_rerun_goes_on_with_its_secret(board, policy, monkeypatch):
    secret = new_secret()
    submission = read_submission(board / SUBMISSIONS / "careful-agent")
    monkeypatch.setattr("mtbench.evaluation._ROLLOUTS_PER_ENV_AND_SHARD", 1)
    out, seen = rerun_folder(board, submission), []

    def interrupt(done, total):
        seen.append(done)
        if done == 300:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rerun(submission, {"": policy}, secret, out, jobs=1, on_rollout=interrupt)
    assert "give its --secret to go on with it, or delete it" in str(command(board, policy).exception)
    shown = command(board, policy, "--secret", secret.removeprefix("secret:"))
    assert shown.exit_code == 0, shown.output
    again = read_run(out / "seed0")
    same = {"agent": "careful", "train_seed": 0, "cases": secret, "num_envs": again.manifest["num_envs"]}
    pd.testing.assert_frame_equal(again.episodes, mtbench.evaluate("MTPOPGym-v0", policy, jobs=1, **same).episodes)


@needs_landlock
def test_what_cannot_be_rerun_is_refused_before_anything_is_played(board, policy, tmp_path):
    with pytest.raises(UsageError, match="no policy: give --policy seed0=NAME"):
        rerun(read_submission(board / SUBMISSIONS / "careful-agent"), {}, new_secret(), tmp_path)
    for given, message in {
        f"seed1={policy}": "Did you mean 'seed0'",
        "random": "of another policy",
    }.items():
        shown = command(board, given)
        assert shown.exit_code != 0
        assert message in str(shown.exception), given
    assert "32 hexadecimal digits" in str(command(board, policy, "--secret", "7").exception)


def fake_rerun(board, change):
    """A badge for records that somebody wrote by hand."""
    submission = read_submission(board / SUBMISSIONS / "careful-agent")
    run = submission.runs[0]
    out = rerun_folder(board, submission) / "seed0"
    m = change({**run.manifest, "cases": new_secret(), "isolated": True})
    episodes = mtbench.evaluate(
        "MTPOPGym-v0", "random", agent=m["agent"], train_seed=0, cases=m["cases"], jobs=1
    ).episodes
    written = write_run(out, episodes, m)
    write_badge(board, submission, "rerun", {"seed0": written})
    return submission


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {**m, "cases": "evaluation"}, "was not isolated, or not on cases of a secret"),
        (lambda m: {**m, "isolated": False}, "was not isolated, or not on cases of a secret"),
        (lambda m: {**m, "policy_sha256": "0"}, "of another policy"),
        (lambda m: {**m, "step": 7}, "column 'step'"),
    ],
)
def test_records_that_are_no_rerun_of_the_submission_give_no_badge(board, change, message):
    with pytest.raises(ValueError, match=message):
        read_badge(board, fake_rerun(board, change))


def test_a_rerun_that_was_edited_gives_no_badge(board):
    submission = fake_rerun(board, lambda m: m)
    assert read_badge(board, submission).tier == "rerun"
    out = rerun_folder(board, submission) / "seed0"
    run = read_run(out)
    write_run(out, run.episodes.assign(**{"return": run.episodes["return"].clip(lower=0)}), run.manifest)
    with pytest.raises(UsageError, match="not those that it was given for"):
        read_badge(board, submission)
    shutil.rmtree(out)
    with pytest.raises(ValueError, match="seed0 is not a folder"):
        read_badge(board, submission)


def test_the_difference_is_welchs(board):
    """Against SciPy, for one task."""
    chosen = {"tasks": ["RepeatFirstEasy"], "k": 1}
    fixed = mtbench.evaluate("MTPOPGym-v0", "random", env_kwargs=chosen)
    cases = f"secret:{'5' * 32}"  # of most secrets: means that are equal have no slope
    other = mtbench.evaluate("MTPOPGym-v0", "random", cases=cases, env_kwargs=chosen, rollouts_per_task=30)
    scale, found = on_other_cases([fixed], [other])
    assert scale == "oracle"
    one, two = (run.episodes["return"].to_numpy() for run in (other, fixed))
    expected = stats.ttest_ind(one, two, equal_var=False).confidence_interval()
    slope = found.value / (one.mean() - two.mean())  # of the scale
    assert slope == pytest.approx(1 / (1 - fixed.score().references.first.low["RepeatFirstEasy"].value))
    assert (found.low, found.high) == pytest.approx((slope * expected.low, slope * expected.high))


def test_chance_seldom_refutes():
    """A difference of two standard errors is chance, one of five is not."""
    assert Difference("oracle", Estimate(-0.02, -0.04, 0.0)).reproduced
    assert not Difference("oracle", Estimate(-0.05, -0.07, -0.03)).reproduced
    assert Difference("oracle", Estimate(0.5, 0.4, 0.6)).reproduced, "a better score is no reason"
