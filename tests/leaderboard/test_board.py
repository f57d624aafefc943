"""The rendered leaderboard: what the records say, ranked, with kinds apart."""

import shutil

import pandas as pd
import pytest
from typer.testing import CliRunner

import mtbench
from mtbench.cli import command_line
from mtbench.errors import UsageError
from mtbench.leaderboard.board import README, SUBMISSIONS, build
from mtbench.leaderboard.card import CARD, SubmissionError
from mtbench.leaderboard.submission import RUNS, read_submission
from mtbench.scoring.tables import bracket

from .conftest import CARD_TEXT

SCRIPTED = CARD_TEXT + "scripted = true\n"


@pytest.fixture
def board(honest, tmp_path):
    """Three submissions: a policy, the random one, and the oracle."""
    folder = tmp_path / "board"
    shutil.copytree(honest, folder / SUBMISSIONS / honest.name)
    for name in ("random", "oracle"):
        own = folder / SUBMISSIONS / name
        mtbench.evaluate("MTPOPGym-v0", name, own / RUNS / "run", jobs=1)
        (own / CARD).write_text(SCRIPTED.replace('"careful"', f'"{name}"'), encoding="utf-8")
    return folder


def test_tables_say_what_the_records_say(board):
    assert CliRunner().invoke(
        command_line(),
        ["leaderboard", "replay", str(board / SUBMISSIONS / "careful-agent"), "--board", str(board)],
    ).exit_code == 0  # fmt: skip
    written = build(board)
    text = (board / README).read_text()
    public, privileged = text.split("privileged")
    scores = mtbench.score(read_submission(board / SUBMISSIONS / "careful-agent").runs)
    scale = next(iter(scores.references.scales))
    assert bracket(scores.agents[0].aggregates[scale]["mean"]) in public
    (line,) = [line for line in public.splitlines() if "careful-agent.md" in line]
    assert "| 3 x 20 | replayed |" in line
    (line,) = [line for line in public.splitlines() if "random.md" in line]
    assert "| reported |" in line
    assert "oracle.md" in privileged
    assert "oracle.md" not in public
    assert [path.name for path in written] == ["careful-agent.md", "oracle.md", "random.md", README]
    page = (board / "pages" / "careful-agent.md").read_text()
    assert "# careful" in page
    for task, estimate in scores.agents[0].returns.items():
        assert task in page
        assert bracket(estimate) in page


def test_a_build_is_repeatable_and_keeps_what_is_written_by_hand(board):
    build(board)
    page = board / README
    page.write_text("# Ours\n\nRules.\n\n" + page.read_text() + "\nThe end.\n")
    build(board)
    first = page.read_text()
    build(board)
    assert page.read_text() == first
    assert first.startswith("# Ours\n\nRules.")
    assert first.endswith("The end.\n")
    page.write_text("no marks")
    with pytest.raises(UsageError, match="lacks the lines"):
        build(board)


def test_published_results_stand_apart(board):
    build(board)
    public, privileged = (board / README).read_text().split("privileged")
    (line,) = [line for line in public.splitlines() if "external" in line]
    assert line.startswith("|  | the best published agent of each task, trained on it alone (23 tasks) |")
    assert "external" not in privileged


def test_the_best_is_first(board):
    build(board)
    lines = [line for line in (board / README).read_text().split("privileged")[0].splitlines() if ".md)" in line]
    means = [float(line.split("|")[3].split()[0]) for line in lines]
    assert means == sorted(means, reverse=True)
    assert [line.split("|")[1].strip() for line in lines] == ["1", "2"]


def test_somebody_elses_rollouts_are_refused(board, honest):
    shutil.copytree(honest, board / SUBMISSIONS / "borrowed")
    with pytest.raises(SubmissionError, match="has the same rollouts as"):
        build(board)


def test_one_refused_submission_leaves_the_page_as_it_was(board):
    build(board)
    before = (board / README).read_text()
    path = board / SUBMISSIONS / "random" / RUNS / "run" / "episodes.parquet"
    pd.read_parquet(path).to_parquet(path)
    with pytest.raises(SubmissionError):
        build(board)
    assert (board / README).read_text() == before
