"""The leaderboard as Markdown: a page of tables, and a page for each submission."""

from __future__ import annotations

from collections.abc import Sequence

from mtbench.leaderboard.entries import Entry, published, ranked
from mtbench.scoring.report import render
from mtbench.scoring.tables import bracket
from mtbench.text import for_markdown

_HEADER = ("", "agent", "mean, {} scale", "IQM", "memory", "this variant", "runs", "tier", "authors")


def tables(entries: Sequence[Entry], pages: str) -> str:
    """A table for each environment, split and kind, the best entry first.

    Args:
        entries: Of all submissions.
        pages: The folder of their pages, for links.
    """
    parts = []
    for (env_id, split), kind, rows in ranked(entries):
        first = rows[0][1]
        title = f"{env_id}, {split} split" + (f" ({kind})" if kind else "")
        lines = [tuple(cell.format(first.scale) for cell in _HEADER), ("---",) * len(_HEADER)]
        lines += [_row(rank, entry, pages) for rank, entry in rows]
        external = None if kind else published(first)
        if external is not None:
            lines.append(("", external.agent, f"{external.mean:.3f}", "", "", "", "", "external", ""))
        parts.append(f"### {for_markdown(title)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


def _row(rank: str, entry: Entry, pages: str) -> tuple[str, ...]:
    own = entry.own
    lost = [own.audit.get(measured) for measured in ("memory", "this variant")]
    tier = entry.tier if entry.difference is None else f"{entry.tier}: {bracket(entry.difference.estimate)}"
    return (
        rank,
        f"[{for_markdown(own.agent)}]({pages}/{entry.name}.md)",
        bracket(own.aggregates[entry.scale]["mean"]),
        bracket(own.aggregates[entry.scale]["IQM"]),
        *("" if each is None else bracket(each.means[entry.scale]) for each in lost),
        entry.seeds,
        tier,
        for_markdown(", ".join(entry.card.authors)),
    )


def submission_page(entries: Sequence[Entry]) -> str:
    """All that is known of a submission, task by task."""
    card = entries[0].card
    lines = [f"# {for_markdown(card.name)}\n", f"{for_markdown(card.texts['description'])}\n"]
    lines.append("".join(f"- {key}: {for_markdown(text)}\n" for key, text in facts(entries).items()))
    for entry in entries:
        lines.append(f"## {for_markdown(f'{entry.scores.env_id}, {entry.scores.split} split')}\n")
        if entry.difference is not None:
            lines.append(f"Rerun minus reported: {for_markdown(entry.difference)}.\n")
        lines.append(render(entry.scores, "md"))
    return "\n".join(lines)


def facts(entries: Sequence[Entry]) -> dict[str, str]:
    """What a submission's page says of it before the scores."""
    card = entries[0].card
    said = {key.replace("_", " "): text for key, text in card.texts.items() if text and key != "description"}
    return {"authors": ", ".join(card.authors), **said, "tier": entries[0].badge.tier}
