"""The commands as a user types them, in processes of their own."""

import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from typer.testing import CliRunner

from mtbench import facts, registration
from mtbench.cli import app
from mtbench.rollout import MetaRollout
from mtbench.scoring.references import load_references
from mtbench.suite import load_suite
from tests.toy import Toy

MTBENCH = str(Path(sys.executable).with_name("mtbench"))
TASKS = '--env=tasks=["MineSweeperEasy","RepeatFirstEasy"]'


def run(*arguments, cwd, code=0, **kwargs):
    done = subprocess.run([MTBENCH, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def printed(*arguments, columns=80):
    """What a command prints, without a process of its own."""
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def terminal(*arguments, columns):
    """What a command prints on a terminal of so many columns."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    process = subprocess.Popen([MTBENCH, *arguments], stdout=theirs, stderr=subprocess.DEVNULL, env=environment)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux's end of a terminal
            part = b""
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(60) == 0
    return shown.decode().replace("\r\n", "\n")


def evaluate(out, cwd, *arguments, **kwargs):
    return run(
        "evaluate", "MTPOPGym-v0", "--out", out, "--rollouts-per-task", "3", TASKS, *arguments, cwd=cwd, **kwargs
    )


def test_list_and_info(tmp_path):
    assert "MTPOPGym-v0" in run("list", cwd=tmp_path)
    shown = run("info", "MTPOPGym-v0", cwd=tmp_path)
    for word in ("k = 2", "k-shot", "Discrete(27)", "AutoencodeEasy", "best_published", "Morad"):
        assert word in shown


@pytest.mark.parametrize("columns", [80, 200])
def test_list_is_whole_in_a_pipe_and_on_a_terminal(columns):
    piped = printed("list", columns=columns)
    assert terminal("list", columns=columns) == piped
    lines = piped.splitlines()
    assert max(map(len, lines)) <= 80
    for row in registration.TABLE:
        (line,) = (line for line in lines if line.startswith(f" {row.id} "))
        assert line.endswith(f"{row.kwargs['objective']:11}{row.summary}")
    assert "  popgym 1." in piped


def test_list_says_what_is_not_installed(monkeypatch):
    installed = facts._installed
    monkeypatch.setattr(facts, "_installed", lambda name: None if name == "ale-py" else installed(name))
    assert "ale-py is not installed; for MTAtari-v0, MTAtari-Clipped-v0" in printed("list")
    packages = {row["id"]: row["packages"] for row in json.loads(printed("list", "--json"))}
    assert packages["MTAtari-v0"] == {"ale-py": None}
    assert list(packages) == [row.id for row in registration.TABLE]


def test_info_breaks_no_line_in_a_pipe():
    lines = printed("info", "MTPOPGym-v0").splitlines()
    (source,) = (line for line in lines if line.startswith("best_published:"))
    assert source == f"best_published: {load_references('popgym').sources['best_published']}"
    assert len(source) > 80
    assert not any(line.endswith(" ") for line in lines)
    assert printed("info", "MTPOPGym-v0", columns=200).splitlines() == lines


def test_info_breaks_sentences_between_words_on_a_terminal():
    pytest.importorskip("popgym")
    shown = terminal("info", "MTPOPGym-v0", columns=80)
    assert max(map(len, shown.splitlines())) <= 80
    assert shown.split() == printed("info", "MTPOPGym-v0").split()


def test_info_names_the_tasks_of_a_split_and_further_ones():
    pytest.importorskip("minigrid")
    suite = load_suite("babyai")
    for split in ("train", "test"):
        shown = printed("info", "MTBabyAI-v0", "--split", split)
        named = [line.split()[0] for line in shown.splitlines() if line.startswith(" BabyAI-")]
        assert named == [*suite.splits[split].tasks, *suite.splits[split].also]
    chosen = printed("info", "MTBabyAI-v0", '--env=tasks=["BabyAI-Synth-v0"]')
    named = [line.split()[0] for line in chosen.splitlines() if line.startswith(" BabyAI-")]
    assert named[0] == "BabyAI-Synth-v0"
    assert named.count("BabyAI-Synth-v0") == 1


def test_info_as_json():
    def number(text):
        raise AssertionError(f"{text} is not JSON")

    content = json.loads(printed("info", "MTPOPGym-v0", "--json"), parse_constant=number)
    suite = load_suite("popgym")
    assert (content["suite"], content["k"], content["objective"]) == ("popgym", 2, "k-shot")
    space = suite.observation_space(2)
    assert content["observation_space"]["shape"] == list(space.shape)
    assert content["observation_space"]["dtype"] == str(space.dtype)
    assert content["observation_space"]["low"][0] == (space.low[0] if np.isfinite(space.low[0]) else None)
    assert content["action_space"]["n"] == 27
    for name, split in suite.splits.items():
        told = content["splits"][name]
        assert told["tasks"] == list(split.tasks)
        assert told["variants"]["drawn"]["count"] == len(split.variants)
        assert told["variants"]["evaluation"]["start"] == split.evaluation.start
    assert {task: told["longest_attempt"] for task, told in content["tasks"].items()} == {
        name: task.max_steps for name, task in suite.tasks.items()
    }
    scale = load_references("popgym").scales["published"]
    for task, told in content["tasks"].items():
        both = told["references"]["published"]
        assert both["low"] == {"value": scale.low[task].value, "entry": scale.low[task].entry}
        assert both["high"] == {"value": scale.high[task].value, "entry": scale.high[task].entry}
    assert content["warnings"] == list(load_references("popgym").warnings)


def test_info_as_json_lists_listed_variants_and_spaces_within_spaces():
    pytest.importorskip("minigrid")
    content = json.loads(printed("info", "MTBabyAI-v0", "--json"))
    assert content["observation_space"]["spaces"]["image"]["high"] == 10
    assert content["refused"] == dict(load_suite("babyai").refused)
    assert content["splits"]["train"]["further_tasks"] == list(load_suite("babyai").splits["train"].also)
    values = load_suite("procgen-easy").splits["test-distinct"].variants.values
    assert facts._variants(load_suite("procgen-easy").splits["test-distinct"].variants) == {
        "count": 500,
        "values": list(values),
    }


class Remarkable(Toy):
    """A suite without references, with all that a suite may say of itself."""

    departures = ("Walks are [bold]shorter[/bold].", "Goals are others.")
    seen_variants: ClassVar = {"train": {"near": 0.25}}
    remarks: ClassVar = {"near": "Its goals are few.", "far": "Its goals are far."}


def test_info_of_a_suite_without_references(monkeypatch):
    row = registration.Row("Walk-v0", "walks", {"suite": "toy", "k": 1, "objective": "k-episode"})
    monkeypatch.setattr(registration, "TABLE", (row,))
    monkeypatch.setattr("mtbench.cli._make", lambda env_id, options, **kwargs: MetaRollout(Remarkable()))
    shown = printed("info", "Walk-v0")
    for sentence in (
        "scale raw: the plain return",
        "- Walks are [bold]shorter[/bold].",
        "near: Its goals are few.",
        "0.25",
    ):
        assert sentence in shown
    assert "goals are far" not in shown, "of the other split"
    content = json.loads(printed("info", "Walk-v0", "--json"))
    assert content["tasks"]["near"]["references"] == {}
    assert content["seen_variants"] == {"train": {"near": 0.25}}
    assert content["departures"] == list(Remarkable.departures)
    assert content["remarks"] == Remarkable.remarks


def test_info_cuts_no_number_where_there_is_little_room(tmp_path):
    pytest.importorskip("metaworld")
    shown = run("info", "ML45-v0", cwd=tmp_path, env={**os.environ, "COLUMNS": "60"})
    row = next(line for line in shown.splitlines() if line.startswith(" assembly-v3"))
    task, steps, *anchors = row.split()
    assert (task, steps) == ("assembly-v3", "500")
    scales = load_references("metaworld-ml45").scales
    ends = [scales["raw"].low, scales["raw"].high, scales["oracle"].low, scales["oracle"].high]
    assert anchors == [f"{end[task].value:.3f}" for end in ends]


def test_info_draws_a_contact_sheet(tmp_path):
    from PIL import Image

    run("info", "MTPOPGym-v0", "--figure", "sheet.png", cwd=tmp_path)
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.width > 900
        assert image.height > 9 * 200


@pytest.mark.parametrize("video", ["out.gif", "out.mp4"])
def test_play_films_the_whole_rollout(tmp_path, video):
    out = run("play", "MTPOPGym-v0", "--policy", "oracle", "--task", "RepeatFirstEasy", "--video", video, cwd=tmp_path)
    assert "1.0000  51" in out
    if video.endswith("gif"):
        from PIL import Image

        with Image.open(tmp_path / video) as film:
            assert film.size == (480, 320)
            # Identical frames in a row may be merged; every other step shows another card.
            assert film.n_frames > 70
    else:
        import imageio_ffmpeg

        frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / video))
        assert frames == 1 + 51 + 1 + 51
        assert seconds == pytest.approx(10.4, abs=0.2)


def test_a_film_of_every_nth_step_has_the_same_speed(tmp_path):
    import imageio_ffmpeg

    arguments = ("MTPOPGym-v0", "--policy", "oracle", "--task", "RepeatFirstEasy", "--video", "out.mp4", "--every", "5")
    run("play", *arguments, cwd=tmp_path)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "out.mp4"))
    assert frames == 1 + 103 // 5 + 1, "the first, every fifth and the last"
    assert seconds == pytest.approx(10.4, abs=0.7)


def test_every_without_a_video_is_refused(tmp_path):
    assert "--video" in run("play", "MTPOPGym-v0", "--every", "5", cwd=tmp_path, code=2)


def test_play_can_pin_and_repeat(tmp_path):
    arguments = ("play", "MTPOPGym-v0", "--task", "MineSweeperEasy", "--variant", "5", "--seed", "3")
    assert run(*arguments, cwd=tmp_path) == run(*arguments, cwd=tmp_path)


def test_evaluate_then_score_and_plot(tmp_path):
    evaluate("runs/random", tmp_path)
    evaluate("runs/oracle", tmp_path, "--policy", "oracle")
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
    evaluate("runs/a", tmp_path)
    evaluate("runs/b", tmp_path, "--agent", "b")
    (tmp_path / "runs/b/manifest.json").unlink()
    assert "runs/b has no manifest.json" in run("score", "runs", cwd=tmp_path, code=2)


def test_skip_unfinished_names_what_it_leaves_out(tmp_path):
    for name in ("a", "b", "c"):
        evaluate(f"runs/{name}", tmp_path, "--agent", name)
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

    monkeypatch.setattr("mtbench.evaluation.play_shards", stop)
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
    evaluate("run", tmp_path)
    assert "nothing was played" in evaluate("run", tmp_path)


def test_train_evaluate_and_score_an_agent(tmp_path):
    arguments = ("train", "MTPOPGym-v0", "--preset", "debug", "--out", "runs/agent", TASKS, "--sync", "threads=1")
    shorter = ("updates=20", "round_updates=10", "collect.first_steps=300", "evaluate_rounds=0")
    run(*arguments, *shorter, cwd=tmp_path)
    log = [json.loads(line) for line in (tmp_path / "runs/agent/log.jsonl").read_text().splitlines()]
    assert [line["updates"] for line in log] == [10, 20]
    evaluate("evaluated/agent", tmp_path, "--policy", "runs/agent")
    evaluate("evaluated/random", tmp_path)
    assert "agent: return" in run("score", "evaluated", cwd=tmp_path)


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


def test_a_corrupt_record_is_named(tmp_path):
    evaluate("run", tmp_path)
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
