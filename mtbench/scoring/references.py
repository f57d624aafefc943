"""Normalization constants: what a score of 0 and of 1 mean on every task, and who says so.

The numbers are in a JSON file of the suite's own (:attr:`mtbench.suite.Suite.references`), each with its source:

- ``scales``: by name, the default first, ``description`` and, for each end (``low`` and ``high``), the entries that may
  serve; the first that a task has is used. A scale covers the tasks that have both ends;
- ``sources``: by entry, what it is and where it comes from;
- ``tasks``: by task and entry, ``mean`` and, where mtbench measured it, ``sem``;
- ``warnings`` and ``notes``: sentences that readers of all scores, or of certain ones (:class:`Note`), must know. Both
  may be left out.

The raw scale (0 is a return of 0, 1 a return of 1) covers every task; it serves where no other does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError
from mtbench.suite import Suite, load_suite, read_data

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Anchor:
    """One end of a task's scale.

    Attributes:
        value: A return on the default reward scale.
        entry: The entry of the data file that it comes from.
        sem: Its standard error, where mtbench measured it; None for published values.
    """

    value: float
    entry: str
    sem: float | None = None


class _Everywhere(Mapping[str, Anchor]):
    """The same anchor for every task. It lists none, as it does not depend on them."""

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor

    def __getitem__(self, task: str) -> Anchor:
        return self._anchor

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


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
    low: Mapping[str, Anchor]
    high: Mapping[str, Anchor]

    def covers(self, task: str) -> bool:
        """Whether the scale has both anchors of the task."""
        return task in self.low and task in self.high

    def normalize(self, task: str, returns: Floats) -> Floats:
        """Returns of one task, of any shape, on this scale.

        Raises:
            ValueError: The scale has no anchors for the task.
        """
        if not self.covers(task):
            raise UsageError(f"The {self.name} scale has no reference for task {task!r}.")
        low, high = self.low[task].value, self.high[task].value
        return (returns - low) / (high - low)

    def slopes(self, tasks: Sequence[str]) -> Floats:
        """By task, how much more a return that is greater by 1 is worth: a difference times this is on the scale."""
        return np.array([1 / (self.high[task].value - self.low[task].value) for task in tasks])


RAW = Scale(
    "raw",
    "the plain return: no scale has references for all of these tasks. Aggregates mix the tasks' units.",
    _Everywhere(Anchor(0.0, "zero")),
    _Everywhere(Anchor(1.0, "one")),
)


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence that a reader of certain scores must know. Empty conditions always hold.

    Attributes:
        text: The sentence.
        scales: Holds where one of these scales is shown.
        tasks: Patterns such as ``"CountRecall*"``; holds where one matches a scored task.
        splits: Holds on these splits.
    """

    text: str
    scales: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    splits: tuple[str, ...] = ()

    def applies(self, tasks: Sequence[str], split: str, scales: Sequence[str]) -> bool:
        """Whether it concerns these scores."""
        return (
            (not self.scales or any(scale in self.scales for scale in scales))
            and (not self.tasks or any(fnmatchcase(task, pattern) for task in tasks for pattern in self.tasks))
            and (not self.splits or split in self.splits)
        )


@dataclass(frozen=True, slots=True)
class References:
    """All that is known of a suite's references.

    Attributes:
        suite: Suite name.
        scales: By name, in the order tables show them; the first is the default.
        sources: What each entry is and where it comes from.
        warnings: What every reader of the suite's scores must know.
        conditional: What readers of certain scores must know besides.
    """

    suite: str
    scales: dict[str, Scale]
    sources: dict[str, str]
    warnings: tuple[str, ...]
    conditional: tuple[Note, ...] = ()

    @property
    def first(self) -> Scale:
        """The default scale."""
        return next(iter(self.scales.values()))

    @property
    def notes(self) -> tuple[str, ...]:
        """The text of every conditional note."""
        return tuple(note.text for note in self.conditional)

    def notes_for(self, tasks: Sequence[str], split: str, scales: Sequence[str] | None = None) -> list[str]:
        """The conditional notes that concern scores of these tasks on this split.

        Args:
            tasks: Task names.
            split: Such as ``"test"``.
            scales: The scales shown; by default all.
        """
        shown = list(self.scales) if scales is None else scales
        return [note.text for note in self.conditional if note.applies(tasks, split, shown)]

    def missing(self, tasks: Sequence[str]) -> dict[str, list[str]]:
        """By scale, the tasks that it has no reference for; scales that cover all are left out."""
        lacking = {name: [task for task in tasks if not scale.covers(task)] for name, scale in self.scales.items()}
        return {name: without for name, without in lacking.items() if without}

    def covering(self, tasks: Sequence[str]) -> References:
        """The same with only the scales that cover all of these tasks, or with the raw scale where none does."""
        missing = self.missing(tasks)
        kept = {name: scale for name, scale in self.scales.items() if name not in missing}
        return replace(self, scales=kept or {RAW.name: RAW})


def missing_references(suite: str | Suite, tasks: Sequence[str]) -> dict[str, list[str]]:
    """By scale of the suite, the tasks of these that it has no reference for; empty where every scale covers all.

    Scores of these tasks leave such a scale out. Where none is left, they show the raw scale, the plain return.
    """
    return load_references(suite).missing(tasks)


def load_references(suite: str | Suite) -> References:
    """The references of a suite; the raw scale alone where it names none.

    Args:
        suite: A suite, or its name or import string; never a name that a record chose, as it may be imported.

    Raises:
        ValueError: There is no such suite, or a scale has ends in the wrong order.
    """
    return _references(load_suite(suite))


@lru_cache
def _references(suite: Suite) -> References:
    if not suite.references:
        return References(suite.name, {RAW.name: RAW}, {}, ())
    data = read_data(*suite.references.split(":"))
    scales = {name: _scale(name, spec, data["tasks"]) for name, spec in data["scales"].items()}
    notes = tuple(
        Note(note["text"], *(tuple(note.get(key, ())) for key in _CONDITIONS)) for note in data.get("notes", ())
    )
    return References(suite.name, scales, data["sources"], tuple(data.get("warnings", ())), notes)


_CONDITIONS = ("scales", "tasks", "splits")


def _scale(name: str, spec: dict[str, Any], tasks: dict[str, Any]) -> Scale:
    low, high = (
        {task: anchor for task, entries in tasks.items() if (anchor := _anchor(entries, spec[end])) is not None}
        for end in ("low", "high")
    )
    scale = Scale(name, spec["description"], low, high)
    for task in tasks:
        if scale.covers(task) and not low[task].value < high[task].value:
            raise UsageError(f"The {name} scale of task {task!r} does not rise: {low[task]} to {high[task]}.")
    return scale


def _anchor(entries: dict[str, Any], wanted: list[str]) -> Anchor | None:
    for name in wanted:
        if entries.get(name) is not None:
            entry = entries[name]
            return Anchor(float(entry["mean"]), name, float(entry["sem"]) if "sem" in entry else None)
    return None
