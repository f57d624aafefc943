"""Render the leaderboard: a page of tables, and a page for each submission at an address that stays."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtbench.errors import UsageError
from mtbench.files import write_atomically
from mtbench.leaderboard.badges import Tier, tier_of
from mtbench.leaderboard.card import Card, SubmissionError
from mtbench.leaderboard.submission import Submission, content_digest, read_submission
from mtbench.scoring.report import render
from mtbench.scoring.scores import AgentScores, Scores, score
from mtbench.scoring.tables import bracket
from mtbench.text import for_markdown

SUBMISSIONS, BADGES, PAGES, README = "submissions", "badges", "pages", "README.md"
BEGIN, END = "<!-- tables: written by `mtbench leaderboard build` -->\n", "<!-- end of tables -->\n"


@dataclass(frozen=True)
class Entry:
    """A submission on one environment and split, without its runs: a leaderboard may have a thousand.

    Attributes:
        name: Of the submission.
        card: Its card.
        tier: How far it is verified.
        scores: Of its runs alone.
    """

    name: str
    card: Card
    tier: Tier
    scores: Scores

    @property
    def own(self) -> AgentScores:
        """Its scores."""
        return self.scores.agents[0]

    @property
    def scale(self) -> str:
        """The scale that it is ranked on: the suite's first."""
        return self.scores.references.first.name

    @property
    def mean(self) -> float:
        """What it is ranked by."""
        return self.own.aggregates[self.scale]["mean"].value

    @property
    def kind(self) -> str:
        """What it may see: entries of different kinds are not ranked together."""
        if self.own.privileged:
            return "privileged: they read the hidden state"
        return "told which task they play" if self.own.task_label_exposed else ""


def build(folder: Path) -> list[Path]:
    """Render all submissions of a leaderboard's folder.

    Args:
        folder: With ``submissions`` and ``badges``; ``README.md`` and ``pages`` are written.

    Returns:
        The files written.

    Raises:
        SubmissionError: A submission is refused, or two have the same rollouts.
        UsageError: The page lacks the marks between which tables are written.
    """
    page = folder / README
    text = page.read_text() if page.exists() else f"# Leaderboard\n\n{BEGIN}{END}"
    if BEGIN not in text or END not in text:
        raise UsageError(f"{page} lacks the lines {BEGIN.strip()} and {END.strip()}, between which tables are written.")
    entries: list[Entry] = []
    pages: dict[Path, str] = {}
    seen: dict[str, Path] = {}
    for path in sorted((folder / SUBMISSIONS).iterdir()):
        submission = read_submission(path)
        _check_distinct(submission, seen)
        tier = tier_of(folder / BADGES / f"{submission.name}.json", submission)
        own = [Entry(submission.name, submission.card, tier, score(runs)) for runs in submission.groups.values()]
        pages[folder / PAGES / f"{submission.name}.md"] = submission_page(own)
        entries += own
    head, _, rest = text.partition(BEGIN)
    pages[page] = f"{head}{BEGIN}{tables(entries)}{END}{rest.partition(END)[2]}"
    for path, content in pages.items():
        _write(path, content)
    return list(pages)


def tables(entries: Sequence[Entry]) -> str:
    """A table for each environment, split and kind, the best entry first."""
    groups: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.scores.env_id, entry.scores.split, entry.kind].append(entry)
    parts = []
    for (env_id, split, kind), own in sorted(groups.items()):
        title = f"{env_id}, {split} split" + (f" ({kind})" if kind else "")
        header = (
            "",
            "agent",
            f"mean, {own[0].scale} scale",
            "IQM",
            "memory",
            "this variant",
            "runs",
            "tier",
            "authors",
        )
        rows = [_row(rank, entry) for rank, entry in enumerate(sorted(own, key=lambda e: (-e.mean, e.own.agent)), 1)]
        if not kind:
            rows += _external(own[0])
        lines = [header, ("---",) * len(header), *rows]
        parts.append(f"### {for_markdown(title)}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


def _external(entry: Entry) -> list[tuple[str, ...]]:
    """Published results of agents that were trained on one task each, where the suite's references have them."""
    scales = entry.scores.references.scales
    if "published" not in scales or entry.scale == "published":
        return []
    high, ranked = scales["published"].high, scales[entry.scale]
    tasks = [task for task in entry.scores.tasks if high[task].entry != entry.scale]
    mean = float(np.mean([ranked.normalize(task, np.array(high[task].value)) for task in tasks]))
    agent = f"the best published agent of each task, trained on it alone ({len(tasks)} tasks)"
    return [("", agent, f"{mean:.3f}", "", "", "", "", "external", "")]


def _row(rank: int, entry: Entry) -> tuple[str, ...]:
    own = entry.own
    lost = [own.audit.get(measured) for measured in ("memory", "this variant")]
    runs = f"{own.runs} x {own.rollouts}" + (" (few seeds)" if entry.card.flags["few_seeds"] else "")
    return (
        str(rank),
        f"[{for_markdown(own.agent)}]({PAGES}/{entry.name}.md)",
        bracket(own.aggregates[entry.scale]["mean"]),
        bracket(own.aggregates[entry.scale]["IQM"]),
        *("" if each is None else bracket(each.means[entry.scale]) for each in lost),
        runs,
        entry.tier,
        for_markdown(", ".join(entry.card.authors)),
    )


def submission_page(entries: Sequence[Entry]) -> str:
    """All that is known of a submission, task by task."""
    card = entries[0].card
    said = {key.replace("_", " "): text for key, text in card.texts.items() if text and key != "description"}
    lines = [f"# {for_markdown(card.name)}\n", f"{for_markdown(card.texts['description'])}\n"]
    facts = {"authors": ", ".join(card.authors), **said, "tier": entries[0].tier}
    lines.append("".join(f"- {key}: {for_markdown(text)}\n" for key, text in facts.items()))
    for entry in entries:
        lines.append(f"## {for_markdown(f'{entry.scores.env_id}, {entry.scores.split} split')}\n")
        lines.append(render(entry.scores, "md"))
    return "\n".join(lines)


def _check_distinct(submission: Submission, seen: dict[str, Path]) -> None:
    """Check that nobody submitted these rollouts before, and remember them."""
    for run in submission.runs:
        other = seen.setdefault(content_digest(run), submission.path)
        if other != submission.path and not submission.card.flags["scripted"]:
            raise SubmissionError(f"{submission.path} has the same rollouts as {other}: {run.path}.")


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
