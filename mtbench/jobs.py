"""Play an evaluation's shards in several processes: this one and its workers.

A worker is a new Python process, started by a command line (:class:`mtbench.vector.helpers.Helper`). So it works in
notebooks, and in scripts without ``if __name__ == "__main__"``. It loads the policy, plays one shard after the other
and sends back their columns. Only this process writes the journal. A shard's records do not depend on who plays it.
"""

from __future__ import annotations

import contextlib
import pickle
import queue
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from mtbench.errors import UsageError
from mtbench.isolation import IsolatedPolicy
from mtbench.playing import PlayedShard, Rows, Shard, make_rows, play_shard
from mtbench.policy import Policy, PrivilegedPolicy, fingerprint, load_policy
from mtbench.vector.helpers import Helper, HelperGone

#: Seconds that an evaluation plays alone, unless its caller names a number of jobs. A worker takes some to start.
START_DELAY = 2.0
#: Of a policy that :func:`sendable` knows no way for.
NOT_SENDABLE = (
    "other processes cannot load this policy. Give the name of a policy, or an object that can be pickled and whose "
    "class is defined in a module."
)
#: Name of the threads that talk to workers.
THREADS = "mtbench-jobs"

OnRollouts = Callable[[int], None]
OnShard = Callable[[PlayedShard], None]
#: Plays shards elsewhere than :func:`play_shards` does, and calls the two functions in this process. An error ends the
#: evaluation; finished shards are kept.
ShardPlayer = Callable[["Setup", Policy, Sequence[Shard], OnRollouts, OnShard], None]


class WorkerError(UsageError):
    """A worker process ended in the middle of a shard."""


class WorkerTraceback(Exception):
    """A worker's traceback as text: the cause of the error that is raised here."""

    def __str__(self) -> str:
        return f"\n\nIn a worker process:\n{self.args[0]}"


@dataclass(frozen=True)
class Setup:
    """What a process needs to play shards.

    Attributes:
        spec: The environment's. A worker registers it, because it may be registered by the caller's own code only.
        arguments: The environment's.
        num_envs: How many rows.
        policy: The name of the policy, or the policy itself, pickled; None where it cannot be sent.
        identity: What :func:`~mtbench.policy.fingerprint` says of the named policy.
        isolated: For a policy that runs in a process of its own, the folders that it must not read; else None.
    """

    spec: EnvSpec
    arguments: Mapping[str, Any]
    num_envs: int
    policy: str | bytes | None
    identity: str | None
    isolated: tuple[Path, ...] | None = None

    def rows(self, policy: Policy, num_workers: int | None = None) -> Rows:
        """Rows for the policy."""
        privileged = isinstance(policy, PrivilegedPolicy)
        return make_rows(self.spec.id, self.arguments, self.num_envs, privileged, num_workers)

    def load(self) -> tuple[Rows, Policy]:
        """In a worker: register the environment, load the policy, make the rows."""
        gym.registry.setdefault(self.spec.id, self.spec)
        policy: Policy
        if isinstance(self.policy, str):
            if self.isolated is not None:
                policy = locked_in = IsolatedPolicy(self.policy, self.isolated)
                identity = locked_in.identity
            else:
                policy = load_policy(self.policy)
                identity = fingerprint(self.policy, policy)
            if identity != self.identity:
                raise UsageError(f"The policy {self.policy!r} has changed since the evaluation began.")
        else:
            assert self.policy is not None
            policy = pickle.loads(self.policy)
        return self.rows(policy, num_workers=1), policy  # the other cores have workers of their own


# ---- the answers of a worker, besides a PlayedShard ----


@dataclass(frozen=True)
class Ready:
    """It has loaded its setup."""


@dataclass(frozen=True)
class Refused:
    """It cannot load its setup, and why."""

    reason: str


@dataclass(frozen=True)
class Progress:
    """Rollouts that ended since its last answer of this kind."""

    rollouts: int


def pickled(error: BaseException | None) -> bytes | None:
    """An error as bytes that another process can load; None if there are none."""
    try:
        content = pickle.dumps(error)
        pickle.loads(content)
    except Exception:  # whatever its parts raise
        return None
    return content


@dataclass(frozen=True)
class Failed:
    """Its shard raised an error: pickled where that is possible, and the traceback as text."""

    error: bytes | None
    text: str

    @classmethod
    def of(cls, error: BaseException) -> Failed:
        """What is sent of an error."""
        return cls(pickled(error), "".join(traceback.format_exception(error)))

    def raised(self) -> BaseException:
        """The error, to be raised here."""
        error: BaseException | None = None
        if self.error is not None:
            with contextlib.suppress(Exception):
                error = pickle.loads(self.error)
        if error is None:
            return RuntimeError(f"The policy or an environment failed in a worker process:\n{self.text}")
        error.__cause__ = WorkerTraceback(self.text)
        return error


@dataclass(frozen=True)
class Ended:
    """Its process was killed or exited."""

    pid: int
    code: int | None
    shard: Shard

    def raised(self) -> WorkerError:
        """The error, to be raised here."""
        return WorkerError(
            f"Worker process {self.pid} {_ending(self.code)} while it played shard {self.shard.index}. Finished shards "
            "are kept: run the same evaluation again to resume it, with fewer jobs (--jobs) if there was not enough "
            "memory."
        )


def sendable(content: object) -> bytes | None:
    """Anything, pickled for another process; None where that is impossible."""
    try:
        pickled = pickle.dumps(content)
    except Exception:  # whatever its parts raise
        return None
    # What a script or notebook defines cannot be imported from it in another process.
    return None if b"__main__" in pickled else pickled


