"""The leaderboard as a static site: it can be opened from a disk, and no page asks for anything but itself.

``index.html`` has all entries in one table to sort and filter, ``tables/`` has a page for each environment and split,
where agents can be sorted by any task, and ``entries/`` one for each submission, at an address that stays. The tables
are those of the package itables, whose scripts stand in the pages.
"""

from __future__ import annotations

import dataclasses
import html
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mtbench.audit import MEASURES
from mtbench.errors import UsageError, missing_extra_error
from mtbench.leaderboard.entries import PUBLIC, Entry, published, ranked
from mtbench.leaderboard.markdown import facts
from mtbench.leaderboard.submission import Group
from mtbench.reports import figures
from mtbench.reports.content import Block, Notes
from mtbench.reports.pages import html_block, html_page
from mtbench.scoring.intervals import Estimate
from mtbench.scoring.notes import notes
from mtbench.scoring.scores import AgentScores, Scores
from mtbench.scoring.tables import bracket, tables
from mtbench.text import for_html

INDEX, TABLES, ENTRIES = "index.html", "tables", "entries"
_TITLE = "mtbench leaderboard"

# More agents than this could not be told apart in a figure.
_DRAWN = 8

_FILTERED = ("suite", "ID", "split", "sees", "tier")
_STYLE = """
.dt-container{font-size:.95rem}.dtsp-panesContainer{margin:0}
.dataTable td,.dataTable th{text-align:left}.dataTable .number{text-align:right}
.dataTable .agent{white-space:normal;min-width:9rem}svg.bar{width:12rem;height:1.1rem;vertical-align:middle}
"""


def check_folder(out: Path) -> None:
    """Check that a site can be written to a folder.

    Raises:
        UsageError: It holds something else.
        DependencyNotInstalled: itables is missing.
    """
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / TABLES).is_dir())):
        raise UsageError(f"{out} holds something else than a leaderboard's site: give another folder with --site.")
    if importlib.util.find_spec("itables") is None:
        raise missing_extra_error("itables", "leaderboard", "The leaderboard's site")


def write(folder: Path, *, entries: Sequence[Entry], pages: Mapping[str, str]) -> None:
    """Write the site to an empty folder.

    Args:
        folder: Where.
        entries: Of all submissions.
        pages: By submission, its page (:func:`submission_page`).
    """
    for name in (TABLES, ENTRIES):
        (folder / name).mkdir()
    for name, page in pages.items():
        (folder / ENTRIES / f"{name}.html").write_text(page, encoding="utf-8")
    groups: dict[Group, list[tuple[str, str, Entry]]] = {}
    for group, kind, rows in ranked(entries):
        groups.setdefault(group, []).extend((rank, kind, entry) for rank, entry in rows)
    for group, own in groups.items():
        (folder / TABLES / _table_file(group)).write_text(_table_page(group, own), encoding="utf-8")
    (folder / INDEX).write_text(_index(groups), encoding="utf-8")


# ---- the first page ----


def _index(groups: Mapping[Group, Sequence[tuple[str, str, Entry]]]) -> str:
    rows = []
    for group, own in groups.items():
        rows += [_index_row(rank, kind, entry) for rank, kind, entry in own]
        external = published(own[0][2])
        if external is not None and own[0][1] == PUBLIC:
            first = {"suite": for_html(own[0][2].scores.suite), "ID": for_html(group[0]), "split": for_html(group[1])}
            first["sees"] = _sees(PUBLIC)
            rows.append(
                {
                    **first,
                    "rank": float("nan"),
                    "agent": external.agent,
                    "scale": own[0][2].scale,
                    "mean": external.mean,
                    "tier": "external",
                }
            )
    links = "".join(
        f'<li><a href="{TABLES}/{_table_file(group)}">{for_html(_named(group))}</a></li>' for group in groups
    )
    body = (
        "<p>Every number is computed from the records of an evaluation; <i>from</i> and <i>to</i> are its interval of "
        f"95 %. With a column for each task:</p>\n<nav><ul>{links}</ul></nav>\n"
    )
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    filtered = [_COLUMNS.index(name) for name in _FILTERED]
    panes = {"layout": "columns-3", "columns": filtered, "initCollapsed": True, "viewTotal": True}
    return _interactive(_TITLE, body, frame, layout={"top1": "searchPanes"}, searchPanes=panes)


