"""What a report holds, before it is a page: sections of tables, figures and notes."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mtbench.audit import MEASURES
from mtbench.errors import UsageError
from mtbench.records import Run
from mtbench.reports import figures
from mtbench.reports.curves import Curve
from mtbench.reports.figures import Figure
from mtbench.scoring.notes import notes
from mtbench.scoring.scores import Scores, protocol, score
from mtbench.scoring.tables import Table, bracket, tables
from mtbench.text import plain


@dataclass(frozen=True)
class Notes:
    """Sentences."""

    sentences: list[str]


Block = Table | Figure | Notes


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: Its heading.
        blocks: What is in it, in order.
    """

    title: str
    blocks: list[Block]


def build(runs: Sequence[Run], curves: Sequence[Curve], *, seed: int, interval: str) -> list[Section]:
    """The sections of a report.

    Args:
        runs: Of one or more environments; those that can be compared share a section.
        curves: Of training runs.
        seed: Seeds bootstraps.
        interval: As for :func:`mtbench.score`.

    Raises:
        UsageError: There is nothing to report.
    """
    if not runs and not curves:
        raise UsageError("There is nothing to report: no finished evaluation and no training run.")
    groups: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        groups[json.dumps([*protocol(run)], sort_keys=True, default=str)].append(run)
    scored = [score(own, seed=seed, interval=interval) for own in groups.values()]
    sections = [Section("Overview", _overview(scored))] if scored else []
    for number, (scores, own) in enumerate(zip(scored, groups.values(), strict=True), 1):
        sections.append(_evaluated(scores, own, f"evaluation-{number}"))
    by_env: dict[str, list[Curve]] = defaultdict(list)
    for curve in curves:
        by_env[curve.env_id].append(curve)
    if by_env:
        drawn = [figures.learning(own, f"learning-{i}") for i, own in enumerate(by_env.values(), 1)]
        sections.append(
            Section("Learning curves", [*drawn, Notes(["Scores are of validation cases, which no evaluation plays."])])
        )
    if runs:
        sections.append(Section("Provenance", _provenance(runs)))
    return sections


def title(scores: Scores) -> str:
    """What a group of comparable evaluations is called."""
    return f"{plain(scores.env_id)}, {plain(scores.split)} split"


def _overview(scored: Sequence[Scores]) -> list[Block]:
    """Agents by environments: the mean over tasks on each environment's first scale."""
    agents = list(dict.fromkeys(own.agent for scores in scored for own in scores.agents))
    scales = [scores.references.first.name for scores in scored]
    rows = []
    for agent in agents:
        row = [agent]
        for scores, scale in zip(scored, scales, strict=True):
            own = next((own for own in scores.agents if own.agent == agent), None)
            row.append("" if own is None else f"{bracket(own.aggregates[scale]['mean'])} ({own.runs})")
        rows.append(row)
    header = ["agent", *(f"{title(s)}: {scale}" for s, scale in zip(scored, scales, strict=True))]
    blocks: list[Block] = [Table("Mean normalized score over tasks", header, rows)]
    both = _held_out(scored)
    if both.rows:
        blocks.append(both)
    blocks.append(
        Notes(
            [
                "Brackets are 95 % intervals, the number behind them is that of training runs. Each section below says "
                "what its intervals leave out and where its scales come from."
            ]
        )
    )
    return blocks


def _held_out(scored: Sequence[Scores]) -> Table:
    """The same agents on train and test tasks of one environment."""
    rows = []
    for train in scored:
        for test in scored:
            if (train.env_id, train.k, train.split, test.split) != (test.env_id, test.k, "train", "test"):
                continue
            for scale in train.references.scales:
                mine = {own.agent: own for own in train.agents}
                for own in test.agents:
                    if own.agent in mine and scale in own.aggregates:
                        means = [bracket(each.aggregates[scale]["mean"]) for each in (mine[own.agent], own)]
                        rows.append([own.agent, plain(test.env_id), scale, *means])
    return Table("Held out beside train: mean over tasks", ["agent", "ID", "scale", "train", "test"], rows)


def _evaluated(scores: Scores, runs: Sequence[Run], name: str) -> Section:
    first, *others = tables(scores)
    blocks: list[Block] = [first, figures.tasks(scores, f"{name}-tasks")]
    if scores.k > 1:
        blocks.append(figures.attempts(scores, f"{name}-attempts"))
    if any(own.audit for own in scores.agents):
        blocks.append(figures.audit(scores, f"{name}-audit"))
    blocks += others
    said = notes(scores)
    if not any(run.audits for run in runs) and scores.k > 1:
        said.append(f"Without --audit, nothing is measured of {' and '.join(map(repr, MEASURES.values()))}.")
    return Section(title(scores), [*blocks, Notes(said)])


def _provenance(runs: Sequence[Run]) -> list[Block]:
    header = ["agent", "ID", "split", "train seed", "steps", "rollouts", "versions", "commit", "hardware", "records"]
    rows = []
    for run in runs:
        m = run.manifest
        versions, hardware = _mapping(m.get("versions")), _mapping(m.get("hardware"))
        rows.append(
            [
                *(plain(m["agent"]), plain(m["env_id"]), plain(m["split"])),
                *("" if m[key] is None else f"{m[key]:,}" for key in ("train_seed", "step")),
                f"{m['rollouts_per_task']:,} a task",
                plain(", ".join(f"{package} {number}" for package, number in versions.items()), 300),
                plain(str(m.get("git_commit") or ""), 12),
                plain(str(hardware.get("cpu", "")), 60),
                plain(str(m["episodes_sha256"])[:12]),
            ]
        )
    return [Table("Where the records come from", header, rows)]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
