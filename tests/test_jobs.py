"""Evaluations that several processes play: the same records as one process gives, whatever happens to any of them."""

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtbench import backends, evaluation, jobs
from mtbench.evaluation import evaluate
from mtbench.records import read_run
from tests import toy
from tests.test_playing import LIMIT, SPLITS, TASKS, Reader

MTBENCH = str(Path(sys.executable).with_name("mtbench"))
SHORT = ["MineSweeperEasy", "RepeatFirstEasy"]
ROOT = Path(__file__).parent.parent

# A policy of what it sees. Once a shard is on disk, its copy in the worker, which is slow, does what the test says; the
# other one waits until there is a worker, and is slow from then on. What it prints must not get between the worker's
# answers.
POLICY = """
import os, signal, time
from pathlib import Path
from tests.test_playing import Reader

PARENT, WORKER = Path("parent.pid"), Path("worker.pid")
if not PARENT.exists():
    PARENT.write_text(str(os.getpid()))
WORKS = PARENT.read_text() != str(os.getpid())

class Policy(Reader):
    def act(self, observations, reset_mask):
        what = os.environ.get("WHAT")
        begun = bool(list(Path("run/.partial").glob("shard-*.parquet")))
        if WORKS:
            os.write(1, b"loud")
            WORKER.write_text(str(os.getpid()))
            if what and begun:
                if what == "raise":
                    raise RuntimeError("broken policy")
                os.kill(os.getpid() if what == "die" else os.getppid(), getattr(signal, what, signal.SIGKILL))
                time.sleep(600)
            if what:
                time.sleep(0.02)  # else it may play all there is before a shard is written
        elif what:
            deadline = time.monotonic() + 120
            while not WORKER.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            if begun:
                time.sleep(0.02)
        return super().act(observations, reset_mask)
"""


def quick(out, policy="random", **kwargs):
    arguments = {"rollouts_per_task": 8, "num_envs": 1, "env_kwargs": {"tasks": SHORT}, **kwargs}
    return evaluate("MTPOPGym-v0", policy, out, **arguments)


@pytest.fixture
def counted(monkeypatch):
    """The workers that were started."""
    started = []

    class Counted(jobs.Helper):
        def __init__(self, module):
            started.append(self)
            super().__init__(module)

    monkeypatch.setattr(jobs, "Helper", Counted)
    return started


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current one, with the policy in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "mine.py").write_text(POLICY)
    return tmp_path


def interrupted(folder, env_id, what, *arguments):
    """The exit code and the last words of an evaluation in which something happens; no worker of it lives on."""
    for name in ("parent.pid", "worker.pid"):
        (folder / name).unlink(missing_ok=True)
    command = [MTBENCH, "evaluate", env_id, "--policy", "mine.py:Policy", "--num-envs", "1", "--jobs", "2", *arguments]
    done = subprocess.run(
        [*command, "--out", "run"],
        **{"cwd": folder, "env": {**os.environ, "WHAT": what}, "capture_output": True, "text": True, "timeout": 600},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a shell may have ignored it
    )
    process, deadline = int((folder / "worker.pid").read_text()), time.monotonic() + 120
    while is_running(process) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(process)
    assert "loud" not in done.stdout
    return done.returncode, " ".join(done.stderr.split())


