"""Every block of README.md runs, in the order of the page, in a clean folder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

TEXT = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
BIN = Path(sys.executable).parent


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """The files git would give a stranger, with this checkout's changes."""
    target = tmp_path_factory.mktemp("clone")
    listed = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.run(listed, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    # What Numba has compiled of the same sources, to save half a minute.
    for path in (ROOT / "mtbench").rglob("__pycache__/*.nb[ic]"):
        (target / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy2(path, target / path.relative_to(ROOT))
    return target


def shell(code, cwd, path=None, **variables):
    environment = {**os.environ, **variables, "PATH": f"{path or BIN}{os.pathsep}{os.environ['PATH']}"}
    environment["PIP_COMPILE"] = "0"  # bytecode only of what is imported: packages hold much more
    # The clone must bring its own everything.
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS"):
        environment.pop(name, None)
    done = subprocess.run(["bash", "-ec", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{code}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def block(start):
    found = [code for _, code in BLOCKS if code.startswith(start)]
    assert len(found) == 1, f"one block starts with {start!r}"
    return found[0]


@pytest.mark.slow
def test_the_install_line_installs_and_the_example_runs(clone, tmp_path):
    """In an environment of its own: the README's first two blocks."""
    shell(f"{sys.executable} -m venv {tmp_path}/venv", clone)
    shell(block("pip install"), clone, path=tmp_path / "venv" / "bin")
    example = block("import gymnasium as gym\nimport mtbench\n")
    (tmp_path / "example.py").write_text(example)
    out = shell("python example.py", tmp_path, path=tmp_path / "venv" / "bin")
    assert "returns" in out
    assert len(example.strip().splitlines()) <= 12


@pytest.mark.slow
def test_quickstart_prints_the_table(clone):
    shorter = {"QUICK_UPDATES": "20", "QUICK_ROLLOUTS": "2"}
    out = shell(block("make quickstart"), clone, **shorter)
    assert "### Aggregate scores" in out
    assert out.count("| RepeatFirstEasy") == 1
    assert "agent: return" in out


def test_the_python_api(tmp_path):
    (tmp_path / "example.py").write_text(block("import mtbench\n"))
    out = shell(f"{sys.executable} example.py", tmp_path)
    assert out.startswith("| agent")
    assert "| last_seen | " in out
    assert {path.name for path in tmp_path.iterdir()} == {"example.py", "scores.png"}


def test_your_own_policy(tmp_path):
    (tmp_path / "my_policy.py").write_text(block("# my_policy.py"))
    out = shell(block("mtbench evaluate MTPOPGym-v0 --policy my_policy"), tmp_path)
    assert "my_policy:act" in out
    assert (tmp_path / "scores.png").exists()


def test_training_an_agent(tmp_path):
    """As written, but for fewer updates: the preset's header says how long the whole takes."""
    code = block("mtbench train").replace(
        "--preset small", "--preset small updates=10 round_updates=5 evaluate_rounds=0"
    )
    out = shell(code, tmp_path)
    assert "agent: return" in out


def test_the_test_command_is_the_one_that_runs_this():
    assert block("make test") == "make test\n"
    rules = (ROOT / "Makefile").read_text()
    assert "\ntest: lint\n" in rules
    assert "-m pytest" in rules
    assert "make test\n" in (ROOT / ".ci" / "run").read_text()


def test_no_block_is_left_out():
    tested = (
        "pip install",
        "import gymnasium as gym\n",
        "import mtbench\n",
        "make quickstart",
        "# my_policy.py",
        "mtbench ",
        "make test",
    )
    assert all(code.startswith(tested) for _, code in BLOCKS)
    assert len(BLOCKS) == 8


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert target.startswith("http") or (ROOT / target).exists(), target
