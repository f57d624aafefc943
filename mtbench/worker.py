"""A worker process: plays the shards that it is sent. See :mod:`mtbench.jobs`.

Messages use the pipes that were its standard input and output. When the input closes, the evaluation is over or was
killed, and this process ends at once.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from typing import IO, Any

from mtbench.jobs import Failed, Progress, Ready, Refused
from mtbench.playing import play_shard
from mtbench.vector.helpers import read_message, write_message

#: Seconds between two reports of progress.
_INTERVAL = 0.5


class _Reporter:
    """Counts rollouts, and sends the count from time to time."""

    def __init__(self, answers: IO[bytes]) -> None:
        self._answers, self._ended, self._sent = answers, 0, time.monotonic()

    def __call__(self, ended: int) -> None:
        self._ended += ended
        if self._ended and time.monotonic() - self._sent > _INTERVAL:
            self.flush()

    def flush(self) -> None:
        write_message(self._answers, Progress(self._ended))
        self._ended, self._sent = 0, time.monotonic()


def pipes() -> tuple[IO[bytes], IO[bytes]]:
    """The pipes. Standard input and output are replaced, so that a policy that reads or prints disturbs no message."""
    requests, answers = os.fdopen(os.dup(0), "rb", buffering=0), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)
    os.dup2(2, 1)
    os.close(nowhere)
    return requests, answers


def _listen(requests: IO[bytes], received: queue.SimpleQueue[Any]) -> None:
    """Receive messages, in a thread of its own: it notices a closed pipe while the policy plays."""
    while True:
        try:
            message = read_message(requests)
            if isinstance(message, list):  # `sys.path`; unpickling the next message may import from it
                sys.path[:] = message
                continue
        except EOFError:
            os._exit(0)
        except Exception as error:  # the setup cannot be unpickled
            message = error
        received.put(message)


def main() -> None:
    """Play until the pipe is closed."""
    # A terminal or a job scheduler may signal all processes at once. The process that started this one ends it.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    requests, answers = pipes()
    received: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests, received), daemon=True).start()
    try:
        _play(received, answers)
    except BrokenPipeError:
        os._exit(0)


def _play(received: queue.SimpleQueue[Any], answers: IO[bytes]) -> None:
    try:
        setup = received.get()
        if isinstance(setup, Exception):
            raise setup
        rows, policy = setup.load()
    except Exception as error:
        write_message(answers, Refused(f"{type(error).__name__}: {error}"))
        return
    write_message(answers, Ready())
    report = _Reporter(answers)
    while True:
        shard = received.get()
        try:
            answer: Any = play_shard(rows, policy, shard, report)
        except BaseException as error:
            answer = Failed.of(error)
        report.flush()
        write_message(answers, answer)


if __name__ == "__main__":
    main()
