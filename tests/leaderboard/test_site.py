"""The static site in a browser: sorting, filtering and drill-down work, and nothing is asked of anybody."""

import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

import mtbench
from mtbench.cli import command_line
from mtbench.errors import UsageError
from mtbench.leaderboard.board import SUBMISSIONS, build
from mtbench.leaderboard.card import CARD
from mtbench.leaderboard.site import ENTRIES, INDEX, TABLES
from mtbench.leaderboard.submission import RUNS, read_submission
from tests.paths import ROOT

from .conftest import CARD_TEXT, Careful

HEADER = ".dt-scroll:has(#entries) .dt-scroll-headInner th"
ODD = """it's "odd" & so on"""


class Biased(Careful):
    """Plays the action of its seed more often than others."""

    def act(self, observations, reset_mask):
        chosen = super().act(observations, reset_mask)
        return np.where(self.rng.random(self.n) < 0.9, self.seed % self.count, chosen)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """The committed leaderboard, and four agents more."""
    folder = tmp_path_factory.mktemp("board")
    shutil.copytree(ROOT / "leaderboards", folder, dirs_exist_ok=True)
    for action, name in enumerate(("alpha", "beta", "gamma", ODD)):
        own = folder / SUBMISSIONS / f"agent-{action}"
        exposed = {"expose_task_label": True} if name == "beta" else {}
        mtbench.evaluate(
            "MTPOPGym-v0", Biased(action), own / RUNS / "run", agent=name, train_seed=0, jobs=1, env_kwargs=exposed
        )
        card = CARD_TEXT.replace('"careful"', repr(name) if "'" not in name else f"""'''{name}'''""")
        more = "few_seeds = true\n" + ("label_exposed = true\n" if exposed else "")
        (own / CARD).write_text(card + more, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def site(board):
    out = board / "site"
    build(board, out)
    return out


def rows(page):
    """The cells of the table, by column."""
    # Until the script has run, the table has one row that says so, and no header.
    page.wait_for_selector(HEADER)
    header = [cell.inner_text().strip() for cell in page.locator(HEADER).all()]
    return [
        dict(zip(header, (cell.inner_text() for cell in row.locator("td").all()), strict=True))
        for row in page.locator("#entries tbody tr").all()
    ]


def header(page, name):
    return page.locator(HEADER).filter(has_text=name).first


def choose(page, pane, option):
    """Filter by an option of a pane."""
    page.locator(f".dtsp-searchPane:has(input[placeholder='{pane}'])").locator(".dtsp-name").filter(
        has_text=option
    ).first.click()


def test_all_entries_are_there_as_the_records_say(visit, site, board):
    page = visit(site / INDEX)
    found = rows(page)
    committed = (ROOT / "leaderboards" / "README.md").read_text().splitlines()
    assert len(found) == 4 + sum(".md) |" in line or "| external |" in line for line in committed)
    (own,) = [row for row in found if row["agent"] == ODD]
    mean = mtbench.score(read_submission(board / SUBMISSIONS / "agent-3").runs).agents[0].aggregates["oracle"]["mean"]
    assert [own[key] for key in ("mean", "from", "to")] == [f"{v:.3f}" for v in (mean.value, mean.low, mean.high)]
    assert {row["sees"] for row in found} == {"observations alone", "told which task they play", "privileged"}
    (external,) = [row for row in found if row["tier"] == "external"]
    assert (external["mean"], external["from"], external["rank"]) == ("0.699", "", "")


def test_numbers_are_sorted_as_numbers(visit, site):
    page = visit(site / INDEX)
    for name in ("mean", "from", "rank"):
        header(page, name).click()
        shown = [float(row[name]) for row in rows(page) if row[name]]
        assert shown == sorted(shown), name
        header(page, name).click()
        shown = [float(row[name]) for row in rows(page) if row[name]]
        assert shown == sorted(shown, reverse=True), name


@pytest.mark.parametrize(
    ("pane", "option", "column"),
    [
        ("suite", "popgym", "suite"),
        ("ID", "MTBabyAI-v0", "ID"),
        ("sees", "told which task they play", "sees"),
        ("tier", "reported", "tier"),
    ],
)
def test_filters_keep_what_they_name(visit, site, pane, option, column):
    page = visit(site / INDEX)
    before = len(rows(page))
    page.locator(".dtsp-showAll").click()
    choose(page, pane, option)
    # The page redraws a moment after a click on a pane.
    page.wait_for_function("document.querySelector('.dtsp-title').innerText.includes('1')")
    page.wait_for_function(f"document.querySelectorAll('#entries tbody tr').length < {before}")
    found = rows(page)
    assert found
    assert {row[column] for row in found} == {option}
    page.locator(".dtsp-clearAll").click()
    page.wait_for_function(f"document.querySelectorAll('#entries tbody tr').length == {before}")


def test_a_search_finds_an_author(visit, site):
    page = visit(site / INDEX)
    page.locator("input[type=search].dt-input").last.fill("Ünal")
    assert {row["authors"] for row in rows(page)} == {"A. Author, Zoë Ünal"}
    assert len(rows(page)) == 4


def test_drilling_down_to_an_entry_and_its_tasks(visit, site, board):
    page = visit(site / INDEX)
    page.get_by_role("link", name="gamma").click()
    assert page.url == (site / ENTRIES / "agent-2.html").as_uri(), "an address that stays"
    scores = mtbench.score(read_submission(board / SUBMISSIONS / "agent-2").runs).agents[0].normalized["oracle"]
    shown = page.locator("table:has(svg.bar) tbody tr")
    assert shown.count() == 27
    for row, (task, e) in zip(shown.all(), scores.items(), strict=True):
        assert row.locator("td").first.inner_text() == task
        assert row.locator("td").nth(1).inner_text().startswith(f"{e.value + 0.0:.3f}".replace("-0.000", "0.000"))
        box = row.locator("svg").bounding_box()
        assert box["width"] > 100
    page.get_by_role("link", name="MTPOPGym-v0, test split").click()
    assert page.url == (site / TABLES / "MTPOPGym-v0-test.html").as_uri()
    header(page, "RepeatFirstEasy").click()
    first = [float(row["RepeatFirstEasy"]) for row in rows(page)]
    assert first == sorted(first)
    assert len(first) == 6
    assert page.locator("figure svg").count() == 3
    page.get_by_role("link", name="All entries").click()
    assert page.url == (site / INDEX).as_uri()


@pytest.mark.parametrize("width", [1280, 400])
def test_pages_are_readable_at_any_width(visit, site, width):
    for path in (INDEX, f"{TABLES}/MTBabyAI-v0-test.html", f"{ENTRIES}/oracle.html"):
        page = visit(site / path, width, "dark")
        page.wait_for_selector(HEADER if ENTRIES not in path else "svg.bar")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
        seen = page.evaluate("[...document.querySelectorAll('td,p,li')].map(e => getComputedStyle(e).fontSize)")
        assert min(float(size.removesuffix("px")) for size in seen if size != "0px") >= 14


def test_a_folder_with_something_else_is_left_alone(board, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UsageError, match="something else than a leaderboard's site"):
        build(board, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_several_processes_write_the_same_site(board, site, tmp_path, monkeypatch):
    monkeypatch.setattr("mtbench.leaderboard.board._FEW", 1)
    shown = CliRunner().invoke(
        command_line(), ["leaderboard", "build", str(board), "--site", str(tmp_path / "site"), "--jobs", "2"]
    )
    assert shown.exit_code == 0, shown.output
    for path in site.rglob("*.html"):
        assert (tmp_path / "site" / path.relative_to(site)).read_bytes() == path.read_bytes(), path
