"""The documentation: it builds without a warning, its links lead somewhere, its blocks run, and a browser likes it."""

import doctest
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import paths
from tests.paths import DOCS

PAGES = [path.relative_to(DOCS).as_posix() for path in paths.PAGES]
BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```", re.DOTALL | re.MULTILINE)
WITH_BLOCKS = [page for page in PAGES if BLOCK.search((DOCS / page).read_text())]

# Docstrings with examples to run.
EXAMPLES = ["mtbench", "mtbench.api", "mtbench.audit", "mtbench.cases", "mtbench.evaluation", "mtbench.policy"]
EXAMPLES += ["mtbench.records", "mtbench.registration", "mtbench.rollout", "mtbench.text", "mtbench.wrappers"]
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

pytest.importorskip("sphinx", reason="needs sphinx, furo and myst-parser: pip install 'mtbench-rl[docs]'")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("docs") / "html"
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", str(DOCS), str(out)]
    done = subprocess.run([*command, "-d", str(out.parent / "doctrees")], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_in_the_site(site):
    assert [page for page in PAGES if not (site / page).with_suffix(".html").is_file()] == []


def test_links_lead_somewhere(site):
    """Within the site: to a file that is there, and to a place that it has."""
    anchors: dict[Path, set[str]] = {}

    def places(path):
        if path not in anchors:
            anchors[path] = set(re.findall(r'\bid="([^"]+)"', path.read_text(errors="replace")))
        return anchors[path]

    dead, checked = [], 0
    for page in site.rglob("*.html"):
        for link in re.findall(r'<(?:a|img|link|script)\b[^>]*?\b(?:href|src)="([^"]+)"', page.read_text()):
            if re.match(r"(https?|mailto|data):", link) or link == "#":
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path.partition("?")[0]).resolve() if path else page
            checked += 1
            if not target.is_file() or (anchor and target.suffix == ".html" and anchor not in places(target)):
                dead.append((page.name, link))
    assert dead == []
    assert checked > 1000


def test_pages_name_every_id_and_departure(site):
    """What `mtbench info` knows is on the pages of the suites."""
    from mtbench.registration import TABLE

    text = " ".join(re.sub(r"<[^>]+>", "", path.read_text()) for path in (site / "suites").glob("*.html"))
    for row in TABLE:
        if row.id not in ("MTProcgen-EasyRescaled-v0", "MTAtari-Clipped-v0"):  # other rewards, the same pages
            assert row.id in text
        for task in row.suite.tasks:
            assert task in text, task


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", ["index", "suites/babyai", "scores", "commands", "api/index"])
def test_pages_are_readable_and_ask_for_nothing_outside(visit, site, name, width):
    page = visit(site / f"{name}.html", width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("h1").first.is_visible()


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_blocks_run_in_the_order_of_their_page(tmp_path, page):
    """Python blocks of a page share their names, as a reader's would."""
    code, names = [], []
    for language, text in BLOCK.findall((DOCS / page).read_text()):
        if language == "python":
            names.append(text)
            (tmp_path / "page.py").write_text("\n".join(names))
        else:
            if names:
                code.append("python page.py")
            code.append(text)
            names = []
    if names:
        code.append("python page.py")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for each in code:
        done = subprocess.run(
            ["bash", "-ec", each],
            cwd=tmp_path,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{each}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_in_docstrings_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name), optionflags=OPTIONS)
    assert found.failed == 0
    assert found.attempted > 0
