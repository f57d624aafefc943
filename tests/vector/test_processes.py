"""Processes, threads and forks on all suites: nothing leaks or hangs, and environments that cannot play say so."""

import contextlib
import gc
import hashlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("numba")

from mtbench.suites.procgen import core
from mtbench.vector import helpers
from mtbench.vector.forks import OwnProcess

# By ID: the package that its suite needs, and short games.
SUITES = {
    "MTPOPGym-v0": ("popgym", {}),
    "MTBabyAI-v0": ("minigrid", {"tasks": ["BabyAI-GoToLocal-v0", "BabyAI-OpenRedDoor-v0"]}),
    "ML10-v0": ("metaworld", {"tasks": ["reach-v3"]}),
    "MTAtari-v0": ("ale_py", {"tasks": ["breakout"]}),
    "MTProcgen-Easy-v0": ("", {"tasks": ["leaper"]}),
}
forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no os.fork")
NUM_ENVS = 9  # enough for BabyAI to draw layouts in other processes


@pytest.fixture(params=SUITES)
def env_id(request):
    package, _ = SUITES[request.param]
    if package:
        pytest.importorskip(package)
    elif core.find_library() is None:
        pytest.skip("no wheel of Procgen is installed")
    return request.param


def make_one(env_id):
    return gym.make(f"mtbench:{env_id}", **SUITES[env_id][1])


def make_batch(env_id, num_envs=None):
    num_envs = num_envs or (NUM_ENVS if env_id == "MTBabyAI-v0" else 3)
    return gym.make_vec(f"mtbench:{env_id}", num_envs=num_envs, num_workers=2, **SUITES[env_id][1])


def played(env, steps):
    """A digest of the observations and rewards of some steps."""
    digest, rng = hashlib.sha256(), np.random.default_rng(0)
    for _ in range(steps):
        space = env.action_space
        if isinstance(space, gym.spaces.Box):
            action = rng.uniform(-1, 1, size=space.shape).astype(np.float32)
        elif isinstance(space, gym.spaces.Discrete):
            action = int(rng.integers(space.n))
        else:
            action = rng.integers(space.nvec)
        obs, reward, *_ = env.step(action)
        for part in obs.values() if isinstance(obs, dict) else [obs]:
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(np.asarray(reward, dtype=float).tobytes())
    return digest.hexdigest()


def in_a_fork(work):
    """Run a function in a forked process and return its result or error. A process that hangs is killed."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of forking with threads
        child = os.fork()
    if child == 0:
        try:
            answer = work()
        except BaseException as error:
            answer = repr(error)
        os.write(writing, pickle.dumps(answer))
        os._exit(0)
    os.close(writing)
    answered, _, _ = select.select([reading], [], [], 300)
    if not answered:
        os.kill(child, signal.SIGKILL)
    content = os.read(reading, 2**16)
    os.waitpid(child, 0)
    os.close(reading)
    assert answered, "the forked process hangs"
    return pickle.loads(content)


@forks
def test_a_single_environment_plays_on_in_a_fork(env_id):
    env, other = make_one(env_id), make_one(env_id)
    for each in (env, other):
        each.reset(seed=3)
        played(each, 5)
    undisturbed = played(other, 30)
    assert in_a_fork(lambda: played(env, 30)) == undisturbed
    assert played(env, 30) == undisturbed
    env.close()
    other.close()


@forks
def test_a_batch_says_that_it_cannot_play_in_a_fork_and_its_parent_plays_on(env_id):
    venv, other = make_batch(env_id), make_batch(env_id)
    for each in (venv, other):
        each.reset(seed=3)
        played(each, 5)

    def use():
        said = []
        for call in (lambda: venv.step(venv.action_space.sample()), lambda: venv.reset(seed=0)):
            try:
                call()
            except gym.error.Error as error:
                said.append(str(error))
        venv.close()
        return said

    said = in_a_fork(use)
    assert len(said) == 2, said
    assert all('Make it in the new process, or start processes by "spawn"' in one for one in said)
    assert played(venv, 20) == played(other, 20)
    venv.close()
    other.close()


@forks
def test_a_batch_that_a_fork_frees_lives_on_in_its_parent(env_id):
    kept = [make_batch(env_id)]
    kept[0].reset(seed=3)

    def free():
        kept.clear()
        gc.collect()
        return "freed"

    assert in_a_fork(free) == "freed"
    other = make_batch(env_id)
    other.reset(seed=3)
    assert played(kept[0], 20) == played(other, 20)
    kept[0].close()
    other.close()


@forks
def test_a_batch_can_be_made_or_unpickled_in_a_fork():
    pytest.importorskip("popgym")
    kept = pickle.dumps(make_batch("MTPOPGym-v0", NUM_ENVS))

    def use():
        for venv in (make_batch("MTPOPGym-v0", NUM_ENVS), pickle.loads(kept)):
            venv.reset(seed=0)
            venv.step(np.zeros(NUM_ENVS, dtype=int))
        return "played"

    assert in_a_fork(use) == "played"


@forks
def test_asynchronous_vector_environments_fork_single_ones():
    pytest.importorskip("popgym")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        venv = gym.vector.AsyncVectorEnv([lambda: make_one("MTPOPGym-v0")] * 2, context="fork")
    ours = make_batch("MTPOPGym-v0", 2)
    assert np.array_equal(venv.reset(seed=1)[0], ours.reset(seed=1)[0])
    assert played(venv, 5) == played(ours, 5)
    venv.close()


@forks
def test_a_forked_process_ends_by_itself(env_id, tmp_path):
    """At its end, Python frees copies of the parent's objects."""
    script = tmp_path / "fork.py"
    script.write_text(f"""
import os
import gymnasium as gym
venv = gym.make_vec("mtbench:{env_id}", num_envs={NUM_ENVS}, num_workers=2, **{SUITES[env_id][1]!r})
venv.reset(seed=0)
venv.step(venv.action_space.sample())
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    venv.step(venv.action_space.sample())
    print("status", status)
""")
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, timeout=900)
    assert done.stdout == "status 0\n", done.stderr
    assert "Traceback" not in done.stderr


