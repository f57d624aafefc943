"""Evaluations on a Ray cluster: the same records as here, whatever happens to workers and nodes.

The module's cluster has a head and a second node, one CPU each, all on this machine.
"""

import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
from gymnasium.error import DependencyNotInstalled

from mtbench import clusters, ray_jobs, sandbox
from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.records import read_run
from tests.commands import MTBENCH
from tests.paths import ROOT
from tests.ray_nodes import STORE, joining, posix, ray, two_nodes
from tests.test_jobs import SHORT, is_running
from tests.test_playing import LIMIT, SPLITS, TASKS, Reader

pytestmark = posix


@pytest.fixture(scope="module")
def cluster():
    with two_nodes() as made:
        yield made


@pytest.fixture(scope="module")
def join(cluster):
    with joining(cluster) as join:
        yield join


@pytest.fixture
def connected(cluster, join):
    """This process joins the cluster by itself: evaluations use its connection."""
    join()
    return cluster


@pytest.fixture
def alone(cluster):
    """This process is not connected."""
    ray.shutdown()
    return cluster


def quick(out, policy="random", **kwargs):
    arguments = {"rollouts_per_task": 8, "num_envs": 1, "env_kwargs": {"tasks": SHORT}, **kwargs}
    return evaluate("MTPOPGym-v0", policy, out, **arguments)


def digest(run):
    return run.manifest["episodes_sha256"]


# ---- the same records ----