def uses_a_gpu() -> bool:
    """Whether PyTorch has set up a GPU in this process. Then one process plays, so that the model is there once."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())


def play_shards(
    setup: Setup,
    policy: Policy,
    shards: Sequence[Shard],
    jobs: int,
    delay: float,
    on_rollouts: OnRollouts,
    on_shard: OnShard,
) -> None:
    """Play shards, in this process and up to ``jobs - 1`` workers.

    The workers end with this function, also after an error. Shards that they have finished by then reach `on_shard`.

    Args:
        setup: What to play.
        policy: The policy, for this process.
        shards: In the order in which they begin.
        jobs: Processes, with this one.
        delay: Seconds until workers start.
        on_rollouts: Called after every step, and more often, with the number of rollouts that have ended since.
        on_shard: Called with each finished shard.

    Raises:
        WorkerError: A worker was killed. Errors that a policy or environment raises in a worker are raised here.
    """
    if jobs == 1:
        with contextlib.closing(setup.rows(policy)) as rows:
            for shard in shards:
                on_shard(play_shard(rows, policy, shard, on_rollouts))
        return
    began = time.monotonic()

    def on_step(ended: int) -> None:
        on_rollouts(ended)
        if not workers.started and time.monotonic() - began > delay and not uses_a_gpu():
            workers.start()
        workers.handle_answers()

    with _Workers(setup, shards, jobs - 1, on_rollouts, on_shard) as workers, _one_thread_of_torch():
        if delay <= 0:
            workers.start()
        with contextlib.closing(setup.rows(policy, num_workers=1)) as rows:
            while (mine := workers.take()) is not None:
                on_shard(play_shard(rows, policy, mine, on_step))
        workers.wait()


class _Workers:
    """Worker processes, each with a thread that sends it shards and receives its answers.

    Args:
        setup: What the workers need.
        shards: To play, by this process or by a worker.
        most: How many workers at most.
        on_rollouts: As for :func:`play_shards`.
        on_shard: As for :func:`play_shards`.
    """

    def __init__(
        self, setup: Setup, shards: Sequence[Shard], most: int, on_rollouts: OnRollouts, on_shard: OnShard
    ) -> None:
        self._setup, self._most, self._on_rollouts, self._on_shard = setup, most, on_rollouts, on_shard
        self.started = self._warned = False
        self._lock = threading.Lock()  # of the next two
        self._waiting = deque(shards)
        self._away = 0  # shards sent to workers, without an answer that was handled
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._helpers: list[Helper] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> _Workers:
        return self

    def __exit__(self, *error: object) -> None:
        self._end()
        while not self._answers.empty():
            answer = self._answers.get()
            if isinstance(answer, PlayedShard):
                self._on_shard(answer)

    def start(self) -> None:
        """Start the workers, at most one for each waiting shard."""
        self.started = True
        for _ in range(min(self._most, len(self._waiting))):
            helper = Helper("mtbench.worker")
            self._helpers.append(helper)
            self._threads.append(threading.Thread(target=self._serve, args=(helper,), name=THREADS, daemon=True))
            self._threads[-1].start()

    def take(self) -> Shard | None:
        """The next shard for this process."""
        with self._lock:
            return self._waiting.popleft() if self._waiting else None

    def handle_answers(self, timeout: float = 0.0) -> None:
        """Handle what the workers have answered.

        Args:
            timeout: Seconds to wait for one answer.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                self._handle(self._answers.get(timeout > 0, timeout))
                timeout = 0.0

    def wait(self) -> None:
        """Wait until the workers have finished their shards."""
        while self._away:
            self.handle_answers(timeout=0.5)

    def _handle(self, answer: Any) -> None:
        if isinstance(answer, Progress):
            self._on_rollouts(answer.rollouts)
        elif isinstance(answer, PlayedShard):
            with self._lock:
                self._away -= 1
            self._on_shard(answer)
        elif isinstance(answer, Refused):
            if not self._warned:
                gym.logger.warn(
                    f"The evaluation goes on in fewer processes, since a worker process cannot take part: "
                    f"{answer.reason} With jobs = 1 (--jobs 1), none is started."
                )
            self._warned = True
        else:
            raise answer.raised()

    def _serve(self, helper: Helper) -> None:
        """Send shards to a worker and receive its answers, in a thread of its own."""
        try:
            helper.send(sys.path)
            helper.send(self._setup)
            answer = helper.receive()
        except HelperGone:
            self._answers.put(Refused(f"it {_ending(_code(helper))} before it began."))
            return
        if not isinstance(answer, Ready):
            self._answers.put(answer)
            return
        while (shard := self._next_for_worker()) is not None:
            try:
                helper.send(shard)
                while not isinstance(answer, (PlayedShard, Failed)):
                    answer = helper.receive()
                    self._answers.put(answer)
            except HelperGone:
                self._answers.put(Ended(helper.process.pid, _code(helper), shard))
                return
            if isinstance(answer, Failed):
                return
            answer = None

    def _next_for_worker(self) -> Shard | None:
        with self._lock:
            if not self._waiting:
                return None
            self._away += 1
            return self._waiting.popleft()

    def _end(self) -> None:
        with self._lock:
            self._waiting.clear()
        for helper in self._helpers:
            helper.process.kill()
        for thread in self._threads:
            thread.join(5)  # it ends when its pipe closes, unless a fork of the worker keeps the pipe open
        for helper in self._helpers:
            helper.close()


@contextlib.contextmanager
def _one_thread_of_torch() -> Iterator[None]:
    """Let a policy on PyTorch use one core in this process, as it does in the workers."""
    torch = sys.modules.get("torch")
    if torch is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _code(helper: Helper) -> int | None:
    with contextlib.suppress(Exception):
        return helper.process.wait(5)
    return None


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        with contextlib.suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"has ended (exit code {code})"
