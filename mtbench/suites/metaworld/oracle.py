"""Meta-World's scripted policies, which are told the goal that agents do not see."""

from __future__ import annotations

import warnings
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mtbench.rollout import MetaRollout


def action(env: MetaRollout) -> npt.NDArray[np.float32]:
    """The policy's action in the current state."""
    base: Any = env.base
    if not env.playing:
        return np.zeros(4, dtype=np.float32)
    told = base.observation.copy()
    told[36:39] = base.upstream._get_pos_goal()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some ask for more than there is, which is clipped
        wanted = _policy(base.skill).get_action(told)
    chosen: npt.NDArray[np.float32] = np.clip(wanted, -1, 1).astype(np.float32)
    return chosen


@cache
def _policy(skill: str) -> Any:
    from metaworld.policies import ENV_POLICY_MAP

    return ENV_POLICY_MAP[skill]()
