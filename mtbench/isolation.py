"""Evaluate a policy that is not trusted: it runs in a process of its own, which is locked in.

The process is handed observations, the moments when rollouts begin, and rewards. It is locked in by the kernel
(:mod:`mtbench.sandbox`): it reads Python, its packages and what belongs to the policy; it writes to a folder of its
own; it reaches no memory of other processes, no file of the evaluation, no network, and no process by a signal. This
process imports nothing of the policy's, and never unpickles what it says.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

import mtbench
from mtbench import sandbox
from mtbench.errors import UsageError
from mtbench.policy import BUILT_IN, absolute_name, search_path
from mtbench.text import plain
from mtbench.untrusted import is_name
from mtbench.vector.helpers import exactly, write_all, write_message

Array = npt.NDArray[Any]

#: Kinds of replies.
FACTS, ACTIONS, ERROR = 0, 1, 2
_HEAD = struct.Struct("<BI")
_MOST_TEXT = 1 << 16

# What Python, NumPy and PyTorch read of a system.
_SYSTEM = (
    *("/usr", "/lib", "/lib64", "/bin", "/opt/python", "/etc/ld.so.cache", "/etc/localtime", "/etc/ssl"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/self", "/proc/stat", "/sys/devices/system", "/sys/fs/cgroup"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
)
_DEVICES = ("/dev/null",)


def write_reply(pipe: IO[bytes], kind: int, content: bytes) -> None:
    """Send a reply: its kind, its length, itself. Text is cut."""
    content = content if kind == ACTIONS else content[:_MOST_TEXT]
    write_all(pipe, _HEAD.pack(kind, len(content)) + content)


class IsolatedPolicy:
    """A policy that runs elsewhere. One of a training run says so here, too (:class:`mtbench.policy.TrainedPolicy`).

    Args:
        name: As for :func:`mtbench.policy.load_policy`; a built-in name, a training run's folder, a module or a file.
        hidden: Folders whose files the policy must not read, wherever they lie.

    Attributes:
        identity: What it says is the fingerprint of its code or weights.

    Raises:
        UsageError: This system cannot lock a process in, or the policy cannot be loaded there.
    """

    def __init__(self, name: str, hidden: tuple[Path, ...] = ()) -> None:
        if sandbox.version() < 1:
            raise UsageError("Isolated evaluation needs Linux with Landlock (5.13 or newer): this system has none.")
        self._name = absolute_name(name)
        self._own = tempfile.mkdtemp(prefix="mtbench-isolated-")
        self._end = weakref.finalize(self, shutil.rmtree, self._own, ignore_errors=True)
        self._rewards: Array | None = None
        command = [sys.executable, "-I", str(Path(sandbox.__file__))]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        self._process = subprocess.Popen(command, env={}, **pipes)
        weakref.finalize(self, _ended, self._process)
        told = json.dumps(
            {
                "folder": self._own,
                "environment": _environment(self._own),
                "rules": _rules(self._name, self._own, [path.resolve() for path in hidden]),
                "path": search_path(),
            }
        ).encode()
        self._send(write_all, struct.pack("<q", len(told)) + told)
        self._send(write_message, self._name)
        facts = self._facts()
        self.identity: str | None = facts["identity"]
        vars(self).update(facts["trained"])

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Pass it on."""
        self._n, self._space, self._rewards = num_envs, action_space, None
        self._send(write_message, ("start", num_envs, seed, observation_space, action_space))
        self._receive(ACTIONS, 0)

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> Array:
        """The policy's actions, ``(num_envs, ...)``."""
        self._send(write_message, ("act", observations, reset_mask, self._rewards))
        dtype = np.dtype(np.int64) if isinstance(self._space, gym.spaces.Discrete) else np.dtype(self._space.dtype)
        shape = (self._n, *(self._space.shape or ()))
        content = self._receive(ACTIONS, int(np.prod(shape)) * dtype.itemsize)
        return np.frombuffer(content, dtype).reshape(shape)

    def observe_rewards(self, rewards: npt.NDArray[np.float64]) -> None:
        """They go with the next observations."""
        self._rewards = np.array(rewards)

    def close(self) -> None:
        """End its process."""
        _ended(self._process)
        self._end()

    # ---- the pipe ----

    def _facts(self) -> dict[str, Any]:
        facts = json.loads(self._receive(FACTS, _MOST_TEXT))
        identity, trained = facts.get("identity"), facts.get("trained")
        if identity is not None and not is_name(identity):
            raise UsageError(f"{self._name}: the isolated policy gives no proper fingerprint.")
        if trained is not None:
            known = isinstance(trained, dict) and {"agent", "train_seed", "step"} <= set(trained)
            numbers = [trained["train_seed"], trained["step"]] if known else []
            if not known or not is_name(trained["agent"]) or any(n is not None and type(n) is not int for n in numbers):
                raise UsageError(f"{self._name}: the isolated policy does not say properly what it is.")
        kept = {} if trained is None else {key: trained[key] for key in ("agent", "train_seed", "step")}
        return {"identity": identity, "trained": kept}

    def _send(self, write: Callable[[IO[bytes], Any], None], content: Any) -> None:
        assert self._process.stdin is not None
        try:
            write(self._process.stdin, content)
        except OSError:
            raise self._gone() from None

    def _receive(self, wanted: int, most: int) -> bytes:
        kind, length = _HEAD.unpack(self._exactly(_HEAD.size))
        if length > (_MOST_TEXT if kind == ERROR else most) or kind not in (wanted, ERROR):
            raise UsageError(f"{self._name}: the isolated policy's process answers with something else than actions.")
        content = self._exactly(length)
        if kind == ERROR:
            raise UsageError(
                f"The isolated policy {self._name} failed: {plain(content.decode(errors='replace'), 4000)}"
            )
        if wanted == ACTIONS and length != most:
            raise UsageError(f"{self._name}: the isolated policy's process answers with too few actions.")
        return content

    def _exactly(self, count: int) -> bytes:
        assert self._process.stdout is not None
        try:
            return exactly(self._process.stdout, count)
        except EOFError:
            raise self._gone() from None

    def _gone(self) -> UsageError:
        code = self._process.wait(10)
        return UsageError(f"The process of the isolated policy {self._name} has ended (exit code {code}).")


