"""Bring a vector environment back to the middle of its rollouts, in another process say.

The random stream that a rollout was drawn from and the actions played since determine it, so a program that keeps both
can repeat it. When a rollout ends, :func:`streams` gives the stream of the next one; :func:`set_streams` and a reset
without a seed begin that one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_HALF = 2**64
#: Of a stream: PCG64's numbers of 128 bits in halves, and the 32 bits that it may have left over.
FIELDS = ("state_high", "state_low", "increment_high", "increment_low", "spare", "has_spare")


def streams(envs: gym.vector.VectorEnv[Any, Any, Any], which: Sequence[int]) -> Array:
    """Privileged: the random streams that the next rollouts of some environments will be drawn from.

    Args:
        envs: What :func:`mtbench.vector.make_vec` made.
        which: Indices of environments.

    Returns:
        ``(len(which), 6)`` uint64.
    """
    held = getattr(envs.unwrapped, "streams", None)
    if held is None:
        generators = [_env(envs, i).np_random for i in which]
        return np.array([state_of(each) for each in generators], dtype=np.uint64).reshape(-1, 6)
    rows = held[list(which)]
    return np.stack([rows[name].astype(np.uint64) for name in FIELDS], axis=1)


def set_streams(envs: gym.vector.VectorEnv[Any, Any, Any], which: Sequence[int], states: Array) -> None:
    """Set what the next rollouts of some environments are drawn from, as :func:`streams` returned it."""
    held = getattr(envs.unwrapped, "streams", None)
    for i, state in zip(which, states, strict=True):
        if held is not None:
            held[i] = tuple(state.tolist())
        else:
            _env(envs, i).np_random = _generator(state)


def seeded_streams(seeds: Sequence[int]) -> Array:
    """The streams from which ``reset(seed=seeds)`` draws, ``(len(seeds), 6)`` uint64."""
    generators = (gym.utils.seeding.np_random(seed)[0] for seed in seeds)
    return np.array([state_of(each) for each in generators], dtype=np.uint64).reshape(-1, 6)


def _env(envs: gym.vector.VectorEnv[Any, Any, Any], i: int) -> gym.Env[Any, Any]:
    assert isinstance(envs.unwrapped, gym.vector.SyncVectorEnv)
    return envs.unwrapped.envs[i].unwrapped


def state_of(generator: np.random.Generator) -> list[int]:
    """The state of a NumPy generator, in the order of :data:`FIELDS`."""
    state = generator.bit_generator.state
    numbers = state["state"]["state"], state["state"]["inc"]
    halves = [half for number in numbers for half in divmod(int(number), _HALF)]
    return [*halves, int(state["uinteger"]), int(state["has_uint32"])]


def _generator(state: Array) -> np.random.Generator:
    high, low, increment_high, increment_low, spare, has_spare = (int(value) for value in state)
    bits = np.random.PCG64()
    bits.state = {
        "bit_generator": "PCG64",
        "state": {"state": high * _HALF + low, "inc": increment_high * _HALF + increment_low},
        "has_uint32": has_spare,
        "uinteger": spare,
    }
    return np.random.Generator(bits)
