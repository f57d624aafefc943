"""Evaluate an agent while it trains, and keep the best one.

Validation cases of the split that is trained on have a stream of their own, so that the cases of the final evaluation
influence no choice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mtbench.evaluation import evaluate
from mtbench.files import write_json
from mtbench.jobs import ShardPlayer
from mtbench.policy import Policy
from mtbench.registration import find
from mtbench.scoring.references import load_references
from mtbench.scoring.scored import mean_scores
from mtbench.suite import Suite

from . import checkpoint
from .settings import to_dict

Means = dict[str, float]  # by task, the mean scored return


class Stopped(Exception):
    """The run is to stop, and it is evaluating."""


def stoppable(policy: Policy, stop: threading.Event) -> Policy:
    """The same policy, which raises :class:`Stopped` before the next action once the run is to stop."""
    act = policy.act

    def acting(*arguments: Any) -> Any:
        if stop.is_set():
            raise Stopped
        return act(*arguments)

    vars(policy)["act"] = acting
    return policy


def validated(policy: Policy, folder: Path, updates: int, config: Any, player: ShardPlayer | None = None) -> Means:
    """Play validation cases; their records lie in the run's folder and can be scored like any others.

    Args:
        policy: Acts with this process's model.
        folder: Of the training run.
        updates: Done so far.
        config: Has ``env_id``, ``env``, ``seed`` and ``evaluate_rollouts``.
        player: Plays the shards; None plays them here.

    Returns:
        By task, the mean scored return.
    """
    run = evaluate(
        config.env_id,
        policy,
        folder / "evaluations" / f"update-{updates:09d}",
        split=config.env.get("split", "train"),
        cases="validation",
        rollouts_per_task=config.evaluate_rollouts,
        seed=config.seed,
        jobs=1,
        env_kwargs={name: value for name, value in config.env.items() if name != "split"},
        player=player,
    )
    means: Means = mean_scores(run.episodes, run.manifest["objective"])
    return means


def selection_score(suite: Suite, returns: Means) -> float:
    """What chooses between an agent's checkpoints: the mean over tasks on the suite's default scale.

    Args:
        suite: Whose tasks.
        returns: By task, the mean scored return.
    """
    scale = load_references(suite).covering(list(returns)).first
    return float(np.mean([scale.normalize(task, np.array(value)) for task, value in returns.items()]))


def keep_if_best(folder: Path, config: Any, updates: int, means: Means, state: Callable[[], dict[str, Any]]) -> None:
    """Write the agent to ``best/`` of the run's folder, a run to evaluate like any other, if none was better.

    Args:
        folder: Of the training run.
        config: Its settings.
        updates: Done so far.
        means: What :func:`validated` returned.
        state: Makes what a policy needs, for :func:`.checkpoint.save`.
    """
    best, score = folder / "best", selection_score(find(config.env_id).suite, means)
    before = checkpoint.newest(best / "checkpoints", with_replay=False)
    if before is not None and before[1]["score"] >= score:
        return
    write_json(best / "config.json", to_dict(config))
    checkpoint.save(best / "checkpoints", updates, {**state(), "updates": updates, "score": score}, {}, keep=1)
