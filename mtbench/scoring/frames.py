"""Scores as tidy rows: one number with its interval per row. The CSV format and data frames are made of them.

========= ======= ============================================================================================
column    dtype   meaning
========= ======= ============================================================================================
env_id    string  Gymnasium ID
split     string  ``train`` or ``test``
agent     string  agent name
scale     string  a scale of the suite (0 and 1 are its references), ``return`` (default reward scale) or ``success``
task      string  task name; empty for an aggregate over tasks
statistic string  of a task: ``mean`` (what counts under the objective), ``attempt 1``, ``attempt 2``, ...,
                  ``last - first``; over tasks: an aggregate, such as ``IQM``, ``mean`` or ``coverage``. Aggregates that
                  end in ``, new tasks`` leave out test tasks that repeat a training task. Of an audited agent also
                  ``audit: memory`` and ``audit: this variant`` (:mod:`mtbench.audit`).
value     float64 the estimate
low       float64 lower end of its 95 % interval
high      float64 upper end of its 95 % interval
========= ======= ============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from mtbench.errors import unknown_name_error
from mtbench.scoring.intervals import Estimate
from mtbench.scoring.scores import AgentScores, Scores

if TYPE_CHECKING:
    import pandas as pd


class Number(NamedTuple):
    """One row; see the module for its columns."""

    env_id: str
    split: str
    agent: str
    scale: str
    task: str
    statistic: str
    value: float
    low: float
    high: float


ROWS: dict[str, Callable[[Number], bool]] = {
    "tasks": lambda number: number.task != "" and number.statistic == "mean",
    "aggregates": lambda number: number.task == "",
    "all": lambda number: True,
}


def numbers(scores: Scores) -> Iterator[Number]:
    """Every number of some scores but for curves and comparisons of two agents."""
    for own in scores.agents:
        for scale, task, statistic, estimate in _estimates(own):
            ends = (estimate.value, estimate.low, estimate.high)
            yield Number(scores.env_id, scores.split, own.agent, scale, task, statistic, *ends)


def frame(scores: Scores, rows: str = "tasks") -> pd.DataFrame:
    """The numbers as a data frame.

    Args:
        scores: Whose.
        rows: One of :data:`ROWS`.

    Raises:
        ValueError: There are no such rows.
    """
    import pandas as pd

    if rows not in ROWS:
        raise unknown_name_error("kind of rows", rows, list(ROWS), "data frames of scores")
    return pd.DataFrame(filter(ROWS[rows], numbers(scores)), columns=list(Number._fields))


def _estimates(own: AgentScores) -> Iterator[tuple[str, str, str, Estimate]]:
    for task, estimate in own.returns.items():
        yield "return", task, "mean", estimate
    for task, attempts in own.attempts.items():
        for i, estimate in enumerate(attempts):
            yield "return", task, f"attempt {i + 1}", estimate
    for task, estimate in own.adaptation.items():
        yield "return", task, "last - first", estimate
    for measured, lost in own.audit.items():
        for task, estimate in lost.returns.items():
            yield "return", task, f"audit: {measured}", estimate
        for scale, estimate in lost.means.items():
            yield scale, "", f"audit: {measured}", estimate
    for task, attempts in own.success.items():
        for i, estimate in enumerate(attempts):
            yield "success", task, f"attempt {i + 1}", estimate
    for name, estimate in own.successes.items():
        yield "success", "", name, estimate
    for scale, by_task in own.normalized.items():
        for task, estimate in by_task.items():
            yield scale, task, "mean", estimate
        for name, estimate in own.aggregates[scale].items():
            yield scale, "", name, estimate
        for name, estimate in own.new.get(scale, {}).items():
            yield scale, "", f"{name}, new tasks", estimate
