"""Scores as tables: Markdown, CSV, JSON, LaTeX, HTML."""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from mtbench.scoring.aggregates import AGGREGATES
from mtbench.scoring.scores import AgentScores, Estimate, Scores


@dataclass(frozen=True, slots=True)
class Table:
    """A titled table of text; the first column is left-aligned, the others right-aligned."""

    title: str
    header: list[str]
    rows: list[list[str]]


def tables(scores: Scores) -> list[Table]:
    """What a person wants to read, most important first."""
    built = [_aggregate_table(scores), _task_table(scores)]
    if scores.k > 1:
        built.append(_adaptation_table(scores))
    if any(own.success for own in scores.agents):
        built += [_successes_table(scores), _success_table(scores)]
    if scores.improvement:
        built.append(_improvement_table(scores))
    return built


def notes(scores: Scores) -> list[str]:
    """What a reader must know to trust the numbers, one sentence or two each."""
    scored = "the last attempt" if scores.objective == "k-shot" else "the mean of all attempts"
    lines = [
        f"{scores.env_id}, {scores.split} split, {len(scores.tasks)} tasks, k = {scores.k} ({scores.objective}): "
        f"the return of {scored} counts. normalized = (return - low) / (high - low).",
        f"Brackets are 95 % stratified-bootstrap intervals ({scores.replicates} replicates).",
    ]
    for own in scores.agents:
        resampled = "runs" if own.runs > 1 else "rollouts"
        line = f"{own.agent}: {_count(own.runs, 'run')} of {own.rollouts} rollouts per task; {resampled} are resampled"
        lines.append(line + ("." if own.runs > 1 else ", so intervals do not show the spread of training."))
        if own.runs == own.rollouts == 1:
            lines.append(f"{own.agent}: one rollout has no spread; its intervals mean nothing.")
        if own.privileged:
            lines.append(f"{own.agent} is privileged: it reads hidden state that no agent sees.")
        if own.task_label_exposed:
            lines.append(f"{own.agent} was told the task.")
    for task, twin in scores.repeated.items():
        lines.append(f"{task} is the same environment as {twin} of the train split: `new tasks` leaves it out.")
    if any(own.successes for own in scores.agents):
        lines.append("coverage: the share of tasks whose attempts succeed at least two times in three.")
    for name, scale in scores.references.scales.items():
        lines.append(f"Scale {name}: {scale.description}")
        fallbacks = _fallbacks(scores, name)
        lines.extend(f"Scale {name}: 1 is `{entry}` on {', '.join(tasks)}." for entry, tasks in fallbacks.items())
    lines.extend(f"`{entry}`: {source}" for entry, source in scores.references.sources.items())
    lines.extend(scores.references.warnings)
    return lines


def render(scores: Scores, format: str) -> str:
    """Scores as text.

    Args:
        scores: What to show.
        format: One of :data:`FORMATS`.
    """
    return FORMATS[format](scores)


def summary(scores: Scores) -> str:
    """The aggregate table alone, as Markdown, for a front page."""
    return _markdown_table(_aggregate_table(scores))


# ---- the tables ----


def _aggregate_table(scores: Scores) -> Table:
    rows = [
        [f"{own.agent}{only}", scale, *(_bracket(aggregates[scale][name]) for name in AGGREGATES)]
        for scale in scores.references.scales
        for only, part in (("", "aggregates"), (", new tasks", "new"))
        for own in scores.agents
        if (aggregates := getattr(own, part))
    ]
    return Table("Aggregate scores over tasks", ["agent", "scale", *AGGREGATES], rows)


def _task_table(scores: Scores) -> Table:
    scales = list(scores.references.scales)
    header = ["task"]
    for own in scores.agents:
        header += [f"{own.agent}: return", *(f"{own.agent}: {scale}" for scale in scales)]
    rows = []
    for task in scores.tasks:
        row = [task]
        for own in scores.agents:
            row += [
                _bracket(own.returns[task]),
                *(_fixed(own.normalized[scale][task].value, 2) for scale in scales),
            ]
        rows.append(row)
    return Table("Scores per task", header, rows)


def _adaptation_table(scores: Scores) -> Table:
    header = ["task"]
    for own in scores.agents:
        header += [f"{own.agent}: attempt {i + 1}" for i in range(scores.k)] + [f"{own.agent}: last - first"]
    rows = []
    for task in scores.tasks:
        row = [task]
        for own in scores.agents:
            row += [_fixed(attempt.value) for attempt in own.attempts[task]] + [_bracket(own.adaptation[task])]
        rows.append(row)
    return Table("Return of each attempt", header, rows)


def _successes_table(scores: Scores) -> Table:
    shown = [own for own in scores.agents if own.successes]
    header = ["agent", *shown[0].successes]
    return Table("Success over tasks", header, [[own.agent, *map(_bracket, own.successes.values())] for own in shown])


def _success_table(scores: Scores) -> Table:
    shown = [own for own in scores.agents if own.success]
    header = ["task", *(f"{own.agent}: attempt {i + 1}" for own in shown for i in range(scores.k))]
    rows = [[task, *(_bracket(one) for own in shown for one in own.success[task])] for task in scores.tasks]
    means = [
        _fixed(sum(own.success[t][i].value for t in scores.tasks) / len(rows)) for own in shown for i in range(scores.k)
    ]
    return Table("Success of each attempt", header, [*rows, ["mean over tasks", *means]])


