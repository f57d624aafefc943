"""The share of a device's arithmetic speed that an update uses."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")

#: Names of ATen operations that give another view of a tensor, without work on the device.
VIEWS = frozenset(
    {
        *("view", "_unsafe_view", "_reshape_alias", "as_strided", "t", "transpose", "permute", "expand", "unsqueeze"),
        *("squeeze", "select", "slice", "split", "split_with_sizes", "chunk", "unbind", "unfold", "narrow"),
        *("detach", "alias", "set_"),
    }
)


def counted_flops(work: Callable[[], T]) -> tuple[T, int]:
    """Do `work`, forward and backward, and count the floating-point operations of its matrix products.

    Compiled modules run as they were written meanwhile: what is inside a compiled one cannot be counted.
    """
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        result = work()
    return result, int(counter.get_total_flops())


@functools.cache
def matmul_flops_per_second(device: torch.device) -> float:
    """What one large matrix product reaches here, bf16 on CUDA and float32 on a CPU: the most an update could.

    Measured rather than looked up, so that utilization means the same on every device; against the number on a GPU's
    data sheet it would be lower.
    """
    on_gpu = device.type == "cuda"
    size, dtype = (8192, torch.bfloat16) if on_gpu else (1024, torch.float32)
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        wait(device)
        began = time.perf_counter()
        torch.mm(a, b)
        wait(device)
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def wait(device: torch.device) -> None:
    """Wait until the device has finished its queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
