"""What the package promises as a package."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from gymnasium.error import DependencyNotInstalled
from packaging.metadata import Metadata
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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


def test_benchmarks_can_be_collected():
    """No test runs them, so one that imports what is gone would not be missed."""
    command = [sys.executable, "-m", "pytest", "benchmarks", "--collect-only", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


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


SUPPORTED = ("3.10", "3.11", "3.12", "3.13")
# Procgen's wheels ask for another NumPy, and no test needs Weights & Biases.
UNPINNED = {"procgen", "wandb"}


@pytest.mark.parametrize("python", SUPPORTED)
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_constraints_pin_one_version_of_what_is_asked_for(python, system):
    """For every Python and system, inside the ranges that users get."""
    here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": system}
    here["platform_system"] = system.capitalize()

    def applying(lines):
        needs = [Requirement(line) for line in lines if not line.startswith("#")]
        return [need for need in needs if need.marker is None or need.marker.evaluate(here)]

    pins: dict[str, list[str]] = {}
    for pin in applying((ROOT / "constraints.txt").read_text().splitlines()):
        (exactly,) = pin.specifier
        assert exactly.operator == "=="
        pins.setdefault(canonicalize_name(pin.name), []).append(exactly.version)
    assert all(len(versions) == 1 for versions in pins.values())

    project = PROJECT["project"]
    extras = [needs for name, needs in project["optional-dependencies"].items() if name not in UNPINNED]
    asked = applying(line for needs in [project["dependencies"], *extras] for line in needs)
    for need in (need for need in asked if need.name != project["name"]):
        (version,) = pins[canonicalize_name(need.name)]
        assert need.specifier.contains(version), f"{need} on Python {python}"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel, made of the source distribution, and that one."""
    out, copy = tmp_path_factory.mktemp("dist"), tmp_path_factory.mktemp("copy") / "mtbench"
    # Without what earlier builds left: setuptools packs what their lists name.
    left_out = shutil.ignore_patterns(".*", "*.egg-info", "__pycache__", "build", "runs", "results")
    shutil.copytree(ROOT, copy, ignore=left_out)
    command = [sys.executable, "-m", "build", "--outdir", str(out), str(copy)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    (wheel,), (source,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return wheel, source


def test_distributions_hold_the_code_the_types_and_the_data(built):
    """All of it, and nothing else; the source distribution also what README.md installs from."""
    wheel, source = built
    packaged = {
        str(path.relative_to(ROOT))
        for folder in ("mtbench", "agents")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"mtbench/py.typed", "agents/py.typed", "mtbench/suites/metaworld/goals.npz"} <= packaged
    with zipfile.ZipFile(wheel) as archive:
        code = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert code == {re.sub("^agents/", "mtbench_agents/", name) for name in packaged}

    with tarfile.open(source) as archive:
        files = {member.name.partition("/")[2] for member in archive if member.isfile()}
    named = {"CHANGELOG.md", "CITATION.cff", "LICENSE", "README.md", "constraints.txt", "requirements-procgen.txt"}
    made = {"PKG-INFO", "setup.cfg"} | {name for name in files if name.startswith("mtbench_rl.egg-info/")}
    assert files - made == packaged | named | {"pyproject.toml", "MANIFEST.in"}


def test_the_metadata_is_what_an_index_takes(built):
    wheel, source = built
    version = mtbench.__version__
    assert (wheel.name, source.name) == (f"mtbench_rl-{version}-py3-none-any.whl", f"mtbench_rl-{version}.tar.gz")
    with zipfile.ZipFile(wheel) as archive:
        metadata_of_it = Metadata.from_email(archive.read(f"mtbench_rl-{version}.dist-info/METADATA"), validate=True)
    assert metadata_of_it.description == (ROOT / "README.md").read_text()
    assert metadata_of_it.description_content_type == "text/markdown"


USED = """
import json, sys
import gymnasium as gym
import mtbench, mtbench_agents
from mtbench.registration import TABLE
from mtbench.suite import read_data

assert all(module.__file__.startswith(sys.prefix) for module in (mtbench, mtbench_agents))
played = []
for row in TABLE:
    assert read_data(*row.suite.references.split(":"))["tasks"]
    try:
        env = gym.make(row.id)
    except gym.error.DependencyNotInstalled:
        continue
    env.reset(seed=0)
    env.step(env.action_space.sample())
    played.append(row.id)
print(json.dumps(played))
"""


def playable(suite):
    try:
        suite.require_packages()
    except DependencyNotInstalled:
        return False
    return True


def test_an_installed_wheel_plays_every_id(built, tmp_path):
    """In an environment of its own, outside the checkout; only the dependencies are those of this one."""
    wheel, _ = built
    venv.create(tmp_path / "venv", with_pip=False)
    binaries = tmp_path / "venv/bin"
    program = str(binaries / "python")
    pip = [sys.executable, "-m", "pip", "--python", program, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True, timeout=300)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    outside = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def printed(*command):
        return subprocess.run(
            command, cwd=tmp_path, env=outside, check=True, timeout=300, stdout=subprocess.PIPE, text=True
        ).stdout

    assert printed(binaries / "mtbench", "--version") == f"mtbench {mtbench.__version__}\n"
    ids = [row.id for row in TABLE]
    assert [row["id"] for row in json.loads(printed(binaries / "mtbench", "list", "--json"))] == ids
    assert json.loads(printed(program, "-c", USED)) == [row.id for row in TABLE if playable(row.suite)] != []


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


def test_the_version_stands_in_one_place():
    assert metadata.version("mtbench-rl") == mtbench.__version__
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "mtbench.__version__"}


def test_the_changelog_has_a_section_for_this_version():
    """What is not released yet is on top of it; every section says something, in lines that a terminal shows."""
    text = (ROOT / "CHANGELOG.md").read_text()
    _, *sections = re.split("^## ", text, flags=re.MULTILINE)
    heads = [section.splitlines()[0].split(" - ")[0] for section in sections]
    assert heads[:2] == ["Unreleased", mtbench.__version__]
    assert len(set(heads)) == len(heads)
    assert all(section.split("\n", 1)[1].strip() for section in sections)
    assert max(map(len, text.splitlines())) <= 120


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
