"""What all tests share."""

import ctypes.util
import os

import gymnasium as gym
import pytest

# Tests run side by side, and so does what they start: more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_collection_modifyitems(items):
    """Slow tests run first: one that started last would leave the other workers idle."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Machines that have nothing to draw robots with skip what draws them."""
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
