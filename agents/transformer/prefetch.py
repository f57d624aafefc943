"""Make the next thing while the last one is in use."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


def prefetched(make: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
    """``map(make, numbers)``, with the next one made by a thread while the last one is in use."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch") as pool:
        waiting: Future[T] | None = None
        for number in numbers:
            following = pool.submit(make, number)
            if waiting is not None:
                yield waiting.result()
            waiting = following
        if waiting is not None:
            yield waiting.result()


def batches(make: Callable[[int], T], numbers: Iterable[int], device: torch.device) -> Iterator[T]:
    """``map(make, numbers)``; for a GPU, the next one is made and sent there while one is learnt from.

    A CPU that makes the next batch ready is not learning meanwhile.
    """
    return prefetched(make, numbers) if device.type == "cuda" else map(make, numbers)
