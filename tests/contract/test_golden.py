import pytest

from mtbench.registration import TABLE
from mtbench.suite import load_suite

from . import golden

CASES = [
    (row.id, split.name, task)
    for row in TABLE
    for split in load_suite(row.kwargs["suite"]).splits.values()
    for task in split.tasks
]


@pytest.mark.parametrize(("env_id", "split", "task"), CASES)
def test_the_trace_has_not_changed(env_id, split, task):
    """A failure here means that results will differ: undo the change or register a new version."""
    assert golden.trace_hash(env_id, split, task) == golden.read(env_id)[f"{split}/{task}"]
