"""``mtbench evaluate``, ``score``, ``plot``, ``train`` and ``bench``, and what all commands do with mistakes."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mtbench.cli import app
from mtbench.scoring.references import load_references
from tests.commands import MTBENCH, TASKS, evaluate, evaluated, run
from tests.paths import ROOT


def test_evaluate_then_score_and_plot(tmp_path):
    evaluate("runs/random", tmp_path)
    evaluated(tmp_path / "runs" / "oracle", "oracle")
    table = run("score", "runs", cwd=tmp_path)
    assert "| MineSweeperEasy" in table
    assert "oracle is privileged" in table
    assert run("score", "runs/random", "runs/oracle", cwd=tmp_path).count("###") == 4
    assert json.loads(run("score", "runs", "--format", "json", cwd=tmp_path))["k"] == 2
    run("plot", "runs", "--out", "scores.svg", cwd=tmp_path)
    assert (tmp_path / "scores.svg").read_text().startswith("<?xml")
    manifest = json.loads((tmp_path / "runs/random/manifest.json").read_text())
    assert manifest["command"][:3] == ["mtbench", "evaluate", "MTPOPGym-v0"]


def test_an_unfinished_run_in_a_folder_is_not_left_out(tmp_path):
    for name in ("a", "b"):
        evaluated(tmp_path / "runs" / name, agent=name)
    (tmp_path / "runs/b/manifest.json").unlink()
    assert "runs/b has no manifest.json" in run("score", "runs", cwd=tmp_path, code=2)


def test_skip_unfinished_names_what_it_leaves_out(tmp_path):
    for name in ("a", "b", "c"):
        evaluated(tmp_path / "runs" / name, agent=name)
    (tmp_path / "runs/b/manifest.json").unlink()
    episodes = tmp_path / "runs/c/episodes.parquet"
    episodes.write_bytes(episodes.read_bytes()[:1000])
    assert "runs/b has no manifest.json" in run("score", "runs", cwd=tmp_path, code=2)
    arguments = ["score", "runs", "--skip-unfinished", "--format", "json"]
    done = subprocess.run([MTBENCH, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '"a"' in done.stdout
    assert '"b"' not in done.stdout
    first, second = done.stderr.splitlines()
    assert "runs/b has no manifest.json" in first
    assert "runs/c/episodes.parquet" in second
    said = run("score", "runs/b", "runs/c", "--skip-unfinished", cwd=tmp_path, code=2)
    assert "nothing to score" in said
    assert "not a folder" in run("score", "nowhere", "--skip-unfinished", cwd=tmp_path, code=2)


@pytest.mark.parametrize("arguments", [("--policy", "orcale"), ('--env=tasks=["no-such-task"]',), ("--split", "no")])
def test_a_refused_evaluation_leaves_nothing(tmp_path, arguments):
    run("evaluate", "MTPOPGym-v0", "--out", "run", *arguments, cwd=tmp_path, code=2)
    assert list(tmp_path.iterdir()) == []


def test_evaluate_says_which_split_it_plays_by_default(tmp_path):
    command = [MTBENCH, "evaluate", "MTPOPGym-v0", "--out", "run", "--rollouts-per-task", "1", TASKS]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert "Evaluating the test split, as by default" in done.stderr
    named = subprocess.run([*command, "--split", "test"], cwd=tmp_path, capture_output=True, text=True)
    assert (named.returncode, named.stderr) == (0, "")


def test_evaluate_says_before_playing_which_scores_there_cannot_be(tmp_path, monkeypatch):
    pytest.importorskip("ale_py")
    told = []
    monkeypatch.setattr("mtbench.cli.tell", told.append)

    def stop(*arguments, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("mtbench.backends.play_shards", stop)
    arguments = ["evaluate", "MTAtari-v0", '--env=tasks=["pong", "adventure"]', "--out", str(tmp_path / "run")]
    assert CliRunner().invoke(app, arguments).exit_code == 130
    for scale in load_references("atari").scales:
        assert any(f"the {scale} scale" in line and line.endswith("for: adventure.") for line in told)


def test_a_train_seed_of_zero_counts(tmp_path):
    (tmp_path / "mine.py").write_text(
        "class Agent:\n"
        "    agent, train_seed, step = 'mine', 7, 9\n"
        "    def start(self, num_envs, seed, observation_space, action_space):\n"
        "        self.actions = [0] * num_envs\n"
        "    def act(self, observations, reset_mask):\n"
        "        return self.actions\n"
    )
    evaluate("run", tmp_path, "--policy", "mine.py:Agent", "--train-seed", "0", "--step", "0")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert (manifest["train_seed"], manifest["step"]) == (0, 0)


def test_names_are_no_markup_and_no_escapes(tmp_path):
    (tmp_path / "[red]mine.py").write_text("def act(obs):\n    return 0\n")
    name = "[red]mine.py:act"
    assert f"{name} played" in run("play", "MTPOPGym-v0", "--policy", name, cwd=tmp_path)
    assert "run" in evaluate("run[/b]", tmp_path, "--agent", "[/red]x")
    said = run("score", "no\x1b]0;title\x07where[/red]\x1b[2J\nerror: all is well", cwd=tmp_path, code=2)
    assert "\x1b" not in said
    assert "\x07" not in said
    assert said.startswith("error: nowhere[/red] error: all is well is not a folder")
    assert said.count("\n") == 1


def test_a_finished_evaluation_says_that_nothing_was_played(tmp_path):
    evaluated(tmp_path / "run")
    assert "nothing was played" in evaluate("run", tmp_path)


def test_train_evaluate_and_score_an_agent(tmp_path):
    arguments = ("train", "MTPOPGym-v0", "--preset", "debug", "--out", "runs/agent", TASKS, "--sync", "threads=1")
    shorter = ("updates=20", "round_updates=10", "collect.first_steps=300", "evaluate_rounds=0")
    run(*arguments, *shorter, cwd=tmp_path)
    log = [json.loads(line) for line in (tmp_path / "runs/agent/log.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in log] == [10, 20]
    evaluate("evaluated/agent", tmp_path, "--policy", "runs/agent")
    evaluated(tmp_path / "evaluated" / "random")
    assert "agent: return" in run("score", "evaluated", cwd=tmp_path)
    assert "holds a training run" in evaluate("runs/agent", tmp_path, code=2)
    arguments = ("train", "MTPOPGym-v0", "--preset", "debug", "--out", "evaluated/random")
    assert "holds an evaluation" in run(*arguments, cwd=tmp_path, code=2)
    assert not (tmp_path / "evaluated/random/config.json").exists()


def test_bench_ends_in_one_json_object(tmp_path):
    arguments = (
        "bench",
        "agent",
        "--preset",
        "debug",
        "--batch-size",
        "2",
        "--context",
        "8",
        "--updates",
        "1",
        "--json",
    )
    numbers = json.loads(run(*arguments, cwd=tmp_path).splitlines()[-1])
    wanted = {"seconds_per_update", "ms_per_batched_action", "tokens_per_s", "peak_memory_gib", "parameters", "device"}
    assert wanted <= set(numbers)


def test_a_users_own_function_is_evaluated(tmp_path):
    (tmp_path / "mine.py").write_text("def act(obs):\n    return int(obs[:4].argmax())\n")
    for name in ("mine:act", "mine.py:act"):
        evaluate(f"runs/{name[4]}", tmp_path, "--policy", name, "--agent", "argmax")
    assert "argmax" in run("score", "runs/:", cwd=tmp_path)


def test_a_users_error_keeps_its_traceback(tmp_path):
    (tmp_path / "mine.py").write_text("def act(obs):\n    return obs.no_such_thing\n")
    done = subprocess.run(
        [MTBENCH, "evaluate", "MTPOPGym-v0", "--policy", "mine:act", "--out", "x"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "no_such_thing" in done.stderr
    assert "mine.py" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "MTPOPGm-v0"), "Did you mean 'MTPOPGym-v0'?"),
        (("play", "MTPOPGym-v0", "--policy", "orcale"), "Did you mean 'oracle'?"),
        (("play", "MTPOPGym-v0", "--task", "AutoencodeEazy"), "Did you mean 'AutoencodeEasy'?"),
        (("play", "MTPOPGym-v0", "--split", "vali"), "Choose from: train, test."),
        (("play", "MTPOPGym-v0", "--video", "out.avi"), ".mp4, .gif"),
        (("play", "MTPOPGym-v0", "--env", "k"), "KEY=VALUE"),
        (("play", "MTPOPGym-v0", "--env", "kk=2"), "Did you mean 'k'?"),
        (("play", "MTPOPGym-v0", "--env", "k=0"), "at least 1"),
        (("score", "nowhere"), "not a folder"),
        (("score", "."), "manifest.json"),
        (("play", "MTPOPGym-v0", "--env", "split=test"), "There is no environment argument 'split'"),
        (("play", "MTPOPGym-v0", "--env", "tasks=5"), "list of names"),
        (("play", "MTPOPGym-v0", "--env", "tasks=AutoencodeEasy"), 'write tasks=["AutoencodeEasy"]'),
        (("play", "MTPOPGym-v0", "--env", "tasks=[AutoencodeEasy]"), "Put the option in single quotes"),
        (("play", "MTPOPGym-v0", "--policy", ":act"), "names no policy"),
        (("evaluate", "MTPOPGym-v0", "--out", "/dev/null/x"), "/dev/null"),
        (("train", "MTPOPGym-v0", "--preset", "smal"), "Did you mean 'small'?"),
        (("train", "MTPOPGym-v0", "model.widht=3"), "Did you mean 'model.width'?"),
        (("score", ".", "--format", "docx"), "There is no format 'docx'"),
        (("evaluate", "MTPOPGym-v0"), "--out"),
    ],
)
def test_mistakes_are_explained_in_a_line_or_two(tmp_path, arguments, message):
    said = " ".join(run(*arguments, cwd=tmp_path, code=2).split())
    assert message in said


def test_a_warning_is_a_line_without_code():
    pendulum = ("MetaPendulum-v0", "--suite", "examples.pendulum")
    said = run("train", *pendulum, "--preset", "debug", "learning.rate=-1", cwd=ROOT, code=2)
    warning, error = said.splitlines()
    assert warning.startswith("warning: The reward scale of MetaPendulum-v0 is unknown")
    assert error.startswith("error: ")


def test_a_corrupt_record_is_named(tmp_path):
    evaluated(tmp_path / "run")
    path = tmp_path / "run" / "episodes.parquet"
    path.write_bytes(path.read_bytes()[:1000])
    assert "run/episodes.parquet" in run("score", "run", cwd=tmp_path, code=2)


def test_a_missing_extra_is_answered_with_the_line_to_run(tmp_path):
    """Hide popgym from a fresh interpreter, as in an environment without the extra."""
    (tmp_path / "popgym.py").write_text("raise ModuleNotFoundError(\"No module named 'popgym'\", name='popgym')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = run("play", "MTPOPGym-v0", cwd=tmp_path, code=2, env=environment)
    assert "pip install 'mtbench-rl[popgym]'" in " ".join(said.split())


@pytest.mark.parametrize(
    ("command", "reader"), [("info MTPOPGym-v0", "head -n 1"), ("list", "true"), ("list --json", "true")]
)
def test_output_into_a_closed_pipe_is_quiet(tmp_path, command, reader):
    command = f"{MTBENCH} {command} | {reader}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_to_a_full_disk_is_one_line():
    done = subprocess.run(f"{MTBENCH} list > /dev/full", shell=True, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: No space left on device"]


def test_validation_cases_are_of_the_train_split(tmp_path):
    evaluate("run", tmp_path, "--cases", "validation")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    assert (manifest["cases"], manifest["split"]) == ("validation", "train")
