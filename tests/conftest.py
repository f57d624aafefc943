"""Fixtures and hooks for all tests."""

import os

import gymnasium as gym
import pytest

from mtbench.registration import TABLE, rows
from mtbench.testing.rendering import pytest_runtest_call  # noqa: F401 (a hook)

# Tests and their subprocesses run in parallel already, so one thread each is enough.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Run slow tests first: one that started last would leave the other workers idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def ids_of_this_package(monkeypatch):
    """Hide the IDs that examples register when pytest collects them."""
    for row in rows():
        if row not in TABLE:
            monkeypatch.delitem(gym.registry, row.id)
