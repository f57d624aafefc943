"""A policy in a process of its own plays alike, and reaches nothing outside, however it tries."""

import json
import os
import textwrap

import pandas as pd
import pytest

from mtbench import sandbox
from mtbench.errors import UsageError
from mtbench.evaluation import evaluate
from mtbench.isolation import IsolatedPolicy
from mtbench.records import read_run

pytestmark = pytest.mark.skipif(sandbox.version() < 1, reason="needs Linux with Landlock")

TASKS = {"tasks": ["RepeatFirstEasy", "PositionOnlyCartPoleEasy"]}

# Sees rewards and the moments of reset; its actions follow from both, and from its seed.
CURIOUS = """
    import numpy as np

    class Curious:
        def start(self, num_envs, seed, observation_space, action_space):
            self.rng, self.n, self.paid = np.random.default_rng(seed), int(action_space.n), np.zeros(num_envs)

        def act(self, observations, reset_mask):
            self.paid[reset_mask] = 0
            seen = np.floor(np.abs(observations).sum(axis=1) * 7 + self.paid * 100).astype(int)
            return (seen + self.rng.integers(self.n, size=len(seen))) % self.n

        def observe_rewards(self, rewards):
            self.paid += rewards
"""


def policy_file(folder, text, name="policy.py"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(textwrap.dedent(text))
    return folder / name


def played(policy, out=None, **changes):
    arguments = {"rollouts_per_task": 3, "env_kwargs": TASKS, "jobs": 1, **changes}
    return evaluate("MTPOPGym-v0", policy, out, **arguments)


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_isolated_policy_plays_alike(tmp_path, jobs):
    name = f"{policy_file(tmp_path / 'mine', CURIOUS)}:Curious"
    direct, apart = (played(name, isolated=how, jobs=jobs, num_envs=1) for how in (False, True))
    pd.testing.assert_frame_equal(direct.episodes, apart.episodes)
    assert direct.manifest["policy_sha256"] == apart.manifest["policy_sha256"]
    assert apart.manifest["isolated"]
    assert "isolated" not in direct.manifest


def test_continuous_actions_audits_and_traces(tmp_path):
    name = f"{policy_file(tmp_path / 'mine', 'def act(obs): return [obs[0] % 1, -0.5, 0.25, 0.0]')}:act"
    tasks = {"tasks": ["drawer-open-v3"], "max_steps": 60}
    how = {"env_kwargs": tasks, "split": "test", "rollouts_per_task": 4, "jobs": 1}
    direct, apart = (
        evaluate("ML10-v0", name, tmp_path / str(isolated), audit=True, save_actions=True, isolated=isolated, **how)
        for isolated in (False, True)
    )
    pd.testing.assert_frame_equal(direct.episodes, apart.episodes)
    assert direct.manifest["actions_sha256"] == apart.manifest["actions_sha256"]
    assert apart.audits["no-memory"].manifest["isolated"]


def test_a_built_in_policy_and_a_finished_run(tmp_path):
    played("random", tmp_path / "run", isolated=True)
    again = played("random", tmp_path / "run", isolated=True)
    assert again.manifest == read_run(tmp_path / "run").manifest
    with pytest.raises(UsageError, match="holds an evaluation with isolated"):
        played("random", isolated=True, out=played("random", tmp_path / "other").path)


# ---- attempts to get out ----

# Every attempt is a line of Python; the policy says in an error what came of each.
HOSTILE = """
    import ctypes, gc, json, os, signal, socket, struct, sys, time
    from pathlib import Path

    OUT = Path({out!r})
    PARENT = os.getppid()

    def tried(attempt):
        try:
            return str(attempt())[:200]
        except BaseException as error:
            return f"REFUSED {{type(error).__name__}}"

    def environments():
        from mtbench.rollout import MetaRollout
        return [type(o).__name__ for o in gc.get_objects() if isinstance(o, MetaRollout)]

    def vectors():
        from mtbench.vector.rollout import VectorMetaRollout
        return [type(o).__name__ for o in gc.get_objects() if isinstance(o, VectorMetaRollout)]

    def descriptors():
        found = []
        for fd in range(3, 64):
            try:
                os.fstat(fd)
                found.append(os.readlink(f"/proc/self/fd/{{fd}}"))
            except OSError:
                pass
        return [name for name in found if not name.startswith(("pipe:", "anon_inode"))]

    def attach():
        if ctypes.CDLL(None, use_errno=True).ptrace(16, PARENT, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")
        return "attached"

    def vm_read():
        libc = ctypes.CDLL(None, use_errno=True)
        class Vector(ctypes.Structure):
            _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
        mine = ctypes.create_string_buffer(8)
        local, remote = Vector(ctypes.addressof(mine), 8), Vector(id(None), 8)
        if libc.process_vm_readv(PARENT, ctypes.byref(local), 1, ctypes.byref(remote), 1, 0) < 0:
            raise OSError(ctypes.get_errno(), "process_vm_readv")
        return "read"

    def connect():
        with socket.socket() as s:
            s.connect(("127.0.0.1", {port}))
        return "connected"

    def connect_here():
        with socket.socket(socket.AF_UNIX) as s:
            s.connect({local!r})
        return "connected"

    def datagram():
        with socket.socket(type=socket.SOCK_DGRAM) as s:
            return s.sendto(b"x", ("127.0.0.1", {port}))

    def ring():
        made = ctypes.CDLL(None, use_errno=True).syscall(425, 1, ctypes.create_string_buffer(120))
        if made < 0:
            raise OSError(ctypes.get_errno(), "io_uring_setup")
        return "made"

    ATTEMPTS = {{
        "environments": environments,
        "vectors": vectors,
        "descriptors": descriptors,
        "secret in the environment": lambda: os.environ["MTBENCH_SECRET"],
        "memory of the parent": lambda: open(f"/proc/{{PARENT}}/mem", "rb").read(1),
        "maps of the parent": lambda: open(f"/proc/{{PARENT}}/maps").read(),
        "arguments of the parent": lambda: open(f"/proc/{{PARENT}}/cmdline").read(),
        "ptrace": attach,
        "process_vm_readv": vm_read,
        "signal": lambda: os.kill(PARENT, signal.SIGUSR1),
        "files of the run": lambda: [path.read_bytes() for path in OUT.rglob("*") if path.is_file()] or 1 / 0,
        "plan of the run": lambda: (OUT / ".partial" / "plan.json").read_text(),
        "a file beside the run": lambda: (OUT.parent.parent / "beside.txt").read_text(),
        "writing beside the policy": lambda: Path(__file__).with_name("new.txt").write_text("x"),
        "writing to the run": lambda: (OUT / "x").write_text("x"),
        "home": lambda: os.listdir("/root") or os.listdir("/home"),
        "network": connect,
        "a socket of this machine": connect_here,
        "a datagram": datagram,
        "a ring of calls": ring,
        "rights back": lambda: os.setuid(0) or open(OUT / ".partial" / "plan.json").read(),
        "by a child": lambda: os.popen(f"cat {{OUT}}/.partial/plan.json").read() or 1 / 0,
    }}

    def act(obs):
        raise RuntimeError("FOUND" + json.dumps({{name: tried(attempt) for name, attempt in ATTEMPTS.items()}}) + "END")
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a hostile policy found. It lies in the folder that the run's folder is in."""
    import socket

    folder = tmp_path_factory.mktemp("work")
    (folder / "beside.txt").write_text("for everybody")
    out = folder / "runs" / "run"
    out.mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as here:
        local = str(folder / "socket")
        here.bind(local)
        here.listen()
        text = HOSTILE.format(out=str(out), port=server.getsockname()[1], local=local)
        name = f"{policy_file(folder, text)}:act"
        os.environ["MTBENCH_SECRET"] = "secret"
        try:
            with pytest.raises(UsageError) as caught:
                played(name, out, isolated=True)
        finally:
            del os.environ["MTBENCH_SECRET"]
    message = str(caught.value)
    return json.loads(message[message.index("FOUND") + 5 : message.rindex("END")].split("END", maxsplit=1)[0])


@pytest.mark.parametrize(
    "attempt",
    [
        *("secret in the environment", "memory of the parent", "maps of the parent", "arguments of the parent"),
        *("ptrace", "process_vm_readv", "signal", "files of the run", "plan of the run", "writing beside the policy"),
        *(
            "writing to the run",
            "home",
            "network",
            "a socket of this machine",
            "a datagram",
            "a ring of calls",
            "rights back",
            "by a child",
        ),
    ],
)
def test_nothing_outside_is_reached(found, attempt):
    if attempt == "signal" and sandbox.version() < 6:
        pytest.skip("needs Linux 6.12")
    assert found[attempt].startswith("REFUSED"), found[attempt]


def test_there_is_no_environment_in_its_memory(found):
    assert (found["environments"], found["vectors"], found["descriptors"]) == ("[]", "[]", "[]")


def test_its_own_folder_can_be_read(found):
    """But for the run's folder, which lies in it."""
    assert found["a file beside the run"] == "for everybody"


def test_this_process_imports_nothing_of_the_policys(tmp_path):
    import sys

    policy = IsolatedPolicy(f"{policy_file(tmp_path, CURIOUS, 'very_own.py')}:Curious")
    assert not [name for name in sys.modules if "very_own" in name]
    policy.close()


# ---- what it answers ----

# Writes to every pipe that it finds.
FORGED = """
    import contextlib, os

    def act(obs):
        for fd in range(3, 16):
            with contextlib.suppress(OSError):
                os.write(fd, b"x" * 99)
        return 0
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def act(obs): return 27", "27 .* is no action of this environment"),
        ("def act(obs): return None", "is no action of this environment"),
        ("import os\ndef act(obs): os._exit(3)", "has ended .exit code 3"),
        ("def act(obs): raise SystemExit", "SystemExit"),
        (FORGED, "something else than actions"),
        ("def act(obs): raise ValueError('\\x1b[31mred')", "ValueError: red"),
        ("1 / 0", "ZeroDivisionError"),
        ("import nowhere", "No module named 'nowhere'"),
        ("x = 1", "there is no attribute 'act'|There is no attribute 'act'"),
    ],
)
def test_what_goes_wrong_there_is_told_here(tmp_path, text, message):
    name = f"{policy_file(tmp_path / 'mine', text)}:act"
    with pytest.raises(UsageError, match=message) as caught:
        played(name, isolated=True)
    assert "\x1b" not in str(caught.value)


def test_oracles_and_objects_are_refused():
    with pytest.raises(UsageError, match="reads hidden state"):
        played("oracle", isolated=True)
    with pytest.raises(UsageError, match="given by its name"):
        played(lambda obs: 0, isolated=True)


def test_processes_and_folders_end_with_the_evaluation(tmp_path, monkeypatch):
    import subprocess

    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", None)
    started = []
    original = subprocess.Popen

    def counted(*arguments, **more):
        started.append(original(*arguments, **more))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", counted)
    played("random", isolated=True)
    assert started
    assert all(process.poll() is not None for process in started)
    assert [path.name for path in (tmp_path / "tmp").iterdir() if path.name.startswith("mtbench-isolated")] == []
