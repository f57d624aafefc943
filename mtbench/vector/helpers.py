"""Helper processes, for Python code that threads would run in turns: each answers one request after the other.

They are started by a command line and not by ``multiprocessing``, which would run a user's script again that does not
guard its main part.
"""

from __future__ import annotations

import os
import pickle
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import mtbench

_LENGTH = struct.Struct("<q")


class HelperGone(Exception):
    """The process has ended: it was killed."""


class Helper:
    """A module that runs :func:`answer`, in a process of its own.

    Args:
        module: Its name.
    """

    def __init__(self, module: str) -> None:
        # This package first, wherever it was imported from.
        paths = [str(Path(mtbench.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        # One thread each: there are as many helpers as cores.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
        self.process = subprocess.Popen([sys.executable, "-m", module], **pipes)

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
            _send(self.process.stdin, request)
        except OSError as error:
            raise self._gone() from error

    def receive(self) -> Any:
        """The second half."""
        assert self.process.stdout is not None
        try:
            answer = _receive(self.process.stdout)
        except (EOFError, OSError) as error:
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


def answer(respond: Callable[[Any], Any]) -> None:
    """Answer until nobody asks any more: the main part of a helper's module."""
    # A terminal or a job scheduler may signal all processes at once. Whoever asks is to finish, and closes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a package says must not come between answers
    while True:
        try:
            request = _receive(sys.stdin.buffer)
        except EOFError:
            return
        found: Any
        try:
            found = respond(request)
        except Exception as error:
            found = error
        try:
            _send(answers, found)
        except BrokenPipeError:
            return


def _send(stream: IO[bytes], content: Any) -> None:
    data = pickle.dumps(content)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0]))
