"""Fixtures and hooks for all tests."""

import ctypes.util
import os

import gymnasium as gym
import pytest

# Tests and their subprocesses run in parallel already, so one thread each is enough.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Run slow tests first: one that started last would leave the other workers idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skip rendering tests where neither EGL nor OSMesa exists."""
    try:
        return (yield)
    except gym.error.DependencyNotInstalled as error:
        if (
            "EGL" not in str(error)
            or os.environ.get("DISPLAY")
            or any(map(ctypes.util.find_library, ("EGL", "OSMesa")))
        ):
            raise
        pytest.skip(str(error))
