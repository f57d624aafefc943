"""Learning curves: the evaluations of a training run, as its log has them."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mtbench.checks import registered_environment
from mtbench.errors import UsageError
from mtbench.scoring.references import load_references
from mtbench.untrusted import parse_json, read_regular

LOG, CONFIG = "log.jsonl", "config.json"

_MOST_LOG, _MOST_CONFIG, _MOST_LINES = 1 << 28, 1 << 20, 1_000_000


@dataclass(frozen=True)
class Curve:
    """Validation scores of one training run.

    Attributes:
        name: The run's folder.
        env_id: What it trains on.
        scale: Of the scores.
        steps: Environment steps at each evaluation.
        updates: Updates at each.
        scores: The mean over tasks of the normalized return, at each.
    """

    name: str
    env_id: str
    scale: str
    steps: tuple[int, ...]
    updates: tuple[int, ...]
    scores: tuple[float, ...]


def read_curve(folder: Path) -> Curve | None:
    """The curve of a training run; None where it has not been evaluated yet. The folder is untrusted.

    Raises:
        UsageError: Its files cannot be read, or name an environment that is not registered.
    """
    config = parse_json(folder / CONFIG, read_regular(folder / CONFIG, _MOST_CONFIG))
    if not isinstance(config, dict) or not isinstance(config.get("env"), dict):
        raise UsageError(f"{folder / CONFIG} does not describe a training run.")
    row, suite = registered_environment(config.get("env_id", ""), config["env"])
    lines = read_regular(folder / LOG, _MOST_LOG).split(b"\n")[:_MOST_LINES]
    evaluated = [line for line in map(_evaluation, lines) if line is not None]
    if not evaluated:
        return None
    tasks = [task for task in evaluated[-1][2] if task in suite.tasks]
    scale = load_references(suite).covering(tasks).first if tasks else None
    if scale is None:
        raise UsageError(f"{folder / LOG} evaluates no task of suite {suite.name!r}.")
    points = [
        (steps, updates, float(np.mean([scale.normalize(task, np.array(returns[task])) for task in tasks])))
        for steps, updates, returns in evaluated
        if set(tasks) <= set(returns)
    ]
    columns = tuple(zip(*points, strict=True))
    return Curve(folder.name, row.id, scale.name, columns[0], columns[1], columns[2])


def _evaluation(line: bytes) -> tuple[int, int, dict[str, float]] | None:
    """Steps, updates and mean returns by task; None for a line without them, or a damaged one."""
    try:
        content: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict) or not isinstance(content.get("evaluation"), dict):
        return None
    steps, updates, returns = content.get("steps"), content.get("updates"), content["evaluation"]
    numbers = [steps, updates, *returns.values()]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v) for v in numbers):
        return None
    return int(numbers[0]), int(numbers[1]), {task: float(value) for task, value in returns.items()}