def _ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _environment(own: str) -> dict[str, str]:
    kept = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL", "OPENBLAS_CORETYPE") if key in os.environ}
    places = dict.fromkeys(("HOME", "TMPDIR", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "MPLCONFIGDIR"), own)
    return {**kept, **places, "OMP_NUM_THREADS": "1"}


def _rules(name: str, own: str, hidden: list[Path]) -> list[tuple[str, str]]:
    """What the process may read and write."""
    readable = [Path(sys.prefix), Path(sys.base_prefix), Path(mtbench.__file__).parent]
    readable += [Path(found).parent for package in ("mtbench_agents",) if (found := _file_of(package))]
    readable += [Path(entry) for entry in search_path() if entry != str(Path.cwd())]
    path = name.rpartition(":")[0] if ":" in name else name
    if name not in BUILT_IN:
        if Path(path).is_dir():
            readable.append(Path(path))
        elif path.endswith(".py"):
            readable.append(Path(path).parent)
        else:
            readable.append(Path.cwd())  # where a user's own module lies
    # Not resolved here: /proc/self is that of the process which opens it.
    rules = [(own, "write"), *((path, "write") for path in _DEVICES), *((path, "read") for path in _SYSTEM)]
    for folder in readable:
        rules += _without(folder.resolve(), hidden)
    return rules


def _file_of(package: str) -> str | None:
    spec = importlib.util.find_spec(package)
    return None if spec is None else spec.origin


def _without(path: Path, hidden: list[Path]) -> list[tuple[str, str]]:
    """Rules that let a path be read but for hidden folders under it, of which only names are shown."""
    if any(path == one or one in path.parents for one in hidden):
        return []
    if not any(path in one.parents for one in hidden):
        return [(str(path), "read")]
    rules = [(str(path), "list")]
    for entry in path.iterdir():
        rules += _without(entry, hidden)
    return rules
