"""What `make check` runs."""

import subprocess

import pytest

from tests.changed import CONTRACT, TYPES, changed_files, contract_filter, main, selection
from tests.paths import ROOT

FASTEST = ["MTBabyAI-v0", "MTPOPGym-v0"]
PROCGEN = ["MTProcgen-Easy-v0", "MTProcgen-EasyRescaled-v0", "MTProcgen-MemoryHard-v0"]

# A repository of test files, by what they import.
TESTS = {
    "tests/test_records.py": "",
    "tests/test_rollout.py": "from tests import toy",
    "tests/test_changed.py": "",
    "tests/test_spaces.py": "",
    "tests/agents/test_random.py": "",
    "tests/agents/transformer/test_learner.py": "",
    "tests/agents/transformer/test_train.py": "from mtbench_agents.transformer import checkpoint, train",
    "tests/contract/test_golden.py": "from . import golden",
    "tests/scoring/test_aggregates.py": "",
    "tests/scoring/test_scores.py": "from mtbench.scoring.report import summary",
    "tests/suites/test_atari.py": "",
    "tests/suites/test_metaworld.py": "",
    "tests/suites/test_babyai_engine.py": "",
    "tests/suites/test_babyai_oracle.py": "",
    "tests/suites/test_pixel_engines.py": "",
    "tests/suites/test_popgym.py": "",
    "tests/vector/test_rollout.py": "",
}


@pytest.fixture
def root(tmp_path):
    for name, content in TESTS.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize(
    ("path", "files", "ids"),
    [
        ("mtbench/records.py", ["tests/test_records.py"], []),
        ("mtbench/errors.py", ["tests/test_cli.py", "tests/test_evaluation.py", "tests/test_package.py"], []),
        ("mtbench/rollout.py", ["tests/test_rollout.py"], FASTEST),
        ("mtbench/scoring/scores.py", ["tests/scoring/test_scores.py"], []),
        ("mtbench/scoring/report.py", ["tests/scoring/test_scores.py"], []),
        ("mtbench/scoring/new.py", ["tests/scoring/test_aggregates.py", "tests/scoring/test_scores.py"], []),
        ("mtbench/vector/loops.py", ["tests/vector/test_rollout.py"], FASTEST),
        (
            "mtbench/suites/babyai/engine.py",
            ["tests/suites/test_babyai_engine.py", "tests/suites/test_babyai_oracle.py"],
            ["MTBabyAI-v0"],
        ),
        ("mtbench/suites/popgym/rules/cards.py", ["tests/suites/test_popgym.py"], ["MTPOPGym-v0"]),
        (
            "mtbench/suites/atari/engine.py",
            ["tests/suites/test_pixel_engines.py"],
            ["MTAtari-Clipped-v0", "MTAtari-v0"],
        ),
        ("mtbench/suites/atari/game.py", ["tests/suites/test_atari.py"], ["MTAtari-Clipped-v0", "MTAtari-v0"]),
        ("mtbench/suites/metaworld/goals.npz", ["tests/suites/test_metaworld.py"], ["ML10-v0", "ML45-v0"]),
        ("agents/random.py", ["tests/agents/test_random.py"], []),
        ("agents/transformer/learner.py", ["tests/agents/transformer/test_learner.py"], []),
        ("agents/transformer/checkpoint.py", ["tests/agents/transformer/test_train.py"], []),
        ("tests/test_spaces.py", ["tests/test_spaces.py"], []),
        ("tests/test_that_was_deleted.py", [], []),
        ("tests/changed.py", ["tests/test_changed.py"], []),
        ("tests/toy.py", ["tests/test_rollout.py"], []),
        ("mtbench/testing/_contract/helpers.py", [], FASTEST),
        ("tests/contract/golden.py", [], FASTEST),
        ("tests/golden/ML10-v0.json", [], ["ML10-v0"]),
        (
            "results/learning/README.md",
            ["tests/agents/test_learning_results.py", "tests/test_result_pages.py"],
            [],
        ),
        ("README.md", ["tests/test_readme.py", "tests/test_result_pages.py"], []),
        ("LICENSE", [], []),
    ],
)
def test_a_changed_file_runs_its_tests(root, path, files, ids):
    code = path.startswith(("mtbench/", "agents/")) and path.endswith(".py") and not path.startswith(CONTRACT)
    assert selection([path], root) == (sorted([*files, TYPES] if code else files), ids)


def test_every_source_file_has_tests_that_exist():
    sources = [*(ROOT / "mtbench").rglob("*.py"), *(ROOT / "agents").rglob("*.py")]
    for path in (path for path in sources if "_contract" not in path.parts):  # which are tests
        files, _ = selection([str(path.relative_to(ROOT))])
        assert files, path
        assert all((ROOT / file).is_file() for file in files), path


def test_long_games_keep_their_short_golden_traces():
    assert contract_filter(["MTPOPGym-v0"]) == "(MTPOPGym-v0)"
    assert "ML10-v0 and (not test_golden or lever-pull-v3" in contract_filter(["ML10-v0"])


def test_changes_since_main_and_uncommitted_ones_are_found(tmp_path):
    def git(*arguments):
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    def write(name, content="1"):
        (tmp_path / name).write_text(content)

    git("init", "-b", "main")
    for name in ("untouched", "edited", "staged"):
        write(name)
    git("add", ".")
    git("commit", "-m", "first")
    git("switch", "-c", "branch")
    write("committed")
    git("add", ".")
    git("commit", "-m", "second")
    write("edited", "2")
    write("staged", "2")
    git("add", "staged")
    write("new file")
    assert changed_files(tmp_path) == ["committed", "edited", "new file", "staged"]
    assert changed_files(tmp_path, "HEAD") == ["edited", "new file", "staged"]


def test_a_list_is_printed_and_nothing_runs(capsys, monkeypatch):
    monkeypatch.setattr("tests.changed.changed_files", lambda *_: ["mtbench/rollout.py"])
    assert main(["--list"]) == 0
    printed = capsys.readouterr().out
    assert "1 changed files" in printed
    assert "tests/test_rollout.py" in printed
    assert "mtbench/testing/_contract of MTPOPGym-v0" in printed


def test_a_failure_is_passed_on(monkeypatch):
    run = []

    def failing(command, **_):
        run.append(command[3:])
        return subprocess.CompletedProcess(command, len(run) - 1)

    monkeypatch.setattr("tests.changed.changed_files", lambda *_: ["mtbench/suites/babyai/rules.py"])
    monkeypatch.setattr("tests.changed.subprocess.run", failing)
    assert main([]) == 1
    options = ["-n", "auto", "--dist", "worksteal", "-m", "not slow"]
    tests_of_babyai = sorted(f"tests/suites/{path.name}" for path in (ROOT / "tests/suites").glob("test_babyai*.py"))
    assert run == [
        [*options, *tests_of_babyai, TYPES],
        [*options, "mtbench/testing/_contract", "tests/contract/test_golden.py", "-k", "(MTBabyAI-v0)"],
    ]
