"""Scores as tables of strings, which every format renders."""

from __future__ import annotations

from dataclasses import dataclass

from mtbench.scoring.aggregates import AGGREGATES
from mtbench.scoring.intervals import Estimate
from mtbench.scoring.references import RAW
from mtbench.scoring.scores import AgentScores, Scores

#: Scores of one task outside these are marked in tables and cut in figures.
LEAST, MOST = -1.0, 2.0
MARK = "!"


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text; the first column is left-aligned, the others right-aligned."""

    title: str
    header: list[str]
    rows: list[list[str]]


def tables(scores: Scores) -> list[Table]:
    """All tables, the most important first."""
    built = [aggregate_table(scores), _task_table(scores)]
    if scores.k > 1:
        built.append(_adaptation_table(scores))
    if any(own.audit for own in scores.agents):
        built.append(_audit_table(scores))
    if any(own.success for own in scores.agents):
        built += [_successes_table(scores), _success_table(scores)]
    if scores.improvement:
        built.append(_improvement_table(scores))
    return built


def aggregate_table(scores: Scores) -> Table:
    """One row per agent and scale."""
    rows = [
        [f"{own.agent}{only}", _scale_cell(own, scale), *(bracket(aggregates[scale][name]) for name in AGGREGATES)]
        for scale in scores.references.scales
        for only, part in (("", "aggregates"), (", new tasks", "new"))
        for own in scores.agents
        if (aggregates := getattr(own, part))
    ]
    return Table("Aggregate scores over tasks", ["agent", "scale", *AGGREGATES], rows)


def marked(value: float) -> bool:
    """Whether a task's score is so far from 0 to 1 that tables mark it."""
    return not LEAST <= value <= MOST


def shown_scales(scores: Scores) -> list[str]:
    """All scales but the raw one: tables show plain returns in any case."""
    return [name for name, scale in scores.references.scales.items() if scale is not RAW]


def _scale_cell(own: AgentScores, scale: str) -> str:
    return f"{scale} ({own.defines[scale]} by definition)" if scale in own.defines else scale


def _task_table(scores: Scores) -> Table:
    scales = shown_scales(scores)
    header = ["task"]
    for own in scores.agents:
        header += [f"{own.agent}: return", *(f"{own.agent}: {scale}" for scale in scales)]
    rows = []
    for task in scores.tasks:
        row = [task]
        for own in scores.agents:
            row += [bracket(own.returns[task]), *(_score_cell(own.normalized[scale][task].value) for scale in scales)]
        rows.append(row)
    return Table("Scores per task", header, rows)


def _score_cell(value: float) -> str:
    return f"{_fixed(value, 2)} {MARK}" if marked(value) else _fixed(value, 2)


def _adaptation_table(scores: Scores) -> Table:
    header = ["task"]
    for own in scores.agents:
        header += [f"{own.agent}: attempt {i + 1}" for i in range(scores.k)] + [f"{own.agent}: last - first"]
    rows = []
    for task in scores.tasks:
        row = [task]
        for own in scores.agents:
            row += [_fixed(attempt.value) for attempt in own.attempts[task]] + [bracket(own.adaptation[task])]
        rows.append(row)
    return Table("Return of each attempt", header, rows)


def _audit_table(scores: Scores) -> Table:
    columns = [(own, measured, lost) for own in scores.agents for measured, lost in own.audit.items()]
    rows = [[task, *(bracket(lost.returns[task]) for _, _, lost in columns)] for task in scores.tasks]
    for scale in scores.references.scales:
        rows.append([f"mean over tasks, {scale}", *(bracket(lost.means[scale]) for _, _, lost in columns)])
    header = ["task", *(f"{own.agent}: {measured}" for own, measured, _ in columns)]
    return Table("Adaptation audit: what the scored return owes to", header, rows)


def _successes_table(scores: Scores) -> Table:
    shown = [own for own in scores.agents if own.successes]
    header = ["agent", *shown[0].successes]
    return Table("Success over tasks", header, [[own.agent, *map(bracket, own.successes.values())] for own in shown])


def _success_table(scores: Scores) -> Table:
    shown = [own for own in scores.agents if own.success]
    header = ["task", *(f"{own.agent}: attempt {i + 1}" for own in shown for i in range(scores.k))]
    rows = [[task, *(bracket(one) for own in shown for one in own.success[task])] for task in scores.tasks]
    means = [
        _fixed(sum(own.success[t][i].value for t in scores.tasks) / len(rows)) for own in shown for i in range(scores.k)
    ]
    return Table("Success of each attempt", header, [*rows, ["mean over tasks", *means]])


def _improvement_table(scores: Scores) -> Table:
    rows = [[x, y, bracket(estimate)] for (x, y), estimate in scores.improvement.items()]
    return Table("Probability of improvement", ["X", "Y", "P(X > Y)"], rows)


def bracket(estimate: Estimate) -> str:
    """A number and its interval."""
    return f"{_fixed(estimate.value)} [{_fixed(estimate.low)}, {_fixed(estimate.high)}]"


def _fixed(value: float, digits: int = 3) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0