def _improvement_table(scores: Scores) -> Table:
    rows = [[x, y, _bracket(estimate)] for (x, y), estimate in scores.improvement.items()]
    return Table("Probability of improvement", ["X", "Y", "P(X > Y)"], rows)


def _fallbacks(scores: Scores, scale: str) -> dict[str, list[str]]:
    """Tasks whose upper anchor is not the scale's usual one, by the entry that serves instead."""
    entries = {task: scores.references.scales[scale].high[task].entry for task in scores.tasks}
    usual = max(set(entries.values()), key=list(entries.values()).count)
    grouped: dict[str, list[str]] = {}
    for task, entry in entries.items():
        if entry != usual:
            grouped.setdefault(entry, []).append(task)
    return grouped


def _bracket(estimate: Estimate) -> str:
    return f"{_fixed(estimate.value)} [{_fixed(estimate.low)}, {_fixed(estimate.high)}]"


def _fixed(value: float, digits: int = 3) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}"  # + 0.0 turns -0.0 into 0.0


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


# ---- the formats ----


def _markdown(scores: Scores) -> str:
    parts = []
    for table in tables(scores):
        parts.append(f"### {table.title}\n\n{_markdown_table(table)}")
    parts.append("\n".join(f"- {note}" for note in notes(scores)) + "\n")
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in (table.header, *table.rows)]
    widths = [max(map(len, column)) for column in zip(header, *body, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "".join(f"{_markdown_row(row, widths)}\n" for row in (header, rule, *body))


def _markdown_row(row: list[str], widths: list[int]) -> str:
    """Padded, so that the source reads as a table too."""
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return f"| {' | '.join(cells)} |"


def _latex(scores: Scores) -> str:
    parts = []
    for table in tables(scores):
        body = "\n".join(" & ".join(map(_latex_escape, row)) + r" \\" for row in table.rows)
        parts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{_latex_escape(table.title)}}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}\n\\hline\n"
            f"{' & '.join(map(_latex_escape, table.header))} \\\\\n\\hline\n{body}\n\\hline\n"
            "\\end{tabular}\n\\end{table}\n"
        )
    comments = "\n".join(f"% {note}" for note in notes(scores))
    return "\n".join(parts) + comments + "\n"


def _latex_escape(text: str) -> str:
    commands = {
        "\\": "textbackslash",
        "^": "textasciicircum",
        "~": "textasciitilde",
        "<": "textless",
        ">": "textgreater",
    }
    escaped = {character: f"\\{character}" for character in "&%$#_{}"}
    escaped |= {character: f"\\{command}{{}}" for character, command in commands.items()}
    return "".join(escaped.get(character, character) for character in text)


def _html(scores: Scores) -> str:
    parts = [
        "<!doctype html>\n<html lang='en'>\n<meta charset='utf-8'>\n"
        f"<title>{html.escape(scores.env_id)}</title>\n"
        "<style>body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}"
        "table{border-collapse:collapse;margin-bottom:2rem}td,th{padding:.2rem .7rem;text-align:right;"
        "font-variant-numeric:tabular-nums}td:first-child,th:first-child{text-align:left}"
        "tr{border-bottom:1px solid #ddd}li{max-width:60rem}</style>\n"
    ]
    for table in tables(scores):
        head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table.header)
        body = "\n".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table.rows
        )
        parts.append(f"<h2>{html.escape(table.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>\n")
    items = "\n".join(f"<li>{html.escape(note)}</li>" for note in notes(scores))
    return "".join(parts) + f"<ul>\n{items}\n</ul>\n</html>\n"


def _csv(scores: Scores) -> str:
    """Tidy: one number a row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["env_id", "split", "agent", "scale", "task", "statistic", "value", "low", "high"])
    for own in scores.agents:
        for scale, task, statistic, estimate in _numbers(own):
            numbers = [repr(n) for n in (estimate.value, estimate.low, estimate.high)]
            writer.writerow([scores.env_id, scores.split, own.agent, scale, task, statistic, *numbers])
    return buffer.getvalue()


def _numbers(own: AgentScores) -> Iterator[tuple[str, str, str, Estimate]]:
    for task, estimate in own.returns.items():
        yield "return", task, "mean", estimate
    for task, attempts in own.attempts.items():
        for i, estimate in enumerate(attempts):
            yield "return", task, f"attempt {i + 1}", estimate
    for task, estimate in own.adaptation.items():
        yield "return", task, "last - first", estimate
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


def _json(scores: Scores) -> str:
    agents = []
    for own in scores.agents:
        content: dict[str, Any] = asdict(own)
        del content["profiles"]  # curves belong to figures
        agents.append(content)
    improvement = [{"x": x, "y": y, **asdict(estimate)} for (x, y), estimate in scores.improvement.items()]
    content = {
        "env_id": scores.env_id,
        "suite": scores.suite,
        "split": scores.split,
        "k": scores.k,
        "objective": scores.objective,
        "replicates": scores.replicates,
        "agents": agents,
        "probability_of_improvement": improvement,
        "notes": notes(scores),
    }
    return json.dumps(content, indent=1) + "\n"


FORMATS: dict[str, Callable[[Scores], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": _json,
    "latex": _latex,
    "html": _html,
}
