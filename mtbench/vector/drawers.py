"""Processes that draw BabyAI's layouts meanwhile: upstream draws them in Python, which threads would do in turns.

They are started by a command line and not by ``multiprocessing``, which would run a user's script again that does not
guard its main part.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import IO, Any

import mtbench
from mtbench.suites.babyai.layouts import Layouts, World

Drawn = tuple[World, str]

_LENGTH = struct.Struct("<q")


class Drawers:
    """A pool of such processes.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "mtbench-drawers")
        self._idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
        # This package first, wherever it was imported from.
        paths = [str(Path(mtbench.__file__).parent.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        command = [sys.executable, "-m", __name__]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "env": environment}
        processes = [subprocess.Popen(command, **pipes) for _ in range(count)]
        for process in processes:
            self._idle.put(process)
        self.close = weakref.finalize(self, _close, self._pool, processes)

    def draw(self, task: str, seed: int) -> Future[Drawn]:
        """A layout, some time."""
        return self._pool.submit(self._drawn, task, seed)

    def _drawn(self, task: str, seed: int) -> Drawn:
        process = self._idle.get()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _send(process.stdin, (task, seed))
            answer = _receive(process.stdout)
        except (EOFError, OSError):
            return Layouts(task).draw(seed)  # it was killed: slowly, then
        finally:
            self._idle.put(process)
        if isinstance(answer, Exception):
            raise answer
        drawn: Drawn = answer
        return drawn


def _close(pool: ThreadPoolExecutor, processes: list[subprocess.Popen[bytes]]) -> None:
    pool.shutdown(cancel_futures=True)
    for process in processes:
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # it was killed
                    continue
        process.wait()


def _send(stream: IO[bytes], content: Any) -> None:
    data = pickle.dumps(content)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> Any:
    head = stream.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    return pickle.loads(stream.read(_LENGTH.unpack(head)[0]))


def _work() -> None:
    """Answer until nobody asks any more."""
    answers = sys.stdout.buffer
    sys.stdout = sys.stderr  # whatever a package says must not come between answers
    layouts: dict[str, Layouts] = {}
    while True:
        try:
            task, seed = _receive(sys.stdin.buffer)
        except (EOFError, KeyboardInterrupt):
            return
        answer: Any
        try:
            if task not in layouts:
                layouts[task] = Layouts(task)
            answer = layouts[task].draw(seed)
        except Exception as error:
            answer = error
        _send(answers, answer)


if __name__ == "__main__":
    _work()
