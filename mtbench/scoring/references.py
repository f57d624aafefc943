"""Normalization constants: what a score of 0 and of 1 mean on every task, and who says so.

The numbers live in ``mtbench/scoring/data/<suite>.json``, each with its source. A suite has one or more scales; a
scale names, for each end, the entries that may serve, the first that a task has wins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Anchor:
    """One end of a task's scale: a return on the default reward scale and the entry it comes from."""

    value: float
    entry: str


@dataclass(frozen=True, slots=True)
class Scale:
    """``normalized = (return - low) / (high - low)`` per task.

    Attributes:
        name: Such as ``"published"``.
        description: One sentence for people.
        low: Anchor of 0, by task.
        high: Anchor of 1, by task.
    """

    name: str
    description: str
    low: dict[str, Anchor]
    high: dict[str, Anchor]

    def normalize(self, task: str, returns: Floats) -> Floats:
        """Returns of one task, of any shape, on this scale.

        Raises:
            ValueError: The scale has no anchors for the task.
        """
        if task not in self.low or task not in self.high:
            raise UsageError(f"The {self.name} scale has no reference for task {task!r}.")
        low, high = self.low[task].value, self.high[task].value
        return (returns - low) / (high - low)


@dataclass(frozen=True, slots=True)
class References:
    """All that is known of a suite's references.

    Attributes:
        suite: Suite name.
        scales: By name, in the order tables show them.
        sources: What each entry is and where it comes from.
        warnings: What a reader of a table must be told.
    """

    suite: str
    scales: dict[str, Scale]
    sources: dict[str, str]
    warnings: tuple[str, ...]


@lru_cache
def load_references(suite: str) -> References:
    """The references of a suite.

    Raises:
        ValueError: There are none, or a scale lacks a task or has equal ends.
    """
    file = resources.files("mtbench.scoring.data") / f"{suite}.json"
    if not file.is_file():
        raise UsageError(f"There are no reference scores for the suite {suite!r}.")
    data = json.loads(file.read_text())
    scales = {name: _scale(name, spec, data["tasks"]) for name, spec in data["scales"].items()}
    return References(suite, scales, data["sources"], tuple(data["warnings"]))


def _scale(name: str, spec: dict[str, Any], tasks: dict[str, Any]) -> Scale:
    low = {task: _anchor(name, task, entries, spec["low"]) for task, entries in tasks.items()}
    high = {task: _anchor(name, task, entries, spec["high"]) for task, entries in tasks.items()}
    for task in tasks:
        if not low[task].value < high[task].value:
            raise UsageError(f"The {name} scale of task {task!r} does not rise: {low[task]} to {high[task]}.")
    return Scale(name, spec["description"], low, high)


def _anchor(scale: str, task: str, entries: dict[str, Any], wanted: list[str]) -> Anchor:
    for entry in wanted:
        if entries.get(entry) is not None:
            return Anchor(float(entries[entry]["mean"]), entry)
    raise UsageError(f"The {scale} scale of task {task!r} needs one of {wanted}.")
