"""Render with MuJoCo without a window, on any backend that works."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import gymnasium as gym
import mujoco
from mujoco import gl_context


def renderer(model: Any, height: int, width: int) -> Any:
    """A ``mujoco.Renderer`` without shadows and reflections, which takes three quarters of the time on a CPU.

    On Linux without a display, if ``MUJOCO_GL`` is not set, it uses EGL, or OSMesa if EGL does not work.

    Raises:
        gymnasium.error.DependencyNotInstalled: No backend works here.
    """
    tried = []
    for kind in _contexts():
        try:
            made = _made(kind, model, height, width)
        except Exception as error:  # each backend raises its own exceptions
            tried.append(f"{kind or 'the default'} says: {error}")
            continue
        for flag in (mujoco.mjtRndFlag.mjRND_SHADOW, mujoco.mjtRndFlag.mjRND_REFLECTION):
            made.scene.flags[flag] = 0
        return made
    raise gym.error.DependencyNotInstalled(
        "Pictures of Meta-World need a display, EGL or OSMesa (on Debian: apt install libegl1, or libosmesa6). "
        + "; ".join(tried)
    )


def camera() -> Any:
    """A view from close to a corner of the table."""
    one = mujoco.MjvCamera()
    one.lookat[:] = 0, 0.62, 0.15
    one.distance, one.azimuth, one.elevation = 1.45, 148, -32
    return one


def _contexts() -> list[str]:
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("MUJOCO_GL")
    return ["mujoco.egl", "mujoco.osmesa"] if headless else [""]


def _made(kind: str, model: Any, height: int, width: int) -> Any:
    """Make a renderer on a backend. MuJoCo itself chooses one when it is first imported, which may be too early."""
    # With these attributes, closing a renderer whose construction failed raises no second error.
    quiet = type("Renderer", (mujoco.Renderer,), {"_gl_context": None, "_mjr_context": None})
    usual = getattr(gl_context, "GLContext", None)
    try:
        if kind:
            gl_context.GLContext = importlib.import_module(kind).GLContext
        return quiet(model, height, width)
    finally:
        if usual is not None:
            gl_context.GLContext = usual
