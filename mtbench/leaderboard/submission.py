"""Check a submission's folder: what is in it, its card, its runs, and that nothing was chosen or doubled.

A submission is ``card.toml`` and ``runs/``, with a folder for each run: ``episodes.parquet``, ``manifest.json``,
perhaps ``actions.bin``, and the runs of an audit in folders inside. Nothing else may be there. All of it is hostile
until it is checked, and nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtbench.audit import MEASURES, NORMAL, condition_of
from mtbench.errors import RecordError
from mtbench.leaderboard.card import CARD, Card, SubmissionError, read_card
from mtbench.records import EPISODES, MANIFEST, Run, read_run
from mtbench.registration import find
from mtbench.traces import ACTIONS
from mtbench.untrusted import shown

RUNS = "runs"
#: An ID and a split: what is scored and ranked together.
Group = tuple[str, str]
FEWEST_ROLLOUTS, FEWEST_SEEDS = 20, 3

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FILES = (EPISODES, MANIFEST, ACTIONS)
_MOST_RUNS = 200
_MOST_FILE, _MOST_ALL = 256 << 20, 1 << 30  # bytes

# What an entry may choose of an environment: everything else is as its ID says.
_CHOSEN = ("split", "expose_task_label")


@dataclass(frozen=True)
class Submission:
    """A submission that passed every check.

    Attributes:
        name: Of its folder: its permanent address.
        path: The folder.
        card: What its authors say.
        groups: By ID and split, its runs.
    """

    name: str
    path: Path
    card: Card
    groups: dict[Group, list[Run]]

    @property
    def runs(self) -> list[Run]:
        """All of them."""
        return [run for group in self.groups.values() for run in group]


def read_submission(path: Path) -> Submission:
    """Read and check a submission.

    Raises:
        SubmissionError: It is refused; the message has a line for each reason that was found.
    """
    _check_folder(path)
    reasons: list[str] = []
    card, runs = None, []
    try:
        card = read_card(path / CARD)
    except SubmissionError as error:
        reasons.append(str(error))
    for folder in sorted((path / RUNS).iterdir()):
        try:
            runs.append(read_run(folder))
        except RecordError as error:
            reasons.append(str(error))
    for run in runs:
        reasons += [f"{run.path}: {reason}" for reason in _reasons_against(run, card)]
    groups: dict[Group, list[Run]] = defaultdict(list)
    for run in runs:
        groups[find(run.manifest["env_id"]).id, run.manifest["split"]].append(run)
    for (env_id, split), own in groups.items():
        reasons += [f"{path}, {env_id}, {split} split: {reason}" for reason in _reasons_against_group(own, card)]
    if reasons or card is None:
        raise SubmissionError("\n".join(reasons))
    return Submission(path.name, path, card, dict(groups))


# ---- the folder ----


def _check_folder(path: Path) -> None:
    """Check names, kinds and sizes of everything in a folder, before any of it is read."""
    if not _NAME.fullmatch(path.name):
        raise SubmissionError(
            f"A submission's folder is named with 1 to 64 small letters, digits and hyphens, not {shown(path.name)}."
        )
    if path.is_symlink() or not path.is_dir():
        raise SubmissionError(f"{path} is no folder.")
    sizes = [_checked_file(path / CARD)]
    _only(path, {CARD, RUNS})
    runs = _folders(path / RUNS)
    if not 1 <= len(runs) <= _MOST_RUNS:
        raise SubmissionError(f"{path / RUNS} should hold 1 to {_MOST_RUNS} runs, it holds {len(runs)}.")
    for run in runs:
        if not _RUN_NAME.fullmatch(run.name):
            raise SubmissionError(f"{path / RUNS}: {shown(run.name)} is no name for a run's folder.")
        _only(run, {*_FILES, *MEASURES})
        audits = [run / condition for condition in MEASURES if os.path.lexists(run / condition)]
        for audit in audits:
            _folders(audit)
            _only(audit, set(_FILES))
        sizes += [_checked_file(each / name) for each in (run, *audits) for name in _FILES]
    if sum(sizes) > _MOST_ALL:
        raise SubmissionError(f"{path} has {sum(sizes):,} bytes; a submission has at most {_MOST_ALL:,}.")


def _only(folder: Path, allowed: set[str]) -> None:
    foreign = sorted({entry.name for entry in os.scandir(folder)} - allowed)
    if foreign:
        raise SubmissionError(f"{folder} holds {shown(foreign[0])}, which is no part of a submission.")


def _folders(folder: Path) -> list[Path]:
    if folder.is_symlink() or not folder.is_dir():
        raise SubmissionError(f"{folder} should be a folder.")
    found = sorted(folder.iterdir())
    for entry in found:
        if folder.name == RUNS and (entry.is_symlink() or not entry.is_dir()):
            raise SubmissionError(f"{entry} should be a run's folder.")
    return found


def _checked_file(path: Path) -> int:
    """The size of a regular file; 0 where there is none, which reading will tell."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(status.st_mode):
        raise SubmissionError(f"{path} is not a regular file.")
    if status.st_size > _MOST_FILE:
        raise SubmissionError(f"{path} is too large: {status.st_size:,} bytes, at most {_MOST_FILE:,} are read.")
    return status.st_size


