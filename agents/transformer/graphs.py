"""Compile whole steps, and replay them as CUDA graphs.

A function is traced by ``torch.compile`` as one graph: a break in it is an error. On a GPU a function's kernels are
recorded once for each shape, and then started by one call.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .trees import leaves, tree_map

#: Of torch.compile.
BACKEND = "inductor"

# Graphs of one function: for all shapes and all objects that own it.
_MOST_GRAPHS = 256

# Ordinary calls with a shape before its kernels are recorded. The first compiles, the second sets up workspaces.
_ORDINARY = 2


def one_graph(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, compiled as one graph for each combination of shapes and integers.

    Args:
        function: Takes a NamedTuple of trees of tensors, and further arguments that are the same objects in every call,
            or integers. It may change the tensors that it owns, and it returns tensors.
    """

    def traced(*arguments: Any) -> Any:
        with torch._dynamo.config.patch(recompile_limit=_MOST_GRAPHS):
            return whole(*arguments)

    whole = torch.compile(function, fullgraph=True, dynamic=False, backend=BACKEND)
    return traced


def replayed(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """On a GPU, the function as :class:`CudaGraphs`; elsewhere the function."""
    return CudaGraphs(function) if device.type == "cuda" else function


_change = threading.Condition()
_replaying, _someone_alone = 0, False


@contextlib.contextmanager
def _together() -> Iterator[None]:
    """Replay, at the same time as other threads, but not while one of them is :func:`alone`."""
    global _replaying
    with _change:
        _change.wait_for(lambda: not _someone_alone)
        _replaying += 1
    try:
        yield
    finally:
        with _change:
            _replaying -= 1
            _change.notify_all()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Compile, record, or draw random numbers in ordinary calls, while no other thread does, or replays.

    All of these use a GPU's one default generator, which refuses whatever happens beside a recording.
    """
    global _someone_alone
    with _change:
        _change.wait_for(lambda: not _someone_alone)
        _someone_alone = True
        _change.wait_for(lambda: not _replaying)
    try:
        yield
    finally:
        with _change:
            _someone_alone = False
            _change.notify_all()


@dataclass
class _Shapes:
    """What belongs to one combination of shapes: inputs of its own, as a tree and as a list, and what they become."""

    inputs: Any
    leaves: tuple[Tensor | None, ...]
    calls: int = 0
    graph: torch.cuda.CUDAGraph | None = None
    outputs: Any = None


class CudaGraphs:
    """Calls of a function, replayed as CUDA graphs once their shapes are known.

    What a call returns is overwritten by the next one.

    Args:
        function: As for :func:`one_graph`; it need not be compiled.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._memory = torch.cuda.graph_pool_handle()
        self._shapes: dict[Any, _Shapes] = {}

    def __call__(self, inputs: Any, *rest: Any) -> Any:
        """The function's value, on the GPU."""
        key = (
            tuple(None if one is None else (one.shape, one.dtype) for one in _tensors(inputs)),
            tuple(one for one in rest if isinstance(one, int)),
        )
        if key not in self._shapes:
            own = type(inputs)(*(None if one is None else tree_map(torch.clone, one) for one in inputs))
            self._shapes[key] = _Shapes(own, _tensors(own))
        of = self._shapes[key]
        for own, given in zip(of.leaves, _tensors(inputs), strict=True):
            if own is not None and given is not None:
                own.copy_(given, non_blocking=True)
        of.calls += 1
        if of.calls <= _ORDINARY:
            with alone():
                return self._ordinary(of.inputs, rest)
        if of.graph is None:
            with alone():
                of.graph = self._record(of, rest)
        with _together():
            of.graph.replay()
        return of.outputs

    def _record(self, of: _Shapes, rest: tuple[Any, ...]) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        # "thread_local": another thread may copy to and from the GPU meanwhile.
        with torch.cuda.graph(graph, pool=self._memory, stream=self._stream, capture_error_mode="thread_local"):
            of.outputs = self._function(of.inputs, *rest)
        return graph

    def _ordinary(self, inputs: Any, rest: tuple[Any, ...]) -> Any:
        """On the stream, and with the memory, that will be recorded: nothing is compiled again then."""
        now = torch.cuda.current_stream()
        self._stream.wait_stream(now)
        with torch.cuda.stream(self._stream):
            outputs = self._function(inputs, *rest)
        now.wait_stream(self._stream)
        for output in leaves(outputs):
            output.record_stream(now)
        return outputs


def _tensors(inputs: Any) -> tuple[Tensor | None, ...]:
    return tuple(leaf for one in inputs for leaf in leaves(one))