@forks
def test_a_home_is_told_from_a_fork():
    process = OwnProcess()
    assert process.is_current
    assert in_a_fork(
        lambda: (process.is_current, OwnProcess().is_current, pickle.loads(pickle.dumps(process)).is_current)
    ) == (*(False, True, True),)


def threads():
    """Number of threads of this process, native ones included."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def test_a_batch_that_is_dropped_leaves_no_process_and_no_thread(env_id):
    make_batch(env_id).close()  # start what lives as long as the process
    gc.collect()
    before, known = threads(), set(helpers._helpers)
    venv = make_batch(env_id)
    venv.reset(seed=0)
    venv.step(venv.action_space.sample())
    started = [helper.process for helper in set(helpers._helpers) - known]
    assert bool(started) == (env_id in ("MTBabyAI-v0", "ML10-v0"))
    del venv
    gc.collect()
    deadline = time.monotonic() + 120
    while (threads() > before or any(process.poll() is None for process in started)) and time.monotonic() < deadline:
        time.sleep(0.01)  # they need some time to end
    assert [process.poll() for process in started if process.poll() is None] == []
    assert threads() <= before


@pytest.mark.skipif(not Path("/proc").exists(), reason="the test needs /proc")
@pytest.mark.parametrize("env_id", ["MTBabyAI-v0", "ML10-v0"], indirect=True)
def test_a_process_that_is_killed_leaves_no_file_and_no_process(env_id, tmp_path):
    script = tmp_path / "wait.py"
    script.write_text(f"""
import time
import gymnasium as gym
from mtbench.vector import helpers
venv = gym.make_vec("mtbench:{env_id}", num_envs={NUM_ENVS}, num_workers=2, **{SUITES[env_id][1]!r})
venv.reset(seed=0)
print(*(helper.process.pid for helper in helpers._helpers), flush=True)
time.sleep(600)
""")
    folders = [tmp_path, Path("/dev/shm")]
    before = [set(folder.glob("mtbench-*")) for folder in folders]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True, env=environment)
    started = [int(number) for number in process.stdout.readline().split()]
    process.kill()
    process.communicate()
    assert started
    deadline = time.monotonic() + 120
    while any(map(runs, started)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(runs, started))
    assert [set(folder.glob("mtbench-*")) for folder in folders] == before


def runs(pid):
    """Whether a process runs; a zombie does not."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_closed_environment_says_so(env_id):
    env, venv = make_one(env_id), make_batch(env_id)
    action, actions = env.action_space.sample(), venv.action_space.sample()
    for each in (env, venv):
        each.reset(seed=0)
        each.close()
        each.close()
    for call in (lambda: env.step(action), lambda: venv.step(actions), lambda: venv.reset(seed=0)):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="This environment was closed; make a new one"):
            call()
    env.unwrapped.render_mode = "rgb_array"
    with pytest.raises(gym.error.ResetNeeded):
        env.unwrapped.render()
    env.reset(seed=0)  # a single environment makes its games again
    env.step(action)
    env.close()


def test_without_the_compiler_batches_play_the_same_on_the_slow_path(env_id, tmp_path):
    script = tmp_path / "uncompiled.py"
    script.write_text(f"""
import gymnasium as gym
from tests.vector.test_processes import make_batch, make_one, played
venv = make_batch({env_id!r}, 2)
venv.reset(seed=1)
print(type(venv).__name__, played(venv, 12))
""")
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1", "PYTHONPATH": str(Path(__file__).parent.parent.parent)}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=environment)
    venv = make_batch(env_id, 2)
    venv.reset(seed=1)
    assert done.stdout == f"SyncVectorEnv {played(venv, 12)}\n", done.stderr
    assert "NUMBA_DISABLE_JIT" in done.stderr
    venv.close()
