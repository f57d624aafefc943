"""A pytest hook for machines without a display, which cannot draw robots."""

from __future__ import annotations

import ctypes.util
import os
from collections.abc import Generator

import gymnasium as gym
import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
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
