"""The scripted experts: each suite's own, as one policy with privileged access.

An oracle acts on the base environment's hidden *state* (the Markov state of the game), never on draws that have not
happened yet. Its score is what a perfect player who needed no memory would get: it certifies that every task can be
solved through the wrapper, and it is the upper reference where no published one exists.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError
from mtbench.suite import imported

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout


class Oracle:
    """Plays every suite that names an expert (:attr:`mtbench.suite.Suite.oracle`)."""

    def start(self, num_envs: int, seed: int, observation_space: gym.Space[Any], action_space: gym.Space[Any]) -> None:
        """Nothing to prepare: experts are deterministic functions of the state."""
        self._environments: Sequence[MetaRollout] = []

    def bind(self, environments: Sequence[MetaRollout]) -> None:
        """Look up the suite's expert.

        Raises:
            ValueError: The suite has no oracle.
        """
        suite = environments[0].suite
        if not suite.oracle:
            raise UsageError(f"There is no oracle for the suite {suite.name!r}.")
        self._expert: Callable[[MetaRollout], Any] = imported(suite.oracle)
        self._environments = environments

    def act(self, observations: Any, reset_mask: npt.NDArray[np.bool_]) -> list[Any]:
        """The expert's action for every environment; observations are not used."""
        return [self._expert(environment) for environment in self._environments]