_LOST = tuple(MEASURES.values())
_COLUMNS = [
    *("ID", "split", "rank", "agent", "mean", "from", "to", "IQM", *_LOST, "tier", "rerun minus reported", "sees"),
    *("scale", "runs", "authors", "suite"),
]


def _index_row(rank: str, kind: str, entry: Entry) -> dict[str, Any]:
    own, mean = entry.own, entry.own.aggregates[entry.scale]["mean"]
    lost: dict[str, Any] = {name: own.audit[name].means[entry.scale].value for name in _LOST if name in own.audit}
    return {
        "suite": for_html(entry.scores.suite),
        "ID": for_html(entry.scores.env_id),
        "split": for_html(entry.scores.split),
        "sees": _sees(kind),
        "rank": float(rank or "nan"),
        "agent": _link(entry, ENTRIES),
        "scale": for_html(entry.scale),
        "mean": mean.value,
        "from": mean.low,
        "to": mean.high,
        "IQM": own.aggregates[entry.scale]["IQM"].value,
        **lost,
        "runs": entry.seeds,
        "tier": entry.tier,
        "rerun minus reported": "" if entry.difference is None else bracket(entry.difference.estimate),
        "authors": for_html(", ".join(entry.card.authors)),
    }


def _sees(kind: str) -> str:
    """What an agent sees, for a filter."""
    return kind.partition(":")[0] or "observations alone"


def _link(entry: Entry, folder: str) -> str:
    return f'<a href="{folder}/{entry.name}.html">{for_html(entry.own.agent)}</a>'


# ---- a page for each environment and split ----


def _table_page(group: Group, own: Sequence[tuple[str, str, Entry]]) -> str:
    first = own[0][2]
    rows = []
    for rank, kind, entry in own:
        scores = {task: estimate.value for task, estimate in entry.own.normalized[entry.scale].items()}
        row = {"rank": float(rank or "nan"), "agent": _link(entry, f"../{ENTRIES}"), "sees": _sees(kind)}
        rows.append({**row, "mean": entry.mean, **{for_html(task): score for task, score in scores.items()}})
    shown = [entry for _, kind, entry in own if kind == own[0][1]][:_DRAWN]
    merged = dataclasses.replace(first.scores, agents=_told_apart(shown))
    blocks: list[Block] = [figures.tasks(merged, "tasks")]
    if merged.k > 1:
        blocks.append(figures.attempts(merged, "attempts"))
    if any(each.audit for each in merged.agents):
        blocks.append(figures.audit(merged, "audit"))
    body = f'<p><a href="../{INDEX}">All entries</a>. Scores on the {for_html(first.scale)} scale, task by task.</p>\n'
    blocks.append(Notes(notes(merged)))
    return _interactive(
        _named(group), body, pd.DataFrame(rows), "".join(map(html_block, blocks)), fixedColumns={"start": 2}
    )


def _told_apart(entries: Sequence[Entry]) -> list[AgentScores]:
    """The scores of entries; agents of one name are called as their submissions."""
    names = [entry.own.agent for entry in entries]
    return [
        dataclasses.replace(entry.own, agent=entry.name) if names.count(entry.own.agent) > 1 else entry.own
        for entry in entries
    ]


def _named(group: Group) -> str:
    return f"{group[0]}, {group[1]} split"


def _table_file(group: Group) -> str:
    return f"{group[0]}-{group[1]}.html".replace("/", "-")


