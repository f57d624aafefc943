"""Batched engines behind ``gymnasium.make_vec``.

The meta-rollout contract has two implementations: :mod:`mtbench.rollout` for one environment and
:mod:`mtbench.vector.rollout` for a batch. For the latter a suite supplies an engine
(:class:`~mtbench.vector.engine.Engine`), which plays attempts and does not know about rollouts.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
from typing import Any

import gymnasium as gym

from mtbench.errors import unknown_name_error
from mtbench.suite import Suite, imported, load_suite


def make_vec(env_id: str, num_envs: int, **kwargs: Any) -> gym.vector.VectorEnv[Any, Any, Any]:
    """Like ``gymnasium.make_vec``, but uses the engine even if the ID was registered without a vector entry point.

    Args:
        env_id: A registered ID.
        num_envs: Number of environments.
        **kwargs: As for :func:`make_vector`.

    Raises:
        ValueError: There is no such ID. :func:`make_vector` raises further errors.
    """
    from mtbench.registration import find

    kwargs = {**find(env_id).kwargs, **kwargs}
    venv = make_vector(**kwargs, num_envs=num_envs)
    venv.unwrapped.spec = dataclasses.replace(gym.spec(env_id), kwargs={**kwargs, "num_envs": num_envs})
    return venv


def make_vector(
    suite: str | Suite,
    *,
    num_envs: int = 1,
    autoreset_mode: str | gym.vector.AutoresetMode = gym.vector.AutoresetMode.NEXT_STEP,
    num_workers: int | None = None,
    copy: bool = True,
    render_mode: str | None = None,
    **kwargs: Any,
) -> gym.vector.VectorEnv[Any, Any, Any]:
    """The vector entry point of this package's IDs: ``gymnasium.make_vec`` calls it.

    If the suite has no engine, Numba is missing, its compiler is disabled, or `render_mode` is set, this returns a
    :class:`gymnasium.vector.SyncVectorEnv`: same rollouts, slower.

    Args:
        suite: A suite's name or import string, or a suite.
        num_envs: Number of environments.
        autoreset_mode: One of Gymnasium's three modes.
        num_workers: Number of worker threads (processes on Meta-World). None chooses it from the CPU count and the
            number of environments. It does not change results.
        copy: False hands out the same observation array at every step.
        render_mode: ``"rgb_array"`` or None.
        **kwargs: As for :class:`~mtbench.rollout.MetaRollout`.

    Raises:
        ValueError: An argument has an unknown value or is out of range.
        TypeError: An unknown argument.
        gymnasium.error.DependencyNotInstalled: The suite's packages are missing.
    """
    from mtbench.arguments import checked_count
    from mtbench.rollout import MetaRollout

    suite = load_suite(suite)
    num_envs, mode = checked_count("num_envs", num_envs), _checked_mode(autoreset_mode)
    if num_workers is not None:
        num_workers = checked_count("num_workers", num_workers)
    if suite.engine and render_mode is None:
        obstacle, remedy = _obstacle()
        if not obstacle:
            from mtbench.vector.rollout import VectorMetaRollout

            one = MetaRollout(suite, **kwargs)  # made first: it checks the arguments and the suite's packages
            return VectorMetaRollout(one, imported(suite.engine), num_envs, mode, num_workers, copy)
        gym.logger.warn(f"{obstacle}: {suite.name} runs on the slow vector path. {remedy}")
    make = functools.partial(MetaRollout, suite, render_mode=render_mode, **kwargs)
    return gym.vector.SyncVectorEnv([make] * num_envs, copy=copy, autoreset_mode=mode)


def _obstacle() -> tuple[str, str]:
    """Why the engines cannot run ("" if they can), and what to do."""
    if importlib.util.find_spec("numba") is None:
        return "numba is not installed", "pip install numba"
    import numba

    if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]
        return "numba compiles nothing where NUMBA_DISABLE_JIT is set", "Unset it."
    return "", ""


def _checked_mode(mode: str | gym.vector.AutoresetMode) -> gym.vector.AutoresetMode:
    if isinstance(mode, gym.vector.AutoresetMode):
        return mode
    by_name = {each.value: each for each in gym.vector.AutoresetMode}
    if mode not in by_name:
        raise unknown_name_error("autoreset_mode", mode, list(by_name), "vector environments")
    return by_name[mode]
