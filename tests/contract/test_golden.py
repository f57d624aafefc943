import gymnasium as gym
import pytest

from mtbench.registration import TABLE
from mtbench.suite import load_suite
from mtbench.vector import ENGINES

from . import golden
from .unbatched import Unbatched

CASES = [
    (make, row.id, split.name, task)
    for row in TABLE
    for make in (gym.make, Unbatched)[: 1 + (row.kwargs["suite"] in ENGINES)]
    for split in load_suite(row.kwargs["suite"]).splits.values()
    for task in split.tasks
]


@pytest.mark.parametrize(("make", "env_id", "split", "task"), CASES)
def test_the_trace_has_not_changed(make, env_id, split, task):
    """A failure here means that results will differ: undo the change or register a new version."""
    assert golden.trace_hash(env_id, split, task, make) == golden.read(env_id)[f"{split}/{task}"]
