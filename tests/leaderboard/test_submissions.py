"""Malformed and dishonest submissions are refused, each with a message of its own, and nothing is written."""

import hashlib
import json
import os
import shutil
import zlib

import pandas as pd
import pytest
from typer.testing import CliRunner

from mtbench.cli import command_line
from mtbench.errors import UsageError
from mtbench.leaderboard.badges import BADGES, read_badge, replay, write_badge
from mtbench.leaderboard.card import CARD, SubmissionError, read_card, template
from mtbench.leaderboard.submission import RUNS, read_submission
from mtbench.records import EPISODES, MANIFEST, RecordError
from mtbench.traces import ACTIONS

from .conftest import CARD_TEXT, evaluated


def run_of(folder, seed=0):
    return folder / RUNS / f"seed{seed}"


def card(**changes):
    """Replaces lines of the card; None takes one away."""

    def spoil(folder):
        lines = [line for line in CARD_TEXT.splitlines() if line.split(" =")[0] not in changes]
        lines += [f"{key} = {value}" for key, value in changes.items() if value is not None]
        (folder / CARD).write_text("\n".join(lines), encoding="utf-8")

    return spoil


def manifest(seed=0, **changes):
    def spoil(folder):
        path = run_of(folder, seed) / MANIFEST
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return spoil


def redigested(folder, seed=0):
    digest = hashlib.sha256((run_of(folder, seed) / EPISODES).read_bytes()).hexdigest()
    manifest(seed, episodes_sha256=digest)(folder)


def rows(change, seed=0):
    """Edits rows, and the digest with them."""

    def spoil(folder):
        path = run_of(folder, seed) / EPISODES
        frame = change(pd.read_parquet(path))
        frame.to_parquet(path, index=False)
        redigested(folder, seed)

    return spoil


def doubled_seed(folder):
    """The rollouts of one seed under another one's name."""
    shutil.copytree(run_of(folder, 0), run_of(folder, 3))
    rows(lambda frame: frame.assign(train_seed=pd.array([3] * len(frame), dtype="Int64")), 3)(folder)
    manifest(3, train_seed=3)(folder)


def without_seeds(folder):
    shutil.rmtree(run_of(folder, 2))


def replaced(**changes):
    """One of the runs is an evaluation with other arguments."""

    def spoil(folder):
        shutil.rmtree(run_of(folder))
        evaluated(run_of(folder), 0, **changes)

    return spoil


def chosen(folder):
    path = run_of(folder) / MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "seed": 17}))


def sparse(folder):
    with (run_of(folder) / EPISODES).open("wb") as file:
        file.truncate(2 << 30)


def linked_file(folder):
    (run_of(folder) / EPISODES).rename(folder.parent / "elsewhere")
    (run_of(folder) / EPISODES).symlink_to(folder.parent / "elsewhere")


def linked_run(folder):
    run_of(folder).rename(folder.parent / "elsewhere")
    run_of(folder).symlink_to(folder.parent / "elsewhere")


def pipe(folder):
    (run_of(folder) / ACTIONS).unlink()
    os.mkfifo(run_of(folder) / ACTIONS)


