"""Scores as text: Markdown, CSV, JSON, LaTeX, HTML. Each format escapes every text that it shows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from mtbench.scoring.intervals import Estimate
from mtbench.scoring.notes import notes
from mtbench.scoring.scores import AgentScores, Scores
from mtbench.scoring.tables import Table, aggregate_table, tables
from mtbench.text import for_csv, for_html, for_latex, for_markdown

__all__ = ["FORMATS", "Table", "notes", "render", "summary", "tables"]


def render(scores: Scores, format: str) -> str:
    """Scores as text.

    Args:
        scores: What to show.
        format: One of :data:`FORMATS`.
    """
    return FORMATS[format](scores)


def summary(scores: Scores) -> str:
    """The aggregate table alone, as Markdown, for a front page."""
    return _markdown_table(aggregate_table(scores))


def _markdown(scores: Scores) -> str:
    parts = []
    for table in tables(scores):
        parts.append(f"### {table.title}\n\n{_markdown_table(table)}")
    parts.append("\n".join(f"- {for_markdown(note)}" for note in notes(scores)) + "\n")
    return "\n".join(parts)


def _markdown_table(table: Table) -> str:
    header, *body = [list(map(for_markdown, row)) for row in (table.header, *table.rows)]
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
        body = "\n".join(" & ".join(map(for_latex, row)) + r" \\" for row in table.rows)
        parts.append(
            "\\begin{table}\n\\centering\n"
            f"\\caption{{{for_latex(table.title)}}}\n"
            f"\\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}\n\\hline\n"
            f"{' & '.join(map(for_latex, table.header))} \\\\\n\\hline\n{body}\n\\hline\n"
            "\\end{tabular}\n\\end{table}\n"
        )
    comments = "\n".join(f"% {for_latex(note)}" for note in notes(scores))
    return "\n".join(parts) + comments + "\n"


def _html(scores: Scores) -> str:
    parts = [
        "<!doctype html>\n<html lang='en'>\n<meta charset='utf-8'>\n"
        f"<title>{for_html(scores.env_id)}</title>\n"
        "<style>body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}"
        "table{border-collapse:collapse;margin-bottom:2rem}td,th{padding:.2rem .7rem;text-align:right;"
        "font-variant-numeric:tabular-nums}td:first-child,th:first-child{text-align:left}"
        "tr{border-bottom:1px solid #ddd}li{max-width:60rem}</style>\n"
    ]
    for table in tables(scores):
        head = "".join(f"<th>{for_html(cell)}</th>" for cell in table.header)
        body = "\n".join("<tr>" + "".join(f"<td>{for_html(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
        parts.append(f"<h2>{for_html(table.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>\n")
    items = "\n".join(f"<li>{for_html(note)}</li>" for note in notes(scores))
    return "".join(parts) + f"<ul>\n{items}\n</ul>\n</html>\n"


def _csv(scores: Scores) -> str:
    """Tidy: one number a row."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["env_id", "split", "agent", "scale", "task", "statistic", "value", "low", "high"])
    for own in scores.agents:
        for scale, task, statistic, estimate in _numbers(own):
            texts = map(for_csv, (scores.env_id, scores.split, own.agent, scale, task, statistic))
            writer.writerow([*texts, *(repr(n) for n in (estimate.value, estimate.low, estimate.high))])
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
        "interval": scores.interval,
        "replicates": scores.replicates,
        "scales_left_out": scores.left_out,
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
