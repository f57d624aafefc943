"""Numbers on pages come from committed data: marked ones are what the data says, and any other needs a reason here."""

import importlib.util
import re
import sys

import pandas as pd
import pytest

from tests.paths import RESULTS, ROOT

spec = importlib.util.spec_from_file_location("result_pages", RESULTS / "pages.py")
pages = importlib.util.module_from_spec(spec)
sys.path.append(str(RESULTS))  # what lies beside the script, as when it is run
spec.loader.exec_module(pages)
sys.path.remove(str(RESULTS))

PAGES = [page.relative_to(ROOT).as_posix() for page in pages.pages()]
MARKED = [page for page in PAGES if "<!-- from " in (ROOT / page).read_text()]

# What no reader types: marked text, the leaderboard's tables and pages, code, links, versions.
GENERATED = re.compile(
    r"<!-- from \S+\.(?:csv|py).*?<!-- end -->|<!-- tables: written by .*?<!-- end of tables -->"
    r"|^```.*?^```|`[^`\n]*`|\]\([^)]*\)|\d+\.\d+\.\d+|Python 3\.\d+(?: to 3\.\d+)?|Ray \d\.\d+",
    re.DOTALL | re.MULTILINE,
)
UNIT = (
    r"(?:ms|us|s|seconds?|minutes?|hours?|[kMG]i?B|[MG]bit|times|fold|M|(?:steps|updates)(?:/s| a second)|[mb]illion)"
)
NUMBER = r"(?:\d[\d,]*(?:\.\d+)?|two|three|four|five|ten|fifteen|twenty|fifty|hundred)"
# A decimal point, per cent, or a unit: what a measurement looks like.
MEASUREMENT = re.compile(rf"\d[\d,]*\.\d+|\b{NUMBER} ?%|\b{NUMBER}[ -]?{UNIT}\b")

ALLOWED = {  # by page ("*": any): a phrase, and why it may stand there as it is
    "*": {"95 %": "the level of all intervals"},
    "README.md": {
        "coinrun pays 100-fold": "a setting of the ID",
        "trained for 100M steps": "the paper's",
    },
    "docs/errata.md": {
        '"1.4 times RL2" and "matching 0.85" do not go with the 0.70': "quotes the papers",
        "repeats frames 5 times, the rules it names 4 times": "settings of the release",
        "in 2.4 (pull request": "a version",
        "42,054.7": "the source's",
        "random play scores 0 or 16,256.9, by source | 16,256.9": "the sources'",
        "1.0 is out of reach": "the end of the scale",
        "published 0.529": "the source's",
        "earns on average, 0.5276": "computed in tests/suites/test_popgym_oracle.py",
    },
    "docs/figures.md": {
        "result after 15M steps": "the paper's",
        "for 100M steps": "the paper's",
        "rewards times 100": "a setting of the paper",
    },
    "docs/stability.md": {"before 1.0": "a version", "At 1.0": "a version", "at 1.0": "a version"},
    "docs/torchrun.md": {"more than 30 seconds": "a setting"},
    "results/README.md": {
        "below 0.005 of the": "a setting of anchors/measure.py",
        "is expected, 0.818 and\n  0.905": "arithmetic: 9 / 11 and 19 / 21",
        "expectation is 0.5276": "computed in tests/suites/test_popgym_oracle.py",
        "published 0.529": "the source's",
    },
    "results/anchors/README.md": {"0.005": "a setting of measure.py"},
    "results/babyai/README.md": {"fewer than 0.75 %": "a bound that layouts.py derives from its sample's size"},
    "results/cluster/README.md": {
        "10 Gbit/s": "an assumption of report.py",
        "above 100 % the learner": "a whole",
        "intake of 100 %": "a whole",
    },
    "results/cluster/ranks.md": {"10 times SIGKILL": "a setting of ranks.py"},
    "results/gpu/README.md": {"3.35 TB/s": "of the data sheet"},
    "results/intervals/README.md": {
        "0.2": "a setting of coverage.py and audit.py",
        "0.1 on every task": "a setting of coverage.py",
        "above 0.5": "a setting of coverage.py",
        "a share of 0.95 has a standard error of 0.005": "arithmetic of 2,000 experiments",
        "deviation of 0.3": "a setting of audit.py",
        "0 to 0.4": "a setting of audit.py",
        "0 to 1.2": "a setting of coverage.py",
    },
    "results/learning/README.md": {"pays 100 times": "a setting of studies.py", "hundredfold": "likewise"},
    "results/procgen/README.md": {"24 % for easy coinrun": "quotes the issue", "(3.11, 3.12) and ~ (3.13)": "versions"},
    "results/vector/README.md": {"first 50\nmillion": "a setting of endurance.py"},
}


@pytest.mark.parametrize("page", MARKED)
def test_a_page_shows_its_data(page):
    """To renew it: python results/pages.py"""
    assert pages.renewed(ROOT / page) == (ROOT / page).read_text()


@pytest.mark.parametrize("page", MARKED)
def test_marks_do_not_break_paragraphs(page):
    text = (ROOT / page).read_text()
    assert re.findall(r"^\s*<!-- from .*<!-- end -->.*", text, re.MULTILINE) == []
    assert text.count("<!-- from ") == len(pages.MARKED.findall(text)), "a mark without a file or an end"


@pytest.mark.parametrize("page", [page for page in PAGES if not page.startswith("leaderboards/pages/")])
def test_no_measurement_is_typed_by_hand(page):
    """Mark it (results/pages.py says how), delete it, or say in ALLOWED why it is none."""
    text = GENERATED.sub("~", (ROOT / page).read_text())
    for phrase in (*ALLOWED.get(page, ()), *ALLOWED["*"]):
        assert phrase in text or phrase in ALLOWED["*"], f"not on the page any more: {phrase!r}"
        text = text.replace(phrase, "")
    assert [line for line in text.splitlines() if MEASUREMENT.search(line)] == []


def test_every_table_of_times_says_how_it_was_measured():
    tables = {path.name for path in (RESULTS / "speed").glob("*.csv")} - {"tables.csv", "stated.csv"}
    measured = pd.read_csv(RESULTS / "speed" / "tables.csv").set_index("table")
    assert set(measured.index) == tables
    assert measured.notna().all(axis=None)
    stated = pd.read_csv(RESULTS / "speed" / "stated.csv").set_index("name")
    assert stated.index.is_unique
    assert stated.drop(columns="unit").notna().all(axis=None)
    text = " ".join((ROOT / page).read_text() for page in MARKED)
    assert [name for name in (*tables, *(f"stated.csv {name}" for name in stated.index)) if name not in text] == []


def test_a_cell_is_shown_as_it_is_but_for_its_thousands(tmp_path):
    (tmp_path / "x.csv").write_text('name,value,text\nfirst,1234567,a\n"second, one",0.50,"5 to 10"\n')
    assert pages.from_csv(tmp_path / "x.csv", "first") == "1,234,567"
    assert pages.from_csv(tmp_path / "x.csv", "second, one") == "0.50"
    assert pages.from_csv(tmp_path / "x.csv", "second, one", "text") == "5 to 10"
    assert pages.from_csv(tmp_path / "x.csv").splitlines()[3] == "| second, one | 0.50 | 5 to 10 |"
    with pytest.raises(ValueError, match="unpack"):
        pages.from_csv(tmp_path / "x.csv", "third")
