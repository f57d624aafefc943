"""Processes that draw BabyAI's layouts meanwhile: upstream draws them in Python, which threads would do in turns."""

from __future__ import annotations

import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue

from mtbench.suites.babyai.layouts import Layouts, World
from mtbench.vector.helpers import Helper, HelperGone, answer

Drawn = tuple[World, str]


class Drawers:
    """A pool of such processes.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        self._pool = ThreadPoolExecutor(count, "mtbench-drawers")
        self._idle: SimpleQueue[Helper] = SimpleQueue()
        helpers = [Helper(__name__) for _ in range(count)]
        for helper in helpers:
            self._idle.put(helper)
        self.close = weakref.finalize(self, _close, self._pool, helpers)

    def draw(self, task: str, seed: int) -> Future[Drawn]:
        """A layout, some time."""
        return self._pool.submit(self._drawn, task, seed)

    def _drawn(self, task: str, seed: int) -> Drawn:
        helper = self._idle.get()
        try:
            drawn: Drawn = helper.ask((task, seed))
        except HelperGone:
            return Layouts(task).draw(seed)  # slowly, then
        finally:
            self._idle.put(helper)
        return drawn


def _close(pool: ThreadPoolExecutor, helpers: list[Helper]) -> None:
    pool.shutdown(cancel_futures=True)
    for helper in helpers:
        helper.close()


_layouts: dict[str, Layouts] = {}  # a helper's own


def _draw(request: tuple[str, int]) -> Drawn:
    task, seed = request
    if task not in _layouts:
        _layouts[task] = Layouts(task)
    return _layouts[task].draw(seed)


if __name__ == "__main__":
    answer(_draw)