# ---- the runs ----


def _reasons_against(run: Run, card: Card | None) -> list[str]:
    """Why one run cannot be an entry."""
    m = run.manifest
    row = find(m["env_id"])
    offered = [*row.suite.split(m["split"]).tasks]
    foreign = sorted(set(m["env_kwargs"]) - set(_CHOSEN))
    checks: list[tuple[bool, str]] = [
        (condition_of(m) == NORMAL, "it is a run of an audit: put it inside the run that it belongs to."),
        (m.get("cases", "evaluation") == "evaluation", "it does not play the fixed cases that every entry plays."),
        (not foreign, f"it changes {', '.join(foreign)}: entries play the environment as its ID says."),
        (
            m["tasks"] == offered,
            f"it plays {len(m['tasks'])} of the {len(offered)} tasks: entries play all tasks of a split.",
        ),
        (
            m["rollouts_per_task"] >= FEWEST_ROLLOUTS,
            f"it has {m['rollouts_per_task']} rollouts per task; at least {FEWEST_ROLLOUTS} are asked for.",
        ),
        (
            m.get("seed", 0) == 0,
            f"its policy's seed is {shown(m.get('seed'))}: entries are evaluated with seed 0, so that no evaluation is "
            "chosen among several.",
        ),
    ]
    if card is not None:
        checks += [
            (m["agent"] == card.name, f"its agent is {shown(m['agent'])}, the card's {shown(card.name)}."),
            (
                m["task_label_exposed"] == card.flags["label_exposed"],
                f"task_label_exposed is {m['task_label_exposed']}, the card says {card.flags['label_exposed']}.",
            ),
            (
                card.flags["scripted"] or m["train_seed"] is not None,
                "it has no training seed: evaluate with --train-seed, or write scripted = true in the card of an agent "
                "that is not trained.",
            ),
            (
                not card.flags["scripted"] or m["train_seed"] is None,
                f"it has the training seed {m['train_seed']}, and the card says scripted = true: a scripted agent is "
                "evaluated once, without --train-seed.",
            ),
        ]
    return [reason for passed, reason in checks if not passed]


def _reasons_against_group(runs: Sequence[Run], card: Card | None) -> list[str]:
    """Why runs of one environment and split cannot be an entry together."""
    reasons = []
    for what, key in _SAME.items():
        found = {key(run) for run in runs}
        if len(found) > 1:
            reasons.append(f"its runs differ in {what}: {shown(sorted(map(str, found)))}.")
    seeds = [run.manifest["train_seed"] for run in runs]
    if len(set(seeds)) < len(seeds):
        reasons.append("two of its runs have the same training seed.")
    contents: dict[str, Run] = {}
    for run in runs:
        other = contents.setdefault(content_digest(run), run)
        if other is not run:
            reasons.append(f"{other.path} and {run.path} are the same rollouts under two names.")
    if card is not None and not card.flags["scripted"]:
        few = len(set(seeds)) < FEWEST_SEEDS
        if few and not card.flags["few_seeds"]:
            reasons.append(
                f"it has {len(set(seeds))} training seeds, {FEWEST_SEEDS} are asked for; with few_seeds = true in the "
                "card its row says so."
            )
    return reasons


_SAME: dict[str, Callable[[Run], object]] = {
    "rollouts_per_task": lambda run: run.manifest["rollouts_per_task"],
    "whether they have an audit": lambda run: tuple(sorted(run.audits)),
    "privilege": lambda run: run.manifest["privileged"],
}


def content_digest(run: Run) -> str:
    """A digest of what happened in a run, whatever it is called and whichever seed it claims."""
    columns = (run.episodes[name].to_numpy(dtype=np.float64) for name in ("rollout", "attempt", "return", "length"))
    return hashlib.sha256(b"".join(column.tobytes() for column in columns)).hexdigest()
