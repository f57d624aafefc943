"""What the package promises as a package."""

import ast
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from gymnasium.error import DependencyNotInstalled

import mtbench
from mtbench import errors
from mtbench.registration import TABLE
from mtbench.suite import imported, read_data
from mtbench.suites.procgen import core
from tests.paths import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

HEAVY = (
    "torch",
    "mujoco",
    "procgen",
    "minigrid",
    "popgym",
    "pandas",
    "matplotlib",
    "pyarrow",
    "PIL",
    "numba",
    "ale_py",
    "ray",
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def loaded_by(code):
    program = f"{code}\nimport sys; print('LOADED', *sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("LOADED")[2].split())


@pytest.mark.parametrize(
    "statement",
    ["import mtbench", "import mtbench.rollout, mtbench.policy, mtbench.wrappers, mtbench.adapters, mtbench.clients"],
)
def test_importing_loads_nothing_heavy(statement):
    assert not loaded_by(statement) & set(HEAVY)


def test_listing_loads_no_simulator():
    code = "import sys, mtbench.cli\nsys.argv = ['mtbench', 'list']\ntry: mtbench.cli.main()\nexcept SystemExit: pass"
    assert not loaded_by(code) & set(HEAVY)


def test_every_folder_with_code_is_packaged():
    declared = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {str(path.parent.relative_to(ROOT)).replace("/", ".") for path in (ROOT / "mtbench").rglob("__init__.py")}
    for path in (ROOT / "agents").rglob("__init__.py"):
        inside = str(path.parent.relative_to(ROOT / "agents")).replace("/", ".")
        found.add("mtbench_agents" if inside == "." else f"mtbench_agents.{inside}")
    assert declared == found


def test_both_packages_are_typed():
    assert (ROOT / "mtbench/py.typed").exists()
    assert (ROOT / "agents/py.typed").exists()


def test_the_extras_exist():
    extras = PROJECT["project"]["optional-dependencies"]
    assert {"popgym", "procgen", "atari", "metaworld", "babyai", "agents", "dev", "all"} <= set(extras)


def test_the_name_that_pip_installs_is_ours(monkeypatch):
    """`mtbench` on the package index is somebody else's: no extra and no hint may install it."""
    name = PROJECT["project"]["name"]
    assert name == errors.DISTRIBUTION == "mtbench-rl"
    for group, needs in PROJECT["project"]["optional-dependencies"].items():
        own = [need for need in needs if need.startswith("mtbench")]
        assert all(need.startswith(f"{name}[") for need in own), group
    assert f"pip install '{name}[popgym]'" in str(errors.missing_extra_error("popgym", "popgym", "The suite"))
    monkeypatch.setattr(core, "find_library", lambda: None)
    with pytest.raises(DependencyNotInstalled, match=rf"pip install '{name}\[procgen\]'"):
        core.require_library()


def test_procgen_comes_with_what_importing_it_needs():
    """TorchRL imports every `procgen` it finds."""
    lines = [line for line in (ROOT / "requirements-procgen.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {line.split("==")[0] for line in lines}
    assert pinned - {"procgen", "procgen-mirror", "procgen-gym"} == {"cffi", "gym", "gym3", "imageio", "pycparser"}
    constraints = {line.split(" ;")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert {line.split(" ;")[0] for line in lines if line.startswith("imageio==")} <= constraints


def test_a_wheel_holds_the_code_the_types_and_the_data(tmp_path):
    """Made of a source distribution, which must hold all of it, too."""
    import zipfile

    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        timeout=300,
        capture_output=True,
    )
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    assert source.name.startswith("mtbench_rl-")
    assert wheel.name.startswith("mtbench_rl-")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "mtbench/py.typed",
        "mtbench/suites/metaworld/references-ml45.json",
        "mtbench/suites/popgym/references.json",
        "mtbench/suites/popgym/drawing.py",
        "mtbench/suites/popgym/rules/cards.py",
        "mtbench/testing/_contract/test_reset.py",
        "mtbench_agents/py.typed",
        "mtbench_agents/oracle.py",
    } <= names
    assert not any(name.startswith(("agents/", "tests/", "benchmarks/", "results/", "examples/")) for name in names)


def imports_of(path):
    """Modules that a file of the package imports, at its head or inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_suites_import_the_core_and_nothing_imports_a_suite():
    """A suite is loaded by its name alone, and no suite knows another."""
    for path in (ROOT / "mtbench").rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = parts[2] if parts[:2] == ("mtbench", "suites") and len(parts) > 3 else None
        for name in imports_of(path):
            found = name.split(".")
            if found[:2] == ["mtbench", "suites"] and len(found) > 2:
                assert found[2] == own, f"{path} imports {name}"
            assert found[0] != "mtbench_agents" or path.name == "cli.py", f"{path} imports {name}"


def test_what_suites_name_exists():
    suites = {row.suite.name: row.suite for row in TABLE}.values()
    assert {suite.extra for suite in suites if suite.oracle} == {"popgym", "babyai", "metaworld"}
    for suite in suites:
        assert callable(imported(suite.engine))
        assert not suite.oracle or callable(imported(suite.oracle))
        package, file = suite.references.split(":")
        assert set(read_data(package, file)) >= {"scales", "sources", "tasks"}


def test_the_version_is_one():
    assert metadata.version("mtbench-rl") == mtbench.__version__
    assert f"## {mtbench.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_importing_twice_registers_once(recwarn):
    import gymnasium as gym

    from mtbench.registration import register_environments

    register_environments()
    assert not recwarn.list
    assert all(row.id in gymnasium_ids(gym) for row in TABLE)


def gymnasium_ids(gym):
    return set(gym.registry)


def test_no_global_generator_is_used():
    """A grep, beside the contract test that watches the generators' states."""
    sources = [*Path(ROOT / "mtbench").rglob("*.py"), *Path(ROOT / "agents").rglob("*.py")]
    # The contract's tests draw from them on purpose; the adapters put them back after other libraries' draws.
    for path in (path for path in sources if "testing" not in path.parts and path.name != "adapters.py"):
        text = path.read_text()
        assert "import random" not in text
        assert "np.random.seed" not in text
