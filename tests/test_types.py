"""The types that users get: every public name of both packages has one, and strict checkers accept a user's file."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

USER = ROOT / "tests/typed/user.py"


@pytest.fixture(scope="module")
def checker(tmp_path_factory):
    """Runs basedpyright on both packages as they are installed: side by side, under their import names."""
    site = tmp_path_factory.mktemp("site")
    (site / "mtbench").symlink_to(ROOT / "mtbench")
    (site / "mtbench_agents").symlink_to(ROOT / "agents")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"  # it asks `python` for packages
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(site)}

    def check(*arguments):
        command = [sys.executable, "-m", "basedpyright", "--outputjson", *arguments]
        done = subprocess.run(command, cwd=site.parent, env=environment, capture_output=True, text=True, timeout=300)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    return check


@pytest.mark.skipif(sys.version_info < (3, 11), reason="NumPy's newest version for Python 3.10 leaves some types open")
@pytest.mark.parametrize(("package", "least"), [("mtbench", 1000), ("mtbench_agents", 500)])
def test_every_public_name_has_a_type(checker, package, least):
    """As `pyright --verifytypes` counts: what checkers would have to guess is not enough."""
    found = checker("--verifytypes", package, "--ignoreexternal")["typeCompleteness"]
    wrong = [
        f"{symbol['name']}: {problem['message']}"
        for symbol in found["symbols"]
        for problem in symbol["diagnostics"]
        if problem["severity"] == "error"
    ]
    assert wrong == []
    assert found["completenessScore"] == 1
    assert found["exportedSymbolCounts"]["withKnownType"] > least


def problems(checker, tmp_path, text):
    """What strict checking says of a user's file: by line, the rule."""
    (tmp_path / "user.py").write_text(text)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps({"typeCheckingMode": "strict", "include": ["user.py"]}))
    found = checker("--project", str(tmp_path / "pyrightconfig.json"))
    assert found["summary"]["filesAnalyzed"] == 1
    return {
        text.splitlines()[one["range"]["start"]["line"]].strip(): one["rule"] for one in found["generalDiagnostics"]
    }


def test_strict_checking_accepts_what_users_write(checker, tmp_path):
    """mypy reads the same file in `make lint`."""
    assert problems(checker, tmp_path, USER.read_text()) == {}


def test_strict_checking_sees_mistakes(checker, tmp_path):
    """The types say something: a misspelt name, a wrong argument and a wrong choice are found."""
    mistakes = {
        'mtbench.evalute("MTPOPGym-v0", "random")': "reportAttributeAccessIssue",
        'mtbench.evaluate("MTPOPGym-v0", 3)': "reportArgumentType",
        'print(rollout.objective == "k-shots")': "reportUnnecessaryComparison",
        "number: int = rollout.task": "reportAssignmentType",
    }
    head = "import mtbench\nfrom mtbench.rollout import MetaRollout\n\nrollout = MetaRollout('popgym')\n"
    found = problems(checker, tmp_path, head + "\n".join(mistakes))
    assert mistakes.items() <= found.items()
