"""What is ranked: a submission on one environment and split, scored, without its runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtbench.leaderboard.badges import Badge, read_badge
from mtbench.leaderboard.card import Card
from mtbench.leaderboard.rerun import Difference
from mtbench.leaderboard.submission import Group, content_digest, read_submission
from mtbench.scoring.scores import AgentScores, Scores, score

#: What an agent may see. Agents that see different things are not ranked together.
PUBLIC, LABEL, PRIVILEGED = "", "told which task they play", "privileged: they read the hidden state"
_KINDS = (PUBLIC, LABEL, PRIVILEGED)


@dataclass(frozen=True)
class Entry:
    """A submission on one environment and split, without its runs: a leaderboard may have a thousand.

    Attributes:
        name: Of the submission.
        card: Its card.
        badge: How far it is verified.
        scores: Of its runs alone.
    """

    name: str
    card: Card
    badge: Badge
    scores: Scores

    @property
    def own(self) -> AgentScores:
        """Its scores."""
        return self.scores.agents[0]

    @property
    def group(self) -> Group:
        """ID and split."""
        return self.scores.env_id, self.scores.split

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
        """What it may see."""
        if self.own.privileged:
            return PRIVILEGED
        return LABEL if self.own.task_label_exposed else PUBLIC

    @property
    def difference(self) -> Difference | None:
        """What a rerun showed, where there was one."""
        return self.badge.differences.get(self.group)

    @property
    def tier(self) -> str:
        """How far it is verified, in a word or two."""
        refuted = self.difference is not None and not self.difference.reproduced
        return "not reproduced" if refuted else self.badge.tier

    @property
    def seeds(self) -> str:
        """Training seeds and rollouts per task."""
        return f"{self.own.runs} x {self.own.rollouts}" + (" (few seeds)" if self.card.flags["few_seeds"] else "")


def read_entries(board: Path, path: Path) -> tuple[list[Entry], list[str]]:
    """Check and score a submission.

    Args:
        board: The leaderboard's folder.
        path: The submission's.

    Returns:
        Its entries, and digests of its rollouts.

    Raises:
        SubmissionError: It is refused.
        UsageError: Its badge is none.
        RecordError: The records of its rerun are damaged.
    """
    submission = read_submission(path)
    badge = read_badge(board, submission)
    entries = [Entry(submission.name, submission.card, badge, score(runs)) for runs in submission.groups.values()]
    return entries, [content_digest(run) for run in submission.runs]


def ranked(entries: Sequence[Entry]) -> Iterator[tuple[Group, str, list[tuple[str, Entry]]]]:
    """By ID, split and kind, the entries with their ranks, the best first; what a rerun refuted has no rank."""
    groups: dict[tuple[Group, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[entry.group, _KINDS.index(entry.kind)].append(entry)
    for (group, kind), own in sorted(groups.items(), key=lambda item: item[0]):
        refuted = [entry for entry in own if entry.tier == "not reproduced"]
        borne_out = [entry for entry in own if entry.tier != "not reproduced"]
        rows = [(str(rank), entry) for rank, entry in enumerate(sorted(borne_out, key=_order), 1)]
        yield group, _KINDS[kind], rows + [("", entry) for entry in sorted(refuted, key=_order)]


def _order(entry: Entry) -> tuple[float, str]:
    return -entry.mean, entry.own.agent


@dataclass(frozen=True)
class Published:
    """The mean over tasks of the best published agent of each, trained on it alone.

    Attributes:
        mean: On the scale that entries are ranked on.
        tasks: How many tasks have a published result.
    """

    mean: float
    tasks: int

    @property
    def agent(self) -> str:
        """What the row is called."""
        return f"the best published agent of each task, trained on it alone ({self.tasks} tasks)"


def published(entry: Entry) -> Published | None:
    """Published results of single-task agents, where the references of an entry's suite have them."""
    scales = entry.scores.references.scales
    if "published" not in scales or entry.scale == "published":
        return None
    high, scale = scales["published"].high, scales[entry.scale]
    tasks = [task for task in entry.scores.tasks if high[task].entry != entry.scale]
    mean = float(np.mean([scale.normalize(task, np.array(high[task].value)) for task in tasks]))
    return Published(mean, len(tasks))