@pytest.mark.parametrize("env_id", TASKS)
def test_records_are_those_of_this_machine_for_any_number_of_workers(tmp_path, connected, env_id):
    tasks = SPLITS.get(env_id, TASKS[env_id])
    arguments = {"rollouts_per_task": 12 // len(tasks), "env_kwargs": {"tasks": tasks, "max_steps": LIMIT}}
    here = evaluate(env_id, Reader(), tmp_path / "here", num_envs=1, jobs=1, **arguments)
    for jobs in (1, 4):
        there = evaluate(env_id, Reader(), tmp_path / f"{jobs}", num_envs=1, jobs=jobs, backend="ray", **arguments)
        assert digest(there) == digest(here)


def test_a_trained_agent_plays_as_it_does_here(tmp_path, connected):
    from mtbench_agents.transformer.train import Trainer

    from tests.agents.transformer.test_train import TINY

    Trainer(TINY, tmp_path / "agent").run()
    here, there = (
        quick(tmp_path / backend, str(tmp_path / "agent"), num_envs=2, backend=backend, jobs=2)
        for backend in ("local", "ray")
    )
    assert digest(here) == digest(there)


def test_a_policy_of_a_file_is_found_from_any_folder(tmp_path, connected, monkeypatch):
    (tmp_path / "mine.py").write_text("def act(observation):\n    return int(observation[:26].argmax())\n")
    monkeypatch.chdir(tmp_path)
    runs = [quick(backend, "mine.py:act", backend=backend, jobs=2) for backend in ("local", "ray")]
    assert digest(runs[0]) == digest(runs[1])


@pytest.mark.skipif(sandbox.version() < 1, reason="needs Linux with Landlock")
def test_an_isolated_policy_is_locked_in_there(tmp_path, connected):
    """It reaches none of the sockets that Ray's workers talk by."""
    (tmp_path / "mine.py").write_text(
        "import socket\n\ntry:\n    socket.socket()\nexcept OSError:\n    alone = True\n\n"
        "def act(observation):\n    return int(observation[:26].argmax()) if alone else 0\n"
    )
    name = f"{tmp_path}/mine.py:act"
    runs = [quick(tmp_path / backend, name, backend=backend, isolated=True, jobs=2) for backend in ("local", "ray")]
    assert digest(runs[0]) == digest(runs[1])
    assert runs[1].manifest["isolated"]


def test_an_interrupted_evaluation_resumes_on_either_backend(tmp_path, connected):
    class Enough(Exception):
        pass

    def stop(done, total):
        if done >= 8:
            raise Enough

    whole = quick(tmp_path / "whole")
    for first, then in (("ray", "local"), ("local", "ray"), ("ray", "ray")):
        out = tmp_path / f"{first}-{then}"
        with pytest.raises(Enough):
            quick(out, backend=first, jobs=2, on_rollout=stop)
        kept = {path: path.stat().st_mtime_ns for path in (out / ".partial").glob("shard-*.parquet")}
        assert kept
        seen = []
        resumed = quick(out, backend=then, jobs=2, on_rollout=lambda done, total, seen=seen: seen.append(done))
        assert seen == list(range(4, 17, 4))[: len(kept)] + list(range(4 * len(kept) + 1, 17))
        assert digest(resumed) == digest(whole)


def test_runs_are_verified_there_and_a_changed_one_is_found(tmp_path, connected):
    from mtbench.verification import verify

    run = quick(tmp_path / "run", save_actions=True, backend="ray")
    assert verify(run, backend="ray").differences == []
    run.episodes.loc[3, "return"] += 1e-9
    (found,) = verify(run, backend="ray").differences
    assert "recorded return" in found


# ---- what gets lost ----

# It says where it plays, and is slow enough to be killed.
TRACKED = """
import os, time
from pathlib import Path

import ray
from tests.test_playing import Reader

class Policy(Reader):
    def start(self, *arguments):
        super().start(*arguments)
        (Path({folder!r}) / str(os.getpid())).write_text(ray.get_runtime_context().get_node_id())

    def act(self, observations, reset_mask):
        time.sleep(0.003)
        return super().act(observations, reset_mask)
"""


def test_killed_workers_and_a_removed_node_change_nothing(tmp_path, connected):
    pids = tmp_path / "pids"
    pids.mkdir()
    (tmp_path / "tracked.py").write_text(TRACKED.format(folder=str(pids)))
    node = connected.add_node(num_cpus=2, object_store_memory=STORE)
    killed, counts = [], []

    def playing(on=None):
        found = [path for path in pids.iterdir() if on in (None, path.read_text()) and is_running(int(path.name))]
        return [int(path.name) for path in found if path.name not in map(str, killed)]

    def trouble(done, total):
        counts.append(done)
        if done % 8 == 0 and len(killed) < 3 and playing():
            killed.append(playing()[0])
            os.kill(killed[-1], signal.SIGKILL)
        if done == 16:
            deadline = time.monotonic() + 60
            while not playing(node.node_id) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert playing(node.node_id)
            connected.remove_node(node, allow_graceful=False)

    name = f"{tmp_path}/tracked.py:Policy"
    there = quick(tmp_path / "there", name, agent="a", rollouts_per_task=24, backend="ray", on_rollout=trouble)
    here = quick(tmp_path / "here", Reader(), agent="a", rollouts_per_task=24)
    assert len(killed) == 3
    assert counts == list(range(1, 49)), "no rollout counts twice"
    pd.testing.assert_frame_equal(there.episodes, here.episodes)


def test_a_shard_that_ends_every_worker_ends_the_evaluation(tmp_path, connected, monkeypatch):
    monkeypatch.setattr(ray_jobs, "_RETRIES", 1)
    (tmp_path / "deadly.py").write_text("import os\n\ndef act(obs):\n    os.kill(os.getpid(), 9)\n")
    with pytest.raises(UsageError, match=r"were lost, 2 in a row: .* Finished shards are kept"):
        quick(tmp_path / "run", f"{tmp_path}/deadly.py:act", backend="ray")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_everything_that_was_started(tmp_path, number):
    pids = tmp_path / "pids"
    pids.mkdir()
    (tmp_path / "tracked.py").write_text(TRACKED.format(folder=str(pids)))
    command = [MTBENCH, "evaluate", "MTPOPGym-v0", "--policy", "tracked.py:Policy", "--num-envs", "1", "--out", "run"]
    options = ["--rollouts-per-task", "4000", f"--env=tasks={json.dumps(SHORT)}", "--backend", "ray", "--jobs", "2"]
    process = subprocess.Popen(
        [*command, *options],
        **{"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True},
        **{"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "start_new_session": True},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("run/.partial/shard-*.parquet")) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    # A terminal signals all processes at once.
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 128 + number, err
    assert "rerun the same command to resume" in err
    assert (out, "Traceback" in err) == ("", False)
    assert list(tmp_path.glob("run/.partial/shard-*.parquet"))
    workers = [int(path.name) for path in pids.iterdir()]
    while any(map(is_running, workers)) and time.monotonic() < deadline + 60:
        time.sleep(0.05)
    assert not any(map(is_running, workers))


# ---- what is refused ----


class Broken(Reader):
    def act(self, observations, reset_mask):
        raise ValueError("broken policy")


def test_errors_of_a_policy_are_raised_here(tmp_path, connected):
    with pytest.raises(ValueError, match="broken policy") as caught:
        quick(tmp_path / "run", Broken(), backend="ray")
    assert "In a worker process:" in str(caught.value.__cause__)
    assert "in act" in str(caught.value.__cause__)


def test_a_policy_that_cannot_be_sent_is_refused(tmp_path, connected):
    with pytest.raises(UsageError, match="cannot use Ray: other processes cannot load this policy"):
        quick(tmp_path / "run", lambda observation: 0, backend="ray")


def test_a_policy_that_a_node_does_not_have_is_refused(tmp_path, connected):
    path = tmp_path / "mine.py"
    path.write_text("def act(observation):\n    return 0\n")
    with pytest.raises(UsageError, match=r"Node .* There is no file .* must exist on every node, under the same path"):
        quick(tmp_path / "run", f"{path}:act", backend="ray", on_start=lambda _: path.unlink())


def test_another_version_on_a_node_is_refused(tmp_path, connected, monkeypatch):
    versions = ray_jobs.versions
    monkeypatch.setattr(ray_jobs, "versions", lambda names: {**versions(names), "numpy": "0.1", "popgym": "9"})
    number = versions(["numpy"])["numpy"]
    with pytest.raises(UsageError, match=rf"Node .* other versions .* numpy {number} there and 0\.1 here, popgym"):
        quick(tmp_path / "run", backend="ray")
    assert not (tmp_path / "run").exists()


def test_a_missing_cluster_is_said_at_once(tmp_path, alone, monkeypatch):
    monkeypatch.setattr(clusters, "_ANSWER", 4.0)
    with socket.socket() as silent, socket.socket() as free:
        for one in (silent, free):
            one.bind(("127.0.0.1", 0))
        silent.listen()
        other, nobody = (f"127.0.0.1:{one.getsockname()[1]}" for one in (silent, free))
        for address, words in (
            (nobody, r"There is no Ray cluster at .* `ray start --head` starts one"),
            (other, "what answers there is no head of a cluster"),
            ("ray://127.0.0.1:10001", "write HOST:PORT"),
            ("nowhere", "write HOST:PORT, or auto"),
            ("127.0.0.1:x", "There is no Ray cluster at"),
        ):
            with pytest.raises(UsageError, match=words):
                quick(tmp_path / "run", backend="ray", address=address)
    assert not (tmp_path / "run").exists()


def test_arguments_that_do_not_fit_are_refused(tmp_path, connected):
    with pytest.raises(UsageError, match="needs the backend ray"):
        quick(tmp_path / "run", address="127.0.0.1:6379")
    with pytest.raises(UsageError, match=r"no backend 'rai' .* Did you mean 'ray'"):
        quick(tmp_path / "run", backend="rai")
    with pytest.raises(UsageError, match="connected to a Ray cluster already"):
        quick(tmp_path / "run", backend="ray", address=connected.address)


def test_without_ray_the_extra_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    with pytest.raises(DependencyNotInstalled, match=r"pip install 'mtbench-rl\[ray\]'"):
        quick(tmp_path / "run", backend="ray")


# ---- room ----


class Large(Reader):
    """More than the nodes' object stores hold."""

    def __init__(self):
        self.weights = bytes(STORE + STORE // 4)


def test_what_does_not_fit_the_object_store_goes_to_disk(tmp_path, connected):
    here, there = (quick(tmp_path / backend, Large(), backend=backend) for backend in ("local", "ray"))
    assert digest(here) == digest(there)


def test_a_full_disk_is_explained(tmp_path, connected, monkeypatch):
    def full(*_):
        raise ray.exceptions.OutOfDiskError("The object cannot be created")

    monkeypatch.setattr(ray, "put", full)
    with pytest.raises(UsageError, match=r"Ray has no room .* The object cannot be created\. Give its nodes more"):
        quick(tmp_path / "run", backend="ray")


def test_no_more_shards_are_in_flight_than_are_played_soon(tmp_path, connected, monkeypatch):
    most, wait = [], ray_jobs.futures.wait
    monkeypatch.setattr(ray_jobs.futures, "wait", lambda them, *how: most.append(len(them)) or wait(them, *how))
    for jobs, bound in ((None, 4), (1, 1)):
        most.clear()
        quick(tmp_path / f"{jobs}", backend="ray", jobs=jobs, rollouts_per_task=16)
        assert max(most) == bound


# ---- the command line ----


def test_the_command_says_what_it_says_without_ray(tmp_path, cluster):
    """Ray's own words are not among it, and a second run finds the first one finished."""
    command = ["MTPOPGym-v0", "--num-envs", "1", "--rollouts-per-task", "8", f"--env=tasks={json.dumps(SHORT)}"]
    said = []
    for options in (["--backend", "ray", "--address", cluster.address], []):
        out = f"run{len(options)}"
        done = subprocess.run(
            [MTBENCH, "evaluate", *command, *options, "--out", out, "--save-actions"],
            **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300},
        )
        assert done.returncode == 0, done.stderr
        said.append((done.stdout.split(",")[0].removeprefix(out), done.stderr))
    assert said[0] == said[1]
    assert digest(read_run(tmp_path / "run0")) == digest(read_run(tmp_path / "run4"))
    verified = subprocess.run(
        [MTBENCH, "verify", "run4", "--json", "--backend", "ray", "--address", cluster.address],
        **{"cwd": tmp_path, "capture_output": True, "text": True, "timeout": 300},
    )
    assert json.loads(verified.stdout)[0]["differences"] == []


def test_an_evaluation_here_does_not_import_ray(tmp_path):
    code = "import sys, mtbench; mtbench.evaluate('MTPOPGym-v0', rollouts_per_task=1, policy='random', jobs=1)"
    done = subprocess.run([sys.executable, "-c", f"{code}; assert 'ray' not in sys.modules"], cwd=tmp_path)
    assert done.returncode == 0


def test_ray_is_left_as_it_was(tmp_path, alone):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with contextlib.suppress(KeyboardInterrupt):
        quick(tmp_path / "run", backend="ray", address=alone.address)
    assert not ray.is_initialized()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    with clusters.joined(alone.address):
        quick(tmp_path / "again", backend="ray")
        assert ray.is_initialized()
