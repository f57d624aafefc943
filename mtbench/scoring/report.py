"""Scores as text: Markdown, CSV, JSON, LaTeX, HTML. Each format escapes every text that it shows."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mtbench.errors import unknown_name_error
from mtbench.scoring.frames import Number, numbers
from mtbench.scoring.notes import notes
from mtbench.scoring.scores import Scores
from mtbench.scoring.tables import Table, aggregate_table, tables
from mtbench.text import for_csv, for_html, for_latex, for_markdown

__all__ = ["FORMATS", "Table", "fragment", "notes", "render", "summary", "tables"]


def render(scores: Scores, format: str) -> str:
    """Scores as text.

    Args:
        scores: What to show.
        format: One of :data:`FORMATS`.

    Raises:
        ValueError: There is no such format.
    """
    if format not in FORMATS:
        raise unknown_name_error("format", format, list(FORMATS), "score tables")
    return FORMATS[format](scores)


def summary(scores: Scores) -> str:
    """The aggregate table alone, as Markdown, for a front page."""
    return markdown_table(aggregate_table(scores))


def _markdown(scores: Scores) -> str:
    parts = []
    for table in tables(scores):
        parts.append(f"### {table.title}\n\n{markdown_table(table)}")
    parts.append("\n".join(f"- {for_markdown(note)}" for note in notes(scores)) + "\n")
    return "\n".join(parts)


def markdown_table(table: Table) -> str:
    """One table."""
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
    head = (
        "<!doctype html>\n<html lang='en'>\n<meta charset='utf-8'>\n"
        f"<title>{for_html(scores.env_id)}</title>\n"
        "<style>body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:76rem;padding:0 1rem}"
        "table{border-collapse:collapse;margin-bottom:2rem}td,th{padding:.2rem .7rem;text-align:right;"
        "font-variant-numeric:tabular-nums}td:first-child,th:first-child{text-align:left}"
        "tr{border-bottom:1px solid #ddd}li{max-width:60rem}</style>\n"
    )
    return f"{head}{''.join(map(html_table, tables(scores)))}{_html_notes(scores)}</html>\n"


def fragment(scores: Scores) -> str:
    """HTML for a notebook's cell: the aggregate table, and everything else folded away. It styles nothing."""
    first, *others = map(html_table, tables(scores))
    more = f"{''.join(others)}{_html_notes(scores)}"
    return f"{first}<details>\n<summary>All tables and notes</summary>\n{more}</details>\n"


def html_table(table: Table) -> str:
    """One table under its title."""
    head = "".join(f"<th>{for_html(cell)}</th>" for cell in table.header)
    body = "\n".join("<tr>" + "".join(f"<td>{for_html(cell)}</td>" for cell in row) + "</tr>" for row in table.rows)
    return f"<h2>{for_html(table.title)}</h2>\n<table>\n<tr>{head}</tr>\n{body}\n</table>\n"


def _html_notes(scores: Scores) -> str:
    items = "\n".join(f"<li>{for_html(note)}</li>" for note in notes(scores))
    return f"<ul>\n{items}\n</ul>\n"


def _csv(scores: Scores) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(Number._fields)
    for number in numbers(scores):
        writer.writerow([for_csv(cell) if isinstance(cell, str) else repr(cell) for cell in number])
    return buffer.getvalue()


def _json(scores: Scores) -> str:
    agents = []
    for own in scores.agents:
        content: dict[str, Any] = asdict(own)
        del content["profiles"], content["by_run"]  # these belong to figures and to rliable's layout
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


def for_rliable(scores: Scores) -> str:
    """For rliable: by scale and agent, normalized scores of shape (runs, tasks)."""
    by_scale = {
        scale: {own.agent: own.by_run[scale].tolist() for own in scores.agents} for scale in scores.references.scales
    }
    return json.dumps({"env_id": scores.env_id, "tasks": scores.tasks, "scores": by_scale}, indent=1) + "\n"


FORMATS: dict[str, Callable[[Scores], str]] = {
    "md": _markdown,
    "csv": _csv,
    "json": _json,
    "latex": _latex,
    "html": _html,
}
