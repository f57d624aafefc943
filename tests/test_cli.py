"""The commands as a user types them, in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mtbench.scoring.references import load_references

MTBENCH = str(Path(sys.executable).with_name("mtbench"))
TASKS = '--env=tasks=["MineSweeperEasy","RepeatFirstEasy"]'


def run(*arguments, cwd, code=0, **kwargs):
    done = subprocess.run([MTBENCH, *arguments], cwd=cwd, capture_output=True, text=True, timeout=300, **kwargs)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout if code == 0 else done.stderr


def evaluate(out, cwd, *arguments, **kwargs):
    return run(
        "evaluate", "MTPOPGym-v0", "--out", out, "--rollouts-per-task", "3", TASKS, *arguments, cwd=cwd, **kwargs
    )


def test_list_and_info(tmp_path):
    assert "MTPOPGym-v0" in run("list", cwd=tmp_path)
    shown = run("info", "MTPOPGym-v0", cwd=tmp_path)
    for word in ("k = 2", "k-shot", "Discrete(27)", "AutoencodeEasy", "best_published", "Morad"):
        assert word in shown


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


def test_ctrl_c_and_the_same_command_again(tmp_path):
    command = [MTBENCH, "evaluate", "MTPOPGym-v0", "--out", "run", "--rollouts-per-task", "150", "--num-envs", "4"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    shards = tmp_path / "run" / ".partial"
    deadline = time.monotonic() + 120
    while len(list(shards.glob("shard-*.parquet"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in said
    assert "Traceback" not in said
    kept = {path.name: path.stat().st_mtime_ns for path in shards.glob("shard-*.parquet")}
    assert len(kept) >= 3
    assert "has not finished" in run("score", "run", cwd=tmp_path, code=2)

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while len(list(shards.glob("shard-*.parquet"))) < len(kept) + 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    process.kill()
    process.communicate(timeout=60)
    assert all((shards / name).stat().st_mtime_ns == stamp for name, stamp in kept.items())
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=300)
    assert "MineSweeperEasy" in run("score", "run", cwd=tmp_path)


def test_a_missing_extra_is_answered_with_the_line_to_run(tmp_path):
    """Hide popgym from a fresh interpreter, as in an environment without the extra."""
    (tmp_path / "popgym.py").write_text("raise ModuleNotFoundError(\"No module named 'popgym'\", name='popgym')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    said = run("play", "MTPOPGym-v0", cwd=tmp_path, code=2, env=environment)
    assert "pip install 'mtbench-rl[popgym]'" in " ".join(said.split())


def test_output_into_a_closed_pipe_is_quiet(tmp_path):
    command = f"{MTBENCH} info MTPOPGym-v0 | head -n 1"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.stderr == ""
