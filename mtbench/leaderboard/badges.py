"""What maintainers have verified: a file for each submission, beside the submissions and not inside them.

A badge names the digests of what was verified. If a submission changes, its badge is worth nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from mtbench.errors import UsageError
from mtbench.files import write_json
from mtbench.leaderboard.rerun import Difference, differences, read_rerun
from mtbench.leaderboard.submission import Group, Submission
from mtbench.records import Run
from mtbench.traces import DIGEST
from mtbench.untrusted import parse_json, read_regular
from mtbench.verification import OnRollout, verify

#: In order of trust.
Tier = Literal["reported", "replayed", "rerun"]
TIERS: tuple[Tier, ...] = get_args(Tier)

BADGES, RERUNS = "badges", "reruns"

_MOST = 1 << 20


@dataclass(frozen=True)
class Badge:
    """How far a submission is verified.

    Attributes:
        tier: The tier.
        differences: By ID and split, what a rerun showed.
    """

    tier: Tier
    differences: Mapping[Group, Difference] = field(default_factory=dict)


def replay(
    submission: Submission,
    *,
    jobs: int | None = None,
    backend: str = "local",
    address: str | None = None,
    on_rollout: OnRollout | None = None,
) -> list[str]:
    """Play all actions of a submission again, its audits' too; the arguments are those of ``verify``.

    Returns:
        What differs; empty where nothing does.

    Raises:
        RecordError: A run has no recorded actions, or they are damaged.
    """
    found = []
    for run in _all(submission):
        verified = verify(run, jobs=jobs, backend=backend, address=address, on_rollout=on_rollout)
        found += [f"{run.path}: {sentence}" for sentence in verified.differences]
    return found


def write_badge(board: Path, submission: Submission, tier: Tier, again: Mapping[str, Run] | None = None) -> None:
    """Write that a submission, as it is now, has a tier.

    Args:
        board: The leaderboard's folder.
        submission: Which.
        tier: The tier.
        again: For "rerun", the runs of the rerun, whose records are in the board's folder of reruns.
    """
    content: dict[str, Any] = {"tier": tier, "runs": _digests(submission)}
    if again is not None:
        content["rerun"] = _rerun_digests(again)
    write_json(_path(board, submission), content)


def read_badge(board: Path, submission: Submission) -> Badge:
    """The badge of a submission: "reported" without one, or if what was verified has changed since.

    Raises:
        UsageError: The file is no badge.
        RecordError: The records of a rerun are missing or damaged.
    """
    path = _path(board, submission)
    if not path.exists():
        return Badge("reported")
    content: Any = parse_json(path, read_regular(path, _MOST))
    if not isinstance(content, dict) or content.get("tier") not in TIERS:
        raise UsageError(f"{path} is no badge.")
    if content.get("runs") != _digests(submission):
        return Badge("reported")
    if content["tier"] != "rerun":
        return Badge(content["tier"])
    again = read_rerun(submission, rerun_folder(board, submission))
    if content.get("rerun") != _rerun_digests(again):
        raise UsageError(f"{path}: the records of the rerun are not those that it was given for.")
    return Badge("rerun", differences(submission, again))


def rerun_folder(board: Path, submission: Submission) -> Path:
    """Where the records of a submission's rerun are."""
    return board / RERUNS / submission.name


def _path(board: Path, submission: Submission) -> Path:
    return board / BADGES / f"{submission.name}.json"


def _all(submission: Submission) -> list[Run]:
    return [each for run in submission.runs for each in run.conditions]


def _digests(submission: Submission) -> dict[str, list[str]]:
    digests = {}
    for run in _all(submission):
        assert run.path is not None
        name = run.path.relative_to(submission.path).as_posix()
        digests[name] = [run.manifest["episodes_sha256"], run.manifest.get(DIGEST, "")]
    return digests


def _rerun_digests(again: Mapping[str, Run]) -> dict[str, str]:
    return {name: str(run.manifest["episodes_sha256"]) for name, run in again.items()}
