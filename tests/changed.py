"""Run the tests of what changed: ``python -m tests.changed``, the last step of ``make check``.

Changed is what differs from where this branch left main, uncommitted and new files included. Tests mirror the code:
``mtbench/scoring/scores.py`` is tested by ``tests/scoring/test_scores.py``. A file without such a mirror is tested by
the test files of that folder that import it, or by all of them. What the contract is made of runs the contract over
the two fastest IDs; a suite, or its engine, over its own IDs. Tests marked slow are left to ``make test``.
"""

import argparse
import re
import subprocess
import sys
from pathlib import PurePosixPath

from mtbench.registration import TABLE
from mtbench.testing._contract import SHORT_GAMES
from tests.paths import ROOT

CONTRACT = "mtbench/testing/_contract"
GOLDEN = "tests/contract/test_golden.py"
TYPES = "tests/test_types.py"  # of all code
FASTEST = {"MTPOPGym-v0", "MTBabyAI-v0"}

# Every rollout of every suite goes through these.
CORE = {f"mtbench/{name}.py" for name in ("arguments", "registration", "rollout", "spaces", "suite")} | {
    f"mtbench/vector/{name}.py" for name in ("__init__", "compiled", "engine", "loops", "rollout", "streams")
}

# Tests that are not named after what they test: of a file without its suffix, or of all else in a folder.
NAMED = {
    "agents/oracle": ["tests/suites/test_popgym_oracle.py"],
    "agents/training/checkpoint": ["tests/agents/transformer/test_damage.py", "tests/agents/transformer/test_train.py"],
    "agents/training/folder": ["tests/agents/transformer/test_damage.py", "tests/agents/transformer/test_train.py"],
    "agents/training/loading": ["tests/agents/transformer/test_hostile_runs.py", "tests/agents/test_recurrent_ppo.py"],
    "agents/training/settings": ["tests/agents/transformer/test_config.py", "tests/agents/test_recurrent_ppo.py"],
    "agents/training/cli": ["tests/test_cli.py", "tests/agents/training/test_cli.py"],
    "mtbench/catalogue": ["tests/test_cli_look.py"],
    "mtbench/cli": ["tests/test_cli.py", "tests/test_cli_look.py"],
    "mtbench/facts": ["tests/test_cli_look.py"],
    "mtbench/suites/atari/engine": ["tests/suites/test_pixel_engines.py"],
    "mtbench/suites/procgen/engine": ["tests/suites/test_pixel_engines.py"],
    "mtbench/vector/helpers": ["tests/suites/test_babyai_engine.py", "tests/suites/test_metaworld_engine.py"],
    ".pre-commit-config": ["tests/test_project_files.py"],
    "CHANGELOG": ["tests/test_package.py"],
    "CITATION": ["tests/test_project_files.py"],
    "CONTRIBUTING": ["tests/test_project_files.py", "tests/test_result_pages.py"],
    "Makefile": ["tests/test_readme.py"],
    "README": ["tests/test_readme.py", "tests/test_result_pages.py"],
    "pyproject": ["tests/test_package.py"],
}
OTHERWISE = {
    ".github": ["tests/test_project_files.py"],
    "docs": ["tests/test_figures.py", "tests/test_project_files.py", "tests/test_result_pages.py"],
    "mtbench": ["tests/test_cli.py", "tests/test_evaluation.py", "tests/test_package.py"],
    "mtbench/vector": ["tests/vector/test_rollout.py"],
    "results": ["tests/test_result_pages.py"],
    "results/cluster": ["tests/test_cluster_results.py", "tests/test_result_pages.py"],
    "results/gpu": ["tests/agents/test_predicted_costs.py", "tests/test_result_pages.py"],
    "results/learning": ["tests/agents/test_learning_results.py", "tests/test_result_pages.py"],
    "results/vector": ["tests/test_result_pages.py", "tests/vector/test_vector_results.py"],
}


def changed_files(root, base=None):
    """Paths that differ from `base`: by default from the last commit that this branch shares with main."""

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip("\0\n")

    if base is None:
        mains = git("for-each-ref", "--format=%(refname)", "refs/heads/main", "refs/remotes/origin/main").split()
        base = git("merge-base", "HEAD", mains[0]) if mains else "HEAD"
    listed = git("diff", "--name-only", "-z", base), git("ls-files", "--others", "--exclude-standard", "-z")
    return sorted({path for names in listed for path in names.split("\0") if path})


