"""The files that forges, citation tools and newcomers read are well formed and true."""

import re
import stat
from pathlib import Path

import pytest
import yaml

import mtbench
from tests.paths import PAGES, ROOT
from tests.test_package import PROJECT

LINKING = ["CONTRIBUTING.md", *(str(path.relative_to(ROOT)) for path in PAGES)]


def parsed(name):
    return yaml.safe_load((ROOT / name).read_text())


def test_the_citation_is_of_this_version_and_names_the_paper():
    citation = parsed("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert str(citation["version"]) == mtbench.__version__
    assert citation["license"] == "MIT"
    (paper,) = citation["references"]
    assert paper["title"].startswith("AMAGO-2")
    assert (paper["year"], len(paper["authors"]), paper["authors"][0]["family-names"]) == (2024, 6, "Grigsby")
    assert paper["title"] in " ".join((ROOT / "README.md").read_text().split())


def test_hooks_run_the_projects_own_tools():
    (repository,) = parsed(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    lint = re.search(r"\nlint: .*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text())[1]
    for hook in repository["hooks"]:
        assert hook["language"] == "system"
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in lint
        assert re.search(rf"^{tool}==", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    assert {hook["id"] for hook in repository["hooks"]} == {"ruff", "ruff-format", "mypy"}


def test_the_workflow_runs_what_the_repository_runs():
    jobs = parsed(".github/workflows/ci.yml")["jobs"]
    steps = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert ".ci/run" in steps
    assert (ROOT / ".ci/run").stat().st_mode & stat.S_IXUSR
    for path in re.findall(r"tests/\S+", " ".join(steps)):
        assert (ROOT / path).exists(), path
    supported = PROJECT["project"]["classifiers"]
    versions = {line.rpartition(":: ")[2] for line in supported if re.search(r"Python :: 3\.\d+$", line)}
    named = {jobs["everything"]["steps"][1]["with"]["python-version"]}
    assert named | set(jobs["pythons"]["strategy"]["matrix"]["python-version"]) == versions


@pytest.mark.parametrize("page", LINKING)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / page).read_text()):
        assert target.startswith("http") or (ROOT / page).parent.joinpath(target).exists(), target


def test_the_contract_has_the_numbers_that_tests_cite():
    numbered = {int(n) for n in re.findall(r"^## (\d+)\. ", (ROOT / "docs/contract.md").read_text(), re.MULTILINE)}
    assert numbered == set(range(1, 15))
    for path in [*ROOT.glob("tests/**/*.py"), *ROOT.glob("mtbench/**/*.py"), *ROOT.glob("agents/**/*.py")]:
        if path != Path(__file__):
            cited = re.findall(r"contract\.md,? points? ([\d, and to]+)", path.read_text())
            assert all(int(n) in numbered for n in re.findall(r"\d+", " ".join(cited))), path
