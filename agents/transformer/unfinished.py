"""Repeat unfinished rollouts: a resumed run goes on in the middle of them.

A checkpoint has the actions of every unfinished rollout and the random stream that it was drawn from. Playing them
again leads to the same state in every suite, with nothing of a simulator in the file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench.vector import resuming

Array = npt.NDArray[Any]

# Of an environment, its step in the rollout, and what it showed after that step: observation, reward, whether it ended.
OnStep = Callable[[Array, Array, Any, Array, Array], None]


def play_again(
    envs: gym.vector.VectorEnv[Any, Any, Any], streams: Array, lengths: Array, actions: Array, on_step: OnStep
) -> None:
    """Bring every environment to the end of its unfinished rollout; all of them arrive there together.

    Args:
        envs: With next-step autoreset; they have been reset before.
        streams: What each rollout was drawn from, see :mod:`mtbench.vector.resuming`.
        lengths: ``(N,)``: steps of each rollout so far.
        actions: ``(T, N, ...)``: they were played, in the environment's own format.
        on_step: Called with the environments that are in their rollout, the steps that they have played, and the
            observations, rewards and flags of all.
    """
    longest = int(lengths.max())
    waits = longest - lengths  # until then, an environment plays anything
    observation: Any = None
    for t in range(longest + 1):
        begin = np.flatnonzero(waits == t)
        if t:
            at = np.maximum(t - 1 - waits, 0)
            observation, reward, terminated, truncated, _ = envs.step(actions[at, np.arange(len(at))])
            played = np.flatnonzero(waits < t)
            on_step(played, t - waits[played], observation, reward, terminated | truncated)
        if len(begin):
            mask = np.zeros(len(lengths), dtype=np.bool_)
            mask[begin] = True
            resuming.set_streams(envs, begin.tolist(), streams[begin])
            observation, _ = envs.reset(options={"reset_mask": mask})
            nothing = np.zeros(len(lengths))
            on_step(begin, np.zeros(len(begin), dtype=np.int64), observation, nothing, nothing > 0)
