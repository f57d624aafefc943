"""What all tests share."""

import ctypes.util
import os

import gymnasium as gym
import pytest


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