SPOILT = {
    # the card
    "no card": (lambda f: (f / CARD).unlink(), "card.toml does not exist"),
    "a card that is no TOML": (lambda f: (f / CARD).write_text("name = "), "not valid TOML"),
    "a card of bytes": (lambda f: (f / CARD).write_bytes(b"\xff\xfe\x00"), "not valid TOML"),
    "a huge card": (lambda f: (f / CARD).write_text("#" * 20_000), "is too large"),
    "a score in the card": (card(score="0.99"), "a card has no 'score'"),
    "a card without a name": (card(name=None), "name should be text of 1 to 60 characters"),
    "a card without authors": (card(authors=None), "authors should be a list of 1 to 50 names"),
    "nobody as an author": (card(authors='[" "]'), "an author should be a name"),
    "a thousand authors": (card(authors=str(["x"] * 1000)), "authors should be a list of 1 to 50 names"),
    "a number as a text": (card(hardware="7"), "hardware should be text"),
    "a novel": (card(description=f'"{"x" * 1001}"'), "description should be text of 1 to 1000"),
    "a flag that is none": (card(few_seeds='"yes"'), "few_seeds should be true or false"),
    "script in the card": (card(description='"<script>alert(1)</script>"'), "description holds markup"),
    "a Markdown link in the card": (card(hardware='"[x](javascript:alert(1))"'), "hardware holds markup"),
    "a picture in the card": (card(hardware='"![x]"'), "hardware holds markup"),
    "markup in an author": (card(authors='["<b>me</b>"]'), "authors holds markup"),
    "escapes in the card": (card(hardware='"\\u001b[31mred"'), "control or invisible"),
    "writing from right to left": (card(hardware='"\\u202eevil"'), "control or invisible"),
    "a script as an address": (card(code='"javascript:alert(1)"'), "code should be an address"),
    "an address with quotes": (card(link="'https://x.org/\"onclick=1'"), "link should be an address"),
    # the folder
    "a foreign file": (lambda f: (f / "setup.py").write_text("1 / 0"), "holds 'setup.py', which is no part"),
    "a foreign file in a run": (lambda f: (run_of(f) / "x.pkl").write_text(""), "holds 'x.pkl', which is no part"),
    "no runs": (lambda f: shutil.rmtree(f / RUNS), "should be a folder"),
    "no run": (lambda f: [shutil.rmtree(run_of(f, s)) for s in range(3)], "should hold 1 to 200 runs"),
    "a file as a run": (lambda f: (f / RUNS / "seed9").write_text(""), "should be a run's folder"),
    "a run named to climb": (lambda f: run_of(f).rename(f / RUNS / "..x"), "is no name for a run's folder"),
    "a run with script in its name": (lambda f: run_of(f).rename(f / RUNS / "<b>"), "is no name for a run's folder"),
    "a linked file": (linked_file, "is not a regular file"),
    "a linked run": (linked_run, "should be a run's folder"),
    "a pipe": (pipe, "is not a regular file"),
    "a file of 2 GB": (sparse, "is too large: 2,147,483,648 bytes"),
    # the runs
    "a damaged manifest": (lambda f: (run_of(f) / MANIFEST).write_text("{"), "not valid JSON"),
    "a missing manifest": (lambda f: (run_of(f) / MANIFEST).unlink(), "has no manifest.json"),
    "edited rows": (lambda f: (run_of(f) / EPISODES).write_bytes(b"PAR1"), "checksum differs"),
    "an unregistered environment": (manifest(env_id="os:system"), "os:system"),
    "another version's cases": (manifest(evaluation_version=1), "evaluation_version is 1"),
    "a task left out": (
        rows(lambda frame: frame[frame["task"] != "RepeatFirstEasy"]), "no rows for|rows, it should have"
    ),
    "a rollout left out": (rows(lambda frame: frame[frame["rollout"] != 3]), "rows, it should have"),
    "a rollout twice": (
        rows(lambda frame: frame.assign(rollout=frame["rollout"].replace(3, 4))), "rollouts of 2 attempts once each"
    ),
    "an impossible return": (rows(lambda frame: frame.assign(**{"return": 9.0})), "allows returns from"),
    "other variants": (rows(lambda frame: frame.assign(variant=frame["variant"] + 1)), "was played on variant"),
    "an invented task": (rows(lambda frame: frame.assign(task="<b>")), "no rows for|rows for tasks"),
    "two agents": (manifest(agent="other"), "column 'agent' holds"),
    "another agent than the card's": (card(name='"famous"'), "its agent is 'careful', the card's 'famous'"),
    "some of the tasks": (
        replaced(env_kwargs={"tasks": ["RepeatFirstEasy"]}), "it changes tasks.*\n.*it plays 1 of the 27 tasks"
    ),
    "more attempts": (replaced(env_kwargs={"k": 5}), "it changes k: entries play the environment as its ID says"),
    "scaled rewards": (replaced(env_kwargs={"reward_scales": {"RepeatFirstEasy": 2.0}}), "it changes reward_scales"),
    "few rollouts": (replaced(rollouts_per_task=5), "it has 5 rollouts per task"),
    "more rollouts in one run": (replaced(rollouts_per_task=25), "its runs differ in rollouts_per_task"),
    "validation cases": (replaced(cases="validation", split="train"), "does not play the fixed cases"),
    "cases of its own secret": (replaced(cases="secret:" + "0" * 32), "does not play the fixed cases"),
    "another evaluation of several": (chosen, "its policy's seed is 17"),
    "an undeclared label": (replaced(env_kwargs={"expose_task_label": True}), "task_label_exposed is True"),
    "a run without a training seed": (replaced(train_seed=None), "it has no training seed: evaluate with --train-seed"),
    "a scripted agent with seeds": (card(scripted="true"), "the training seed 0, and the card says scripted = true"),
    "one training seed twice": (replaced(train_seed=1), "have the same training seed"),
    "one seed under two names": (doubled_seed, "are the same rollouts under two names"),
    "two seeds": (without_seeds, "it has 2 training seeds, 3 are asked for"),
    "a run of an audit": (manifest(condition="no-memory"), "a run of an audit|condition"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_submission_is_refused_with_its_own_message(submission, what):
    spoil, message = SPOILT[what]
    spoil(submission)
    before = sorted(path for path in submission.rglob("*"))
    with pytest.raises(SubmissionError, match=message):
        read_submission(submission)
    assert sorted(path for path in submission.rglob("*")) == before


@pytest.mark.parametrize("name", ["Careful", "-x", "a b", "<b>", "x" * 65, "é"])
def test_a_folders_name_is_an_address(submission, name):
    moved = submission.rename(submission.parent / name)
    with pytest.raises(SubmissionError, match="small letters, digits and hyphens"):
        read_submission(moved)


def test_an_honest_submission_is_accepted(honest):
    found = read_submission(honest)
    assert [len(runs) for runs in found.groups.values()] == [3]
    assert found.card.authors == ("A. Author", "Zoë Ünal")


def test_fewer_seeds_are_accepted_if_the_card_says_so(submission):
    without_seeds(submission)
    card(few_seeds="true")(submission)
    assert len(read_submission(submission).runs) == 2


def test_all_reasons_are_told_at_once(submission):
    card(name='"famous"')(submission)
    manifest(1, evaluation_version=1)(submission)
    shown = CliRunner().invoke(command_line(), ["leaderboard", "check", str(submission)])
    assert shown.exit_code == 1
    assert shown.stderr.count("refused:") == 4  # two runs of another agent, one of another version, too few seeds
    (submission / CARD).write_text(template("careful"))
    shown = CliRunner().invoke(command_line(), ["leaderboard", "check", str(submission)])
    assert [line.split(": ")[2].split()[0] for line in shown.stderr.splitlines() if CARD in line] == [
        *("description", "trained_on", "training_time", "hardware"),
        "an",  # author
    ]


# ---- what reading cannot see, and a replay can ----


def test_a_replay_finds_edited_rows_with_a_new_digest(submission):
    rows(lambda frame: frame.assign(**{"return": frame["return"].clip(lower=0.5)}))(submission)
    found = replay(read_submission(submission), jobs=1)
    assert found
    assert "recorded return 0.5, replayed" in found[0]


def test_a_replay_refuses_more_actions_than_steps(submission):
    path = run_of(submission) / ACTIONS
    path.write_bytes(zlib.compress(zlib.decompress(path.read_bytes()) + b"\0" * 10))
    manifest(actions_sha256=hashlib.sha256(path.read_bytes()).hexdigest())(submission)
    with pytest.raises(RecordError, match="it holds more"):
        replay(read_submission(submission), jobs=1)


def test_a_replay_needs_actions(submission):
    (run_of(submission) / ACTIONS).unlink()
    with pytest.raises(RecordError, match=r"actions\.bin does not exist"):
        replay(read_submission(submission), jobs=1)


def test_a_badge_is_of_what_was_replayed(submission, tmp_path):
    command = ["leaderboard", "replay", str(submission), "--board", str(tmp_path)]
    assert read_badge(tmp_path, read_submission(submission)).tier == "reported"
    assert CliRunner().invoke(command_line(), command).exit_code == 0
    assert read_badge(tmp_path, read_submission(submission)).tier == "replayed"
    write_badge(tmp_path, read_submission(submission), "replayed")
    rows(lambda frame: frame.assign(**{"return": frame["return"].clip(lower=0.5)}))(submission)
    assert read_badge(tmp_path, read_submission(submission)).tier == "reported", "it has changed since"
    assert CliRunner().invoke(command_line(), command).exit_code == 1
    (tmp_path / BADGES / f"{submission.name}.json").write_text('{"tier": "gold"}')
    with pytest.raises(UsageError, match="is no badge"):
        read_badge(tmp_path, read_submission(submission))


def test_a_new_submission_is_complete_but_for_its_card(honest, tmp_path):
    made = tmp_path / "mine"
    shown = CliRunner().invoke(command_line(), ["leaderboard", "new", str(made), str(honest / RUNS)])
    assert shown.exit_code == 0, shown.exception
    with pytest.raises(SubmissionError) as caught:
        read_submission(made)
    assert all(CARD in line for line in str(caught.value).splitlines()), "only the card is missing"
    (made / CARD).write_text(CARD_TEXT, encoding="utf-8")
    assert len(read_submission(made).runs) == 3
    again = CliRunner().invoke(command_line(), ["leaderboard", "new", str(made), str(honest / RUNS)])
    assert "exists" in str(again.exception)


def test_on_a_terminal_it_asks_for_the_card(honest, tmp_path, monkeypatch):
    """And says what is wrong with the answers when they are checked."""
    answers = ['Says "hello" \\ and plays', "nothing", "none", "one core", "", "", "A. Author, Zoë Ünal", "", "no", ""]
    monkeypatch.setattr("mtbench.cli_leaderboard._somebody_is_there", lambda: True)
    given, asked = iter(answers), []
    monkeypatch.setattr("mtbench.cli_leaderboard._ask", lambda question, default: asked.append(question) or next(given))
    made = tmp_path / "mine"
    shown = CliRunner().invoke(command_line(), ["leaderboard", "new", str(made), str(honest / RUNS)])
    assert shown.exit_code == 0, shown.exception
    assert asked[0].startswith("description (what it is, in a few sentences")
    assert len(asked) == len(answers)
    with pytest.raises(SubmissionError, match="description holds markup"):
        read_submission(made)
    (made / CARD).write_text((made / CARD).read_text().replace("\\\\ and", "and"))
    card = read_submission(made).card
    assert card.authors == ("A. Author", "Zoë Ünal")
    assert card.texts["description"] == 'Says "hello" and plays'


def test_a_template_asks_for_everything(tmp_path):
    (tmp_path / CARD).write_text(template('a "quoted" \\ name'))
    with pytest.raises(SubmissionError, match="name holds markup"):
        read_card(tmp_path / CARD)
    (tmp_path / CARD).write_text(template("plain"))
    with pytest.raises(SubmissionError, match="description should be text"):
        read_card(tmp_path / CARD)
