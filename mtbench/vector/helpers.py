"""Helper processes run Python code in parallel, which threads cannot do because of the GIL.

Each helper answers one request at a time. Helpers are started by a command line, because ``multiprocessing`` would run
the user's script again if it has no ``if __name__ == "__main__"``.
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
from typing import IO, Any, Final, TypeVar

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
    """The helper process has ended, usually because it was killed."""


class Helper:
    """A process that runs a module whose main part calls :func:`answer`.

    Args:
        module: The module's name.
        passed: File descriptors that the process inherits, under the same numbers.
    """

    def __init__(self, module: str, passed: Sequence[int] = ()) -> None:
        # The helper must import the same copy of this package.
        paths = [str(Path(mtbench.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread per helper: there are as many helpers as cores.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        # No buffers: in a forked process, a buffer's lock may be locked for ever.
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
        command = [sys.executable, "-c", _RUN.format(module)]
        self.process: Final = subprocess.Popen(command, env=environment, pass_fds=passed, **pipes)
        _helpers.add(self)

    def ask(self, request: Any) -> Any:
        """Send a request and return its answer. An exception raised in the helper is raised here too.

        Raises:
            HelperGone: The helper ended before it answered.
        """
        self.send(request)
        return self.receive()

    def send(self, request: Any) -> None:
        """Send a request without waiting for the answer."""
        assert self.process.stdin is not None
        try:
            write_message(self.process.stdin, request)
        except (OSError, ValueError) as error:  # ValueError: another thread has closed the pipe
            raise self._gone() from error

    def receive(self) -> Any:
        """Wait for the answer to the request that was sent."""
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
        """End the process.

        Args:
            kill: End it even if it is working on a request.
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


def _drop_pipes() -> None:
    """In a forked process: replace the pipes by /dev/null, so that helpers end with the process that started them."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for helper in list(_helpers):
        for pipe in (helper.process.stdin, helper.process.stdout):
            if pipe is not None and not pipe.closed:
                os.dup2(nowhere, pipe.fileno(), inheritable=False)
    os.close(nowhere)


after_fork(_drop_pipes)


def retried(replace_and_ask: Callable[[], T], wait: Callable[[float], Any] = time.sleep) -> T:
    """Replace a killed process and return the new one's answer. Tries once after each wait of :data:`WAITS`.

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
    """Memory that this process shares with its helpers.

    It is a file without a name, which disappears when the last process that holds it ends, even if that is killed. On
    Windows, where processes do not inherit descriptors, it is a temporary file until :meth:`close`.

    Args:
        size: Size in bytes.

    Attributes:
        passed: The file descriptors that a helper must inherit.
        key: The argument of :func:`map_memory` in the helper.
    """

    def __init__(self, size: int) -> None:
        self.key: int | str
        self.passed: tuple[int, ...] = ()
        if os.name == "nt":
            self._descriptor, self.key = tempfile.mkstemp(prefix="mtbench-")
        else:
            self._descriptor = self.key = _anonymous_file()
            self.passed = (self._descriptor,)
        os.ftruncate(self._descriptor, size)

    def close(self) -> None:
        """Close the file. Arrays that are mapped stay valid."""
        os.close(self._descriptor)
        if isinstance(self.key, str):
            Path(self.key).unlink()


def map_memory(key: int | str, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Map a :class:`Memory` as an array of one dimension."""
    descriptor = os.open(key, os.O_RDWR) if isinstance(key, str) else key
    array = np.frombuffer(mmap.mmap(descriptor, 0), dtype)  # the map keeps the file open
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
    """Answer requests until the input is closed. This is the main part of a helper's module."""
    # A terminal or a job scheduler may signal all processes at once. The process that sends requests closes helpers.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # what packages print must not mix with the answers
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
    write_all(stream, _LENGTH.pack(len(data)) + data)


def write_all(stream: IO[bytes], data: bytes) -> None:
    """Send bytes through a pipe without buffers."""
    left = memoryview(data)
    while left:  # a write to a pipe may be partial
        left = left[stream.write(left) :]
    stream.flush()


def read_message(stream: IO[bytes]) -> Any:
    """What :func:`write_message` sent. An EOFError where the other end was closed."""
    return pickle.loads(exactly(stream, _LENGTH.unpack(exactly(stream, _LENGTH.size))[0]))


def exactly(stream: IO[bytes], size: int) -> bytes:
    """So many bytes of a pipe without buffers. An EOFError where the other end was closed."""
    parts = []
    while size:
        parts.append(stream.read(size))
        if not parts[-1]:
            raise EOFError
        size -= len(parts[-1])
    return b"".join(parts)
