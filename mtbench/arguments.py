"""Checks of the arguments that environments take."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mtbench.errors import UsageError, unknown_argument_error, unknown_name_error
from mtbench.suite import Suite

Name = TypeVar("Name", bound=str)


def refuse_unknown(kwargs: dict[str, Any], known: list[str]) -> None:
    """Raise a TypeError that names the nearest known argument, if there is any other."""
    if kwargs:
        raise unknown_argument_error(next(iter(kwargs)), known)


def checked_tasks(suite: Suite, split: str, tasks: Sequence[str] | None) -> list[str]:
    """The tasks to play: those of the split, or some of them and of the further ones that it offers."""
    default = list(suite.split(split).tasks)
    if tasks is None:
        return default
    available = [*default, *suite.split(split).extra_tasks]
    if isinstance(tasks, str):
        raise UsageError(f"`tasks` is a list of names; write tasks={json.dumps([tasks])}.")
    if not isinstance(tasks, Sequence):
        raise UsageError(f"`tasks` is a list of names, got {tasks!r}.")
    for task in tasks:
        if task in suite.refused:
            raise UsageError(f"Suite {suite.name!r} cannot play {task!r}: {suite.refused[task]}.")
        if task not in available:
            raise unknown_name_error("task", task, available, f"split {split!r} of suite {suite.name!r}")
    if not tasks or len(set(tasks)) != len(tasks):
        raise UsageError(f"`tasks` must name at least one task and none twice, got {list(tasks)}.")
    return list(tasks)


def checked_count(name: str, value: int) -> int:
    """An argument that counts something, as an int of at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise UsageError(f"`{name}` must be an integer of at least 1, got {value!r}.")
    return int(value)


def checked_choice(name: str, value: Name, choices: list[str]) -> Name:
    """An argument that is one of some names."""
    if value not in choices:
        raise unknown_name_error(name, value, choices, "mtbench environments")
    return value


def checked_scales(suite: Suite, scales: Mapping[str, float] | None) -> dict[str, float]:
    """Reward factors by task, each a finite number."""
    if scales is not None and not isinstance(scales, Mapping):
        raise UsageError(f"`reward_scales` gives factors by task, such as {{'task': 10.0}}, got {scales!r}.")
    for task, scale in (scales or {}).items():
        if task not in suite.tasks:
            raise unknown_name_error("task", task, list(suite.tasks), f"`reward_scales` of suite {suite.name!r}")
        if isinstance(scale, bool) or not isinstance(scale, (int, float)) or not math.isfinite(scale):
            raise UsageError(f"The reward scale of {task!r} must be a finite number, got {scale!r}.")
    return {task: float(scale) for task, scale in (scales or {}).items()}