def _interactive(title: str, before: str, frame: pd.DataFrame, after: str = "", **options: Any) -> str:
    """A page with a table to sort and search; the frame's text is HTML already."""
    from itables import options as defaults
    from itables import to_html_datatable
    from itables.javascript import generate_init_offline_itables_html

    table = to_html_datatable(
        frame.apply(_sortable),
        connected=False,
        display_logo_when_loading=False,
        allow_html=True,
        showIndex=False,
        maxBytes=0,
        table_id="entries",
        scrollX=True,
        text_in_header_can_be_selected=False,  # a click on it sorts
        columnDefs=[
            {"className": "agent", "targets": [list(frame).index("agent")]},
            {"className": "number", "targets": [i for i, kind in enumerate(frame.dtypes) if kind.kind in "fi"]},
        ],
        lengthMenu=[25, 100, 500],
        style={"width": "100%"},
        **options,
    )
    scripts = generate_init_offline_itables_html(defaults.dt_bundle)
    return html_page(title, f'{scripts}{before}<div class="wide">{table}</div>\n{after}', scripts=True, style=_STYLE)


def _sortable(column: pd.Series[Any]) -> pd.Series[Any]:
    """Numbers as text that sorts like them; a missing one is an empty cell, and the last."""
    if column.dtype.kind not in "fi":
        return column.fillna("")
    digits = 0 if column.name == "rank" else 3
    # Adding 0.0 turns -0.0 into 0.0.
    shown = column.map(lambda value: "" if pd.isna(value) else f"{round(value, digits) + 0.0:.{digits}f}")
    order = shown[column.sort_values().index].unique()
    return pd.Series(pd.Categorical(shown, order, ordered=True), column.index)


# ---- a page for each submission ----


def submission_page(entries: Sequence[Entry]) -> str:
    """All that is known of a submission, task by task. Nothing in it is a script."""
    card = entries[0].card
    listed = []
    for key, text in facts(entries).items():
        shown = (
            f'<a href="{html.escape(text)}" rel="nofollow">{for_html(text)}</a>'
            if key in ("link", "code")
            else for_html(text)
        )
        listed.append(f"<li>{for_html(key)}: {shown}</li>")
    parts = [
        f'<p><a href="../{INDEX}">All entries</a></p>\n<p>{for_html(card.texts["description"])}</p>\n',
        f"<ul>{''.join(listed)}</ul>\n",
    ]
    for entry in entries:
        link = f'<a href="../{TABLES}/{_table_file(entry.group)}">{for_html(_named(entry.group))}</a>'
        parts.append(f"<h2>{link}</h2>\n")
        if entry.difference is not None:
            parts.append(f"<p>Rerun minus reported: {for_html(entry.difference)}.</p>\n")
        first, *others = tables(entry.scores)
        parts += [html_block(first), _bars(entry.scores, entry.scale), *map(html_block, others)]
        parts.append(html_block(Notes(notes(entry.scores))))
    return html_page(card.name, "".join(parts), style=_STYLE)


def _bars(scores: Scores, scale: str) -> str:
    """The score of each task, drawn with its interval; 0 and 1 are marked."""
    estimates = scores.agents[0].normalized[scale]
    low = min(0.0, *(e.value for e in estimates.values()))
    high = max(1.0, *(e.value for e in estimates.values()))
    body = "\n".join(
        f"<tr><td>{for_html(task)}</td><td>{bracket(e)}</td><td>{_bar(e, low, high)}</td></tr>"
        for task, e in estimates.items()
    )
    title = f"Scores per task, {scale} scale"
    head = "<tr><th>task</th><th>score</th><th>0 and 1 are marked</th></tr>"
    table = f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    return f'<h3>{for_html(title)}</h3>\n<div class="wide">{table}</div>\n'


def _bar(e: Estimate, low: float, high: float) -> str:
    def x(value: float) -> str:
        return f"{100 * (min(max(value, low), high) - low) / (high - low):.1f}"

    return (
        '<svg class="bar" viewBox="-2 0 104 10" preserveAspectRatio="none" role="img" '
        f'aria-label="{bracket(e)}"><path d="M{x(0)} 0V10M{x(1)} 0V10" stroke="#999" stroke-width=".6"/>'
        f'<path d="M{x(e.low)} 5H{x(e.high)}" stroke="#0072b2" stroke-width="2"/>'
        f'<circle cx="{x(e.value)}" cy="5" r="2.5" fill="#0072b2"/></svg>'
    )