def is_running(process):
    """Whether a process is, dead ones apart that nobody has waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


posix = pytest.mark.skipif(os.name != "posix", reason="POSIX signals")


# ---- the same records ----


@posix
@pytest.mark.parametrize("env_id", TASKS)
def test_records_are_the_same_for_any_number_of_jobs_and_environments_and_after_a_kill(folder, env_id):
    tasks = SPLITS.get(env_id, TASKS[env_id])
    rollouts = 12 // len(tasks)
    arguments = {"rollouts_per_task": rollouts, "env_kwargs": {"tasks": tasks, "max_steps": LIMIT}}
    whole = [evaluate(env_id, Reader(), folder / f"{n}", num_envs=n, jobs=1, **arguments) for n in (7, 64)]
    options = ("--rollouts-per-task", f"{rollouts}", f"--env=tasks={json.dumps(tasks)}", f"--env=max_steps={LIMIT}")
    assert interrupted(folder, env_id, "SIGKILL", *options)[0] == -signal.SIGKILL
    assert list((folder / "run" / ".partial").glob("shard-*.parquet"))
    (folder / "parent.pid").unlink()
    resumed = evaluate(env_id, "mine.py:Policy", "run", agent=None, num_envs=1, jobs=2, **arguments)
    for run in whole:
        pd.testing.assert_frame_equal(
            resumed.episodes.drop(columns="agent"), run.episodes.drop(columns="agent"), check_dtype=False
        )


def test_draws_of_a_policy_do_not_depend_on_the_jobs(tmp_path, counted):
    one, two = quick(tmp_path / "1", jobs=1), quick(tmp_path / "2", jobs=2)
    assert len(counted) == 1
    pd.testing.assert_frame_equal(one.episodes, two.episodes)
    assert "jobs" not in two.manifest


def test_privileged_policies_play_in_workers_too(tmp_path, counted):
    one, three = quick(tmp_path / "1", "oracle", jobs=1), quick(tmp_path / "3", "oracle", jobs=3)
    assert len(counted) == 2
    pd.testing.assert_frame_equal(one.episodes, three.episodes)


def test_a_trained_agent_plays_alike_in_one_and_two_jobs(tmp_path, counted):
    pytest.importorskip("torch")
    from tests.agents.transformer.test_train import trained

    trained(tmp_path / "agent", updates=3)
    one, two = (
        evaluate(
            "MTPOPGym-v0",
            str(tmp_path / "agent"),
            tmp_path / f"{jobs}",
            jobs=jobs,
            rollouts_per_task=12,
            num_envs=2,
            env_kwargs={"tasks": ["MineSweeperEasy", "PositionOnlyCartPoleEasy"]},
        )
        for jobs in (1, 2)
    )
    assert len(counted) == 1
    pd.testing.assert_frame_equal(one.episodes, two.episodes)


def test_workers_play_an_environment_that_only_the_caller_registers(tmp_path, monkeypatch, counted):
    toy.register(monkeypatch)
    frames = [
        evaluate("Toy-v0", Reader(), tmp_path / f"{n}", rollouts_per_task=16, num_envs=1, jobs=n).episodes
        for n in (1, 2)
    ]
    assert len(counted) == 1
    pd.testing.assert_frame_equal(*frames)


def test_progress_counts_every_rollout_once(tmp_path):
    said = []
    quick(tmp_path / "run", jobs=2, on_rollout=lambda done, total: said.append((done, total)))
    assert said == [(done, 16) for done in range(1, 17)]


# ---- when there are workers ----


def test_a_short_evaluation_starts_no_worker_and_a_longer_one_does(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(backends, "cpus", lambda: 2)
    monkeypatch.setattr(backends, "START_DELAY", 600.0)
    quick(tmp_path / "short")
    assert not counted
    monkeypatch.setattr(backends, "START_DELAY", 0.0)
    quick(tmp_path / "long")
    assert len(counted) == 1


def test_a_model_on_a_gpu_stays_in_one_process(tmp_path, monkeypatch, counted):
    monkeypatch.setattr(backends, "START_DELAY", 0.0)
    monkeypatch.setattr(backends, "uses_a_gpu", lambda: True)
    quick(tmp_path / "run")
    assert not counted


def test_a_policy_that_cannot_be_sent_plays_in_one_process(tmp_path, counted):
    class Local(Reader):
        pass

    whole = quick(tmp_path / "whole", Reader(), agent="a", jobs=1)
    with pytest.warns(UserWarning, match="other processes cannot load this policy"):
        local = quick(tmp_path / "local", Local(), agent="a", jobs=2)
    with pytest.warns(UserWarning, match="other processes cannot load this policy"):
        quick(tmp_path / "lambda", lambda observation: 0, jobs=2)
    quick(tmp_path / "default", lambda observation: 0)
    assert not counted
    pd.testing.assert_frame_equal(local.episodes, whole.episodes)


class Elsewhere(Reader):
    """Cannot be unpickled."""

    def __reduce__(self):
        return _refuse, ()


def _refuse():
    raise RuntimeError("no such model here")


def test_a_policy_that_workers_cannot_load_plays_in_one_process(tmp_path, counted):
    whole = quick(tmp_path / "whole", Reader(), agent="a", jobs=1)

    def wait(done, total):
        deadline = time.monotonic() + 120
        while any(thread.name == jobs.THREADS for thread in threading.enumerate()) and time.monotonic() < deadline:
            time.sleep(0.01)  # until the worker has answered

    with pytest.warns(UserWarning, match="RuntimeError: no such model here With jobs = 1"):
        refused = quick(tmp_path / "run", Elsewhere(), agent="a", jobs=2, on_rollout=wait)
    assert len(counted) == 1
    pd.testing.assert_frame_equal(refused.episodes, whole.episodes)


def test_a_script_without_a_guard_runs_once(folder):
    script = folder / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(f"""
from mtbench.evaluation import evaluate
from tests.test_playing import Reader
print("begins")
arguments = {{"rollouts_per_task": 8, "num_envs": 1, "env_kwargs": {{"tasks": {SHORT!r}}}, "jobs": 2}}
evaluate("MTPOPGym-v0", "random", "named", **arguments)

