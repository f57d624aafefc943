"""Scripted experts with privileged access, one module per suite.

An oracle acts on the base environment's hidden *state* (the Markov state of the game), never on draws that have not
happened yet. Its score is what a perfect player who needed no memory would get: it certifies that every task can be
solved through the wrapper, and it is the upper reference where no published one exists.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout

# The modules here are named after rooms of suites; each has `action(env)`, the expert's action in a MetaRollout.
_Expert = Callable[["MetaRollout"], Any]


class Oracle:
    """Plays every suite that has a module here."""

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Nothing to prepare: experts are deterministic functions of the state."""
        self._environments: Sequence[MetaRollout] = []

    def bind(self, environments: Sequence[MetaRollout]) -> None:
        """Look up the suite's expert.

        Raises:
            ValueError: The suite has no oracle.
        """
        suite = environments[0].suite
        module = f"{__name__}.{suite.room}"
        if importlib.util.find_spec(module) is None:
            from mtbench.errors import UsageError

            raise UsageError(f"There is no oracle for the suite {suite.name!r} yet.")
        self._expert: _Expert = importlib.import_module(module).action
        self._environments = environments

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> list[Any]:
        """The expert's action for every environment; observations are not used."""
        return [self._expert(environment) for environment in self._environments]
