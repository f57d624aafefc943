"""Let signals end a training run cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
from types import FrameType

from rich.console import Console

_err = Console(stderr=True, highlight=False)


class stopping_by_signal:
    """Let the first Ctrl-C (or SIGTERM) end a run cleanly; the second one ends it at once.

    Args:
        stop: Set by the first signal.

    Attributes:
        signal: The number of the signal received.
    """

    signal: int = signal.SIGINT

    def __init__(self, stop: threading.Event) -> None:
        self._event = stop

    def __enter__(self) -> stopping_by_signal:
        self._before = {s: signal.signal(s, self._stop) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.signal = number
        self._event.set()
        for each, handler in self._before.items():
            signal.signal(each, handler)
        with contextlib.suppress(OSError):  # the reader has closed the pipe
            _err.print("Stopping: saving a checkpoint. (Again: at once, without.)")