class Mine(Reader):
    pass

evaluate("MTPOPGym-v0", Mine(), "mine", **arguments)
print("ends")
""")
    (folder / "random.py").write_text("raise RuntimeError('a file of the user, in the folder where workers start')")
    done = subprocess.run([sys.executable, script], capture_output=True)
    assert done.stdout == b"begins\nends\n", done.stderr


def test_a_worker_starts_where_files_have_the_names_of_modules(folder):
    for name in ("random", "signal", "numpy"):
        (folder / f"{name}.py").write_text("raise RuntimeError('a file of the user')")
    helper = jobs.Helper("mtbench.worker")
    helper.send(sys.path)
    arguments = {"split": "test", "tasks": SHORT}
    helper.send(jobs.Setup(jobs.gym.spec("MTPOPGym-v0"), arguments, 1, jobs.sendable(Reader()), None))
    assert helper.receive() == jobs.Ready()
    helper.close()


def test_engines_leave_the_other_cores_to_the_other_jobs(tmp_path, monkeypatch):
    make, workers = jobs.make_rows, []

    def noted(*arguments):
        workers.append(arguments[-1])
        return make(*arguments)

    monkeypatch.setattr(jobs, "make_rows", noted)
    quick(tmp_path / "one", jobs=1)
    quick(tmp_path / "two", jobs=2)
    assert workers == [None, 1]


# ---- what goes wrong ----


@posix
def test_signals_and_errors_end_the_workers_and_keep_finished_shards(folder):
    options = ("--rollouts-per-task", "40", f"--env=tasks={json.dumps(SHORT)}")
    shards = folder / "run" / ".partial"
    kept = set()
    for what, code, words in (
        ("SIGINT", 130, "rerun the same command to resume"),
        ("SIGTERM", 143, "rerun the same command to resume"),
        ("die", 2, "was killed (SIGKILL) while it played shard"),
        ("raise", 1, "RuntimeError: broken policy"),
    ):
        ended, said = interrupted(folder, "MTPOPGym-v0", what, *options)
        assert (ended, words in said) == (code, True), said
        assert ("In a worker process:" in said) == (what == "raise")
        found = {path.name for path in shards.glob("shard-*.parquet")}
        assert found > kept if not kept else found >= kept
        kept = found
    (folder / "parent.pid").unlink()
    resumed = quick("run", "mine.py:Policy", rollouts_per_task=40, jobs=1)
    whole = quick("whole", Reader(), agent="mine.py:Policy", rollouts_per_task=40, jobs=1)
    pd.testing.assert_frame_equal(resumed.episodes, whole.episodes)
    assert not shards.exists()


class Odd(Exception):
    """Cannot be made again from its arguments."""

    def __init__(self, one, two):
        super().__init__(one)


def test_errors_come_back_as_they_were_or_as_text():
    def caught(error):
        try:
            raise error
        except Exception as raised:
            return pickle.loads(pickle.dumps(jobs.Failed.of(raised))).raised()

    plain = caught(ValueError("bad action"))
    assert isinstance(plain, ValueError)
    assert "in caught" in str(plain.__cause__)
    odd = caught(Odd("bad", "action"))
    assert isinstance(odd, RuntimeError)
    assert "Odd: bad" in str(odd)


def test_a_policy_that_has_changed_is_not_mixed_with_what_began(tmp_path, monkeypatch):
    (tmp_path / "changed.py").write_text("def act(observation):\n    return 0\n")
    spec = jobs.gym.spec("MTPOPGym-v0")
    with pytest.raises(ValueError, match="has changed since the evaluation began"):
        jobs.Setup(spec, {}, 1, f"{tmp_path}/changed.py:act", "another").load()


# ---- arguments ----


def test_no_jobs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`jobs` must be at least 1"):
        quick(tmp_path / "run", jobs=0)


def test_batches_grow_with_the_evaluation_but_not_for_trained_agents():
    class Trained(Reader):
        agent, train_seed, step = "a", 0, 0

    sizes = {n: evaluation._default_num_envs(n, Reader()) for n in (1, 540, 4095, 4096, 27_000, 10**6)}
    assert sizes == {1: 8, 540: 32, 4095: 128, 4096: 256, 27_000: 256, 10**6: 256}
    assert evaluation._default_num_envs(27_000, Trained()) == 32


def test_the_default_batch_is_recorded(tmp_path):
    assert quick(tmp_path / "run", num_envs=None).manifest["num_envs"] == 8
    assert read_run(tmp_path / "run").manifest["num_envs"] == 8
    assert np.array_equal(quick(tmp_path / "run", num_envs=8).episodes["attempt"], [1, 2] * 16)
