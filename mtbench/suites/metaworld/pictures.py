"""MuJoCo's pictures, drawn off the screen wherever something can draw them."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import gymnasium as gym
import mujoco
from mujoco import gl_context


def renderer(model: Any, height: int, width: int) -> Any:
    """A ``mujoco.Renderer`` without shadows and reflections: three quarters of the time where a processor draws.

    Where Linux has no display and ``MUJOCO_GL`` says nothing, EGL is taken, else OSMesa.

    Raises:
        gymnasium.error.DependencyNotInstalled: Neither works here.
    """
    tried = []
    for kind in _contexts():
        try:
            made = _made(kind, model, height, width)
        except Exception as error:  # of several packages, each with its own
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
    """From a corner of the table, close to it."""
    one = mujoco.MjvCamera()
    one.lookat[:] = 0, 0.62, 0.15
    one.distance, one.azimuth, one.elevation = 1.45, 148, -32
    return one


def _contexts() -> list[str]:
    headless = sys.platform == "linux" and not os.environ.get("DISPLAY") and not os.environ.get("MUJOCO_GL")
    return ["mujoco.egl", "mujoco.osmesa"] if headless else [""]


def _made(kind: str, model: Any, height: int, width: int) -> Any:
    """MuJoCo settles on a kind when it is imported: too early, since others may import it."""
    # Closes without a complaint of its own where it could not be made.
    quiet = type("Renderer", (mujoco.Renderer,), {"_gl_context": None, "_mjr_context": None})
    usual = getattr(gl_context, "GLContext", None)
    try:
        if kind:
            gl_context.GLContext = importlib.import_module(kind).GLContext
        return quiet(model, height, width)
    finally:
        if usual is not None:
            gl_context.GLContext = usual
