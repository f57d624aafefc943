"""Recording and replaying without a GPU: a stand-in records calls, and plays them again on the same memory."""

import contextlib
import threading
import time
import types
from typing import NamedTuple

import pytest
import torch
from mtbench_agents.transformer import graphs
from mtbench_agents.transformer.graphs import CudaGraphs, alone


class Inputs(NamedTuple):
    x: torch.Tensor
    tree: dict
    nothing: None = None


class Stream:
    def wait_stream(self, other):
        pass


class Recording:
    """What a GPU does: while it records, nothing runs; a replay runs all of it on the memory of the recording."""

    now = None

    def __init__(self):
        self.calls = []

    def replay(self):
        assert Recording.now is None, "nothing is replayed beside a recording"
        for call in self.calls:
            call()


@contextlib.contextmanager
def recording(graph, pool, stream, capture_error_mode):
    assert capture_error_mode == "thread_local"
    Recording.now = graph
    time.sleep(0.002)  # others would like to replay meanwhile
    try:
        yield
    finally:
        Recording.now = None


@pytest.fixture
def cuda(monkeypatch):
    fake = types.SimpleNamespace(
        Stream=Stream,
        graph_pool_handle=lambda: (0, 0),
        current_stream=Stream,
        stream=lambda stream: contextlib.nullcontext(),
        CUDAGraph=Recording,
        graph=recording,
    )
    stand_in = types.SimpleNamespace(
        **{name: getattr(torch, name) for name in ("clone", "Tensor", "_dynamo", "compile")}
    )
    stand_in.cuda = fake
    monkeypatch.setattr(graphs, "torch", stand_in)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: None)


def total(log):
    """A function that a recording plays again: it reads its inputs, and writes to one output."""

    def function(inputs, state, count):
        out = torch.zeros(())

        def work():
            log.append("work")
            state.add_(1)
            out.copy_(inputs.x.sum() + sum(leaf.sum() for leaf in inputs.tree.values()) + count + state)

        if Recording.now is None:
            work()
        else:
            log.append("recorded")
            Recording.now.calls.append(work)
        return {"sum": out}

    return function


def test_calls_are_recorded_once_for_each_shape_and_say_the_same(cuda):
    log, state = [], torch.zeros(())
    replayed = CudaGraphs(total(log))
    steps = 0
    for size, count in [(3, 1)] * 5 + [(4, 1)] * 4 + [(3, 2)] * 3 + [(3, 1)] * 2:
        inputs = Inputs(torch.full((size,), float(steps)), {"a": torch.ones(2) * steps, "b": torch.ones(1)})
        steps += 1
        found = replayed(inputs, state, count)
        assert float(found["sum"]) == size * (steps - 1) + 2 * (steps - 1) + 1 + count + steps
    assert log.count("recorded") == 3
    assert log.count("work") == steps == float(state), "recording itself does nothing"


def test_inputs_are_copied_so_that_callers_may_reuse_theirs(cuda):
    replayed, state = CudaGraphs(total([])), torch.zeros(())
    x = torch.ones(2)
    for step in range(4):
        x.fill_(step)
        found = float(replayed(Inputs(x, {}), state, 0)["sum"])
        assert found == 2 * step + step + 1


def test_nobody_replays_while_somebody_is_alone(cuda):
    """Two threads, as the learner and the collector are; the stand-in asserts it at every replay."""
    failures = []

    def play(seed):
        try:
            replayed, state = CudaGraphs(total([])), torch.zeros(())
            for step in range(200):
                replayed(Inputs(torch.ones(1 + (step // 10) % 20), {}), state, seed)
                if step % 50 == 0:
                    with alone():
                        assert graphs._replaying == 0
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=play, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "nobody waits for ever"
    assert failures == []
    assert (graphs._replaying, graphs._someone_alone) == (0, False)


def test_who_was_alone_lets_others_in_after_an_error(cuda):
    replayed = CudaGraphs(lambda inputs: 1 / 0)
    for _ in range(4):
        with pytest.raises(ZeroDivisionError):
            replayed(Inputs(torch.ones(1), {}))
    assert not graphs._someone_alone
