"""Helper processes that draw BabyAI's layouts in the background.

Upstream draws layouts in Python, which threads cannot run in parallel because of the GIL.
"""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from queue import SimpleQueue
from typing import Final

from mtbench.suites.babyai.layouts import Layouts, World
from mtbench.vector.forks import finalize_unless_forked
from mtbench.vector.helpers import Helper, HelperGone, answer, retried

Drawn = tuple[World, str]
_THREADS = "mtbench-drawers"


class Drawers:
    """A pool of processes that draw layouts. They end with this object.

    Args:
        count: Number of processes.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, _THREADS)
        self._processes = _Processes(count)
        self.close: Final = finalize_unless_forked(self, _close, self._pool, self._processes)

    def draw(self, task: str, seed: int) -> Future[Drawn]:
        """Start to draw a layout; the future has the result."""
        # The pool must hold no reference to this object. If a thread of the pool released the last one, the finalizer
        # would make the thread wait for itself.
        return self._pool.submit(self._processes.drawn, task, seed)


class _Processes:
    """The processes, one for each thread of the pool. A process that is killed is replaced."""

    def __init__(self, count: int) -> None:
        self._stopped = threading.Event()
        self._lock = threading.Lock()  # guards the running processes
        self._running: set[Helper] = set()
        self._idle: SimpleQueue[Helper] = SimpleQueue()
        for _ in range(count):
            self._idle.put(self._start())

    def drawn(self, task: str, seed: int) -> Drawn:
        """Draw a layout in an idle process.

        Raises:
            CancelledError: The processes were stopped.
        """
        helper = self._idle.get()

        def replace_and_ask() -> Drawn:
            nonlocal helper
            helper = self._start(instead_of=helper)
            found: Drawn = helper.ask((task, seed))
            return found

        try:
            drawn: Drawn = helper.ask((task, seed))
            return drawn
        except HelperGone:
            try:
                return retried(replace_and_ask, self._stopped.wait)
            except HelperGone:
                return Layouts(task).draw(seed)  # no process can be kept alive: draw here, slowly
        finally:
            self._idle.put(helper)

    def _start(self, instead_of: Helper | None = None) -> Helper:
        with self._lock:
            if self._stopped.is_set():
                raise CancelledError
            if instead_of is not None and instead_of in self._running:
                self._running.remove(instead_of)
                instead_of.close(kill=True)
            helper = Helper(__name__)
            self._running.add(helper)
            return helper

    def stop(self) -> None:
        """Kill all processes and start no more."""
        with self._lock:
            self._stopped.set()
            for helper in self._running:
                helper.process.kill()

    def close(self) -> None:
        """Close the pipes of all processes."""
        for helper in self._running:
            helper.close()


def _close(pool: ThreadPoolExecutor, processes: _Processes) -> None:
    processes.stop()
    # The garbage collector may run this in a thread of the pool, which must not wait for itself.
    in_the_pool = threading.current_thread().name.startswith(_THREADS)
    pool.shutdown(wait=not in_the_pool, cancel_futures=True)
    processes.close()


_layouts: dict[str, Layouts] = {}  # only in a helper process


def _draw(request: tuple[str, int]) -> Drawn:
    task, seed = request
    if task not in _layouts:
        _layouts[task] = Layouts(task)
    return _layouts[task].draw(seed)


if __name__ == "__main__":
    answer(_draw)
