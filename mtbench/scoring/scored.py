"""The scored return of a meta-rollout, defined once for training, scores and studies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtbench.errors import unknown_name_error

if TYPE_CHECKING:
    import pandas as pd

OBJECTIVES = ("k-shot", "k-episode")


def scored(returns: npt.NDArray[Any], objective: str) -> npt.NDArray[Any]:
    """The scored return of rollouts: the last attempt under k-shot, the mean of all attempts under k-episode.

    Args:
        returns: Of each attempt, shape (..., k).
        objective: ``"k-shot"`` or ``"k-episode"``.

    Returns:
        Shape (...).

    Raises:
        ValueError: There is no such objective.
    """
    if objective not in OBJECTIVES:
        raise unknown_name_error("objective", objective, OBJECTIVES, "scores")
    return np.asarray(returns[..., -1] if objective == "k-shot" else returns.mean(axis=-1))


def scored_rollouts(episodes: pd.DataFrame, objective: str) -> pd.Series[Any]:
    """The scored return of every rollout in the rows of one run, indexed by (task, rollout)."""
    import pandas as pd

    by_attempt = episodes.pivot(index=["task", "rollout"], columns="attempt", values="return").sort_index(axis=1)
    return pd.Series(scored(by_attempt.to_numpy(), objective), index=by_attempt.index, name="scored")


def mean_scores(episodes: pd.DataFrame, objective: str) -> dict[str, float]:
    """The mean scored return of each task in the rows of one run, tasks in the order of the rows."""
    by_task = scored_rollouts(episodes, objective).groupby(level="task").mean()
    return {str(task): float(by_task[task]) for task in episodes["task"].unique()}