def selection(paths, root=ROOT):
    """The test files of changed files, and the IDs whose contract to run."""
    files, ids = set(), set()
    for path in map(PurePosixPath, paths):
        ids |= _ids(path)
        if path.is_relative_to(CONTRACT):
            continue
        if path.parts[0] == "tests":
            files |= _tests_of_tests(path, root)
        else:
            files |= _tests_of_code(path, root)
            files |= {TYPES} if path.suffix == ".py" and path.parts[0] in ("mtbench", "agents") else set()
    return sorted(file for file in files if not file.startswith((CONTRACT, GOLDEN))), sorted(ids)


def _ids(path):
    """The IDs whose contract a file can break."""
    if str(path) in CORE or path.parent in (PurePosixPath(CONTRACT), PurePosixPath(GOLDEN).parent):
        return FASTEST
    if path.parent == PurePosixPath("tests/golden"):
        return {path.stem} & {row.id for row in TABLE}
    if path.parts[:2] == ("mtbench", "suites"):
        name = path.with_suffix("").parts[2]
        return {row.id for row in TABLE if row.suite.extra == name}
    return set()


def _tests_of_tests(path, root):
    """A test file itself; of a helper, its own test, else the tests beside it that import it, else all of them."""
    if path.suffix != ".py" or path.name == "__init__.py":
        return set()
    for test in (path, path.with_name(f"test_{path.name}")):
        if test.name.startswith("test_") and (root / test).exists():
            return {str(test)}
    if path.name.startswith("test_"):
        return set()  # deleted
    return _importing(path, root / path.parent, root) or _all(root / path.parent, root)


def _tests_of_code(path, root):
    if named := NAMED.get(str(path.with_suffix(""))):
        return set(named)
    folder = next((place for place in path.parents if str(place) in OTHERWISE), None)
    otherwise = set(OTHERWISE[str(folder)]) if folder else set()
    if path.parts[0] not in ("mtbench", "agents"):
        return otherwise
    if path.parts[:2] == ("mtbench", "suites") and len(path.parts) > 3:
        return {str(test.relative_to(root)) for test in (root / "tests/suites").glob(f"test_{path.parts[2]}*.py")}
    # agents/random.py and mtbench/suites/atari/game.py: tests/agents/test_random.py and tests/suites/test_atari.py.
    inside = path.relative_to("mtbench") if path.parts[0] == "mtbench" else path
    tested = PurePosixPath("tests") / inside.with_suffix("")
    for place in (place for place in (tested, *tested.parents) if place.name):
        mirror = place.with_name(f"test_{place.name}.py")
        if (root / mirror).is_file():
            return {str(mirror)}
    beside = next(root / place for place in tested.parents if (root / place).is_dir())
    closer = folder and len(folder.parts) == len(path.parts) - 1
    return _importing(path, beside, root) or (otherwise if closer else _all(beside, root))


def _all(folder, root):
    return {str(test.relative_to(root)) for test in folder.glob("test_*.py")}


def _importing(path, folder, root):
    """The test files of a folder that import a module."""
    package = ".".join(path.parent.parts).replace("agents", "mtbench_agents", path.parts[0] == "agents")
    package, name = re.escape(package), re.escape(path.stem)
    imports = re.compile(rf"(\b{package}|from )\.{name}\b|from (\.|{package}) import .*\b{name}\b")
    return {test for test in _all(folder, root) if imports.search((root / test).read_text())}


def contract_filter(ids):
    """What `pytest -k` takes to run the contract over some IDs; where games are long, golden traces of short ones."""
    parts = []
    for row in (row for row in TABLE if row.id in ids):
        games = {game for games in SHORT_GAMES.get(row.kwargs["suite"], {}).values() for game in games}
        golden = "".join(f" or {game}" for game in sorted(games))
        parts.append(f"({row.id} and (not test_golden{golden}))" if games else f"({row.id})")
    return " or ".join(parts)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="a commit to compare with; by default where this branch left main")
    parser.add_argument("--list", action="store_true", help="print what would run, and run nothing")
    chosen = parser.parse_args(arguments)
    paths = changed_files(ROOT, chosen.base)
    files, ids = selection(paths)
    print(f"{len(paths)} changed files. Their tests:")
    for line in [*files, *(f"{CONTRACT} of {env_id}" for env_id in ids)] or ["none"]:
        print(f"  {line}", flush=True)
    runs = [files] * bool(files) + [[CONTRACT, GOLDEN, "-k", contract_filter(ids)]] * bool(ids)
    command = [sys.executable, "-m", "pytest", "-n", "auto", "--dist", "worksteal", "-m", "not slow"]
    codes = [] if chosen.list else [subprocess.run([*command, *run], cwd=ROOT).returncode for run in runs]
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main())
