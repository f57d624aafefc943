"""Helper processes, for Python code that threads would run in turns: each answers one request after the other.

They are started by a command line and not by ``multiprocessing``, which would run a user's script again that does not
guard its main part.
"""

from __future__ import annotations

import mmap
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any, TypeVar

import numpy as np
import numpy.typing as npt

import mtbench
from mtbench.vector.forks import after_fork

T = TypeVar("T")
_LENGTH = struct.Struct("<q")
#: Seconds to wait before each attempt to replace a process that was killed.
WAITS = (0.0, 0.2, 1.0, 3.0, 10.0)
# Like `python -m`, without the current folder among the places of imports: a user's file there may be named random.py.
_RUN = "import sys; sys.path[:] = filter(None, sys.path); import runpy; runpy.run_module('{}', run_name='__main__')"


class HelperGone(Exception):
    """The process has ended: it was killed."""


class Helper:
    """A module that runs :func:`answer`, in a process of its own.

    Args:
        module: Its name.
        passed: File descriptors that it inherits, under the same numbers.
    """

    def __init__(self, module: str, passed: Sequence[int] = ()) -> None:
        # This package first, wherever it was imported from.
        paths = [str(Path(mtbench.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread each: there are as many helpers as cores.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        # No buffers: they have locks, which a forked process may find locked for ever.
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        command = [sys.executable, "-c", _RUN.format(module)]
        self.process = subprocess.Popen(command, env=environment, pass_fds=passed, **pipes)
        _helpers.add(self)

    def ask(self, request: Any) -> Any:
        """The answer to a request; what it raises there is raised here.

        Raises:
            HelperGone: There is no answer.
        """
        self.send(request)
        return self.receive()

    def send(self, request: Any) -> None:
        """The first half of :meth:`ask`."""
        assert self.process.stdin is not None
        try:
            write_message(self.process.stdin, request)
        except (OSError, ValueError) as error:  # ValueError: another thread has closed the pipe
            raise self._gone() from error

    def receive(self) -> Any:
        """The second half."""
        assert self.process.stdout is not None
        try:
            answer = read_message(self.process.stdout)
        except (EOFError, OSError, ValueError) as error:
            raise self._gone() from error
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _gone(self) -> HelperGone:
        return HelperGone(f"A helper process has ended (exit code {self.process.poll()}).")

    def close(self, kill: bool = False) -> None:
        """End it.

        Args:
            kill: Also where it is at work.
        """
        if kill:
            self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it was killed
                    continue
        self.process.wait()


_helpers: weakref.WeakSet[Helper] = weakref.WeakSet()


def _let_go() -> None:
    """In a forked process: give up the pipes, so that helpers end with the process that started them."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for helper in list(_helpers):
        for pipe in (helper.process.stdin, helper.process.stdout):
            if pipe is not None and not pipe.closed:
                os.dup2(nowhere, pipe.fileno(), inheritable=False)
    os.close(nowhere)


after_fork(_let_go)


def retried(replace_and_ask: Callable[[], T], wait: Callable[[float], Any] = time.sleep) -> T:
    """What a new process answers in place of one that was killed; tries :data:`WAITS` times.

    Args:
        replace_and_ask: Starts a process and returns its answer.
        wait: Waits for some seconds.

    Raises:
        HelperGone: Every new process was killed too.
    """
    for seconds in WAITS[:-1]:
        wait(seconds)
        try:
            return replace_and_ask()
        except HelperGone:
            continue
    wait(WAITS[-1])
    return replace_and_ask()


class Memory:
    """Memory that helpers map as well.

    It is a file without a name, which is gone when the last process that has it ends, even if it is killed. On Windows,
    where processes do not inherit descriptors, it is a temporary file until :meth:`close`.

    Args:
        size: In bytes.

    Attributes:
        passed: The descriptors that a helper needs.
        key: What :func:`map_memory` takes in the helper.
    """

    def __init__(self, size: int) -> None:
        self.key: int | str
        if os.name == "nt":
            self._descriptor, self.key = tempfile.mkstemp(prefix="mtbench-")
            self.passed: tuple[int, ...] = ()
        else:
            self._descriptor = self.key = _anonymous_file()
            self.passed = (self._descriptor,)
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Let it end with what is mapped."""
        os.close(self._descriptor)
        if isinstance(self.key, str):
            Path(self.key).unlink()


def map_memory(key: int | str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """A :class:`Memory` as an array of one dimension."""
    descriptor = os.open(key, os.O_RDWR) if isinstance(key, str) else key
    array = np.frombuffer(mmap.mmap(descriptor, 0), dtype)  # keeps the file by itself
    if isinstance(key, str):
        os.close(descriptor)
    return array


def _anonymous_file() -> int:
    try:
        return os.memfd_create("mtbench")
    except (AttributeError, OSError):  # not on Linux, or not allowed
        with tempfile.TemporaryFile() as file:
            return os.dup(file.fileno())


def answer(respond: Callable[[Any], Any]) -> None:
    """Answer until nobody asks any more: the main part of a helper's module."""
    # A terminal or a job scheduler may signal all processes at once. Whoever asks is to finish, and closes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a package says must not come between answers
    while True:
        try:
            request = read_message(sys.stdin.buffer)
        except EOFError:
            return
        found: Any
        try:
            found = respond(request)
        except Exception as error:
            found = error
        try:
            write_message(answers, found)
        except BrokenPipeError:
            return


def write_message(stream: IO[bytes], content: Any) -> None:
    """Send anything that can be pickled through a pipe without buffers."""
    data = pickle.dumps(content)
    left = memoryview(_LENGTH.pack(len(data)) + data)
    while left:  # a pipe takes as much as it has room for
        left = left[stream.write(left) :]
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """What :func:`write_message` sent. An EOFError where the other end was closed."""
    return pickle.loads(_exactly(stream, _LENGTH.unpack(_exactly(stream, _LENGTH.size))[0]))


def _exactly(stream: IO[bytes], size: int) -> bytes:
    parts = []
    while size:
        parts.append(stream.read(size))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    return b"".join(parts)
