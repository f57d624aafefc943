"""Compile whole steps, and replay them as CUDA graphs.

A function is traced by ``torch.compile`` as one graph: a break in it is an error. On a GPU the compiled function's
kernels are recorded once for each shape, and then started by one call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mtbench.errors import UsageError

from .trees import leaves, tree_map

#: Of torch.compile.
BACKEND = "inductor"

# Graphs of one function: for all shapes and all objects that own it.
_MOST_GRAPHS = 256

# Ordinary calls with a shape before its kernels are recorded. The first compiles, the second sets up workspaces.
_ORDINARY = 2


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """The function, compiled as one graph for each combination of shapes and integers.

    Args:
        function: Takes a NamedTuple of trees of tensors, and further arguments that are the same objects in every call,
            or integers. It may change the tensors that it owns, and it returns tensors.
        device: Where its tensors are.

    Raises:
        UsageError: This PyTorch cannot trace gradients within a graph.
    """
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        raise UsageError("`learning.compile` needs PyTorch 2.13 or newer. Set learning.compile=false, or upgrade.")

    def traced(*arguments: Any) -> Any:
        with torch._dynamo.config.patch(trace_autograd_ops=True, recompile_limit=_MOST_GRAPHS):
            return whole(*arguments)

    whole = torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)
    return CudaGraphs(traced) if device.type == "cuda" else traced


class _Recorded(NamedTuple):
    """A graph, and where it reads and writes."""

    graph: torch.cuda.CUDAGraph
    inputs: tuple[Tensor | None, ...]
    outputs: Any


class CudaGraphs:
    """Calls of a function, replayed as CUDA graphs once their shapes are known.

    What a call returns is overwritten by the next one.

    Args:
        function: As for :func:`compiled`.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._calls: dict[Any, int] = {}
        self._recorded: dict[Any, _Recorded] = {}
        self._memory = torch.cuda.graph_pool_handle()

    def __call__(self, inputs: Any, *rest: Any) -> Any:
        """The function's value, on the GPU."""
        key = (
            tuple(None if one is None else (one.shape, one.dtype) for one in _tensors(inputs)),
            tuple(one for one in rest if isinstance(one, int)),
        )
        if key not in self._recorded:
            self._calls[key] = self._calls.get(key, 0) + 1
            if self._calls[key] <= _ORDINARY:
                return self._function(inputs, *rest)
            self._recorded[key] = self._record(inputs, rest)
        graph, mine, outputs = self._recorded[key]
        for own, given in zip(mine, _tensors(inputs), strict=True):
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)
        graph.replay()
        return outputs

    def _record(self, inputs: Any, rest: tuple[Any, ...]) -> _Recorded:
        mine = type(inputs)(*(None if one is None else tree_map(torch.clone, one) for one in inputs))
        graph = torch.cuda.CUDAGraph()
        # "thread_local": another thread acts or learns on its own stream meanwhile.
        with torch.cuda.graph(graph, pool=self._memory, capture_error_mode="thread_local"):
            outputs = self._function(mine, *rest)
        return _Recorded(graph, _tensors(mine), outputs)


def _tensors(inputs: Any) -> tuple[Tensor | None, ...]:
    return tuple(leaf for one in inputs for leaf in leaves(one))
