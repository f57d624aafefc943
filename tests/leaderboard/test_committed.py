"""leaderboards/ is what its submissions say, and their replays are as badged."""

import shutil

import pytest

from mtbench.leaderboard.badges import read_badge, replay
from mtbench.leaderboard.board import PAGES, README, SUBMISSIONS, build
from mtbench.leaderboard.submission import read_submission
from tests.paths import ROOT

BOARD = ROOT / "leaderboards"


def test_the_pages_are_what_a_build_makes(tmp_path):
    """To renew them: mtbench leaderboard build."""
    copied = shutil.copytree(BOARD, tmp_path / "leaderboards")
    build(copied)
    for path in (README, *(f"{PAGES}/{page.name}" for page in (BOARD / PAGES).iterdir())):
        assert (copied / path).read_text() == (BOARD / path).read_text(), path
    assert {path.stem for path in (BOARD / PAGES).iterdir()} == {path.name for path in (BOARD / SUBMISSIONS).iterdir()}


@pytest.mark.parametrize("name", sorted(path.name for path in (BOARD / SUBMISSIONS).iterdir()))
def test_badges_are_of_what_is_there(name):
    assert read_badge(BOARD, read_submission(BOARD / SUBMISSIONS / name)).tier in ("replayed", "rerun")


def test_an_entry_is_replayed(tmp_path):
    """The quick one: POPGym's and BabyAI's, audits included."""
    assert replay(read_submission(BOARD / SUBMISSIONS / "oracle"), jobs=1) == []
