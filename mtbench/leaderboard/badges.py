"""What maintainers have verified: a file for each submission, beside the submissions and not inside them.

A badge names the digests of what was verified. If a submission changes, its badge is worth nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from mtbench.errors import UsageError
from mtbench.files import write_json
from mtbench.leaderboard.submission import Submission
from mtbench.records import Run
from mtbench.traces import DIGEST
from mtbench.untrusted import parse_json, read_regular
from mtbench.verification import OnRollout, verify

#: In order of trust.
Tier = Literal["reported", "replayed"]
TIERS: tuple[Tier, ...] = get_args(Tier)

_MOST = 1 << 20


def replay(submission: Submission, *, jobs: int | None = None, on_rollout: OnRollout | None = None) -> list[str]:
    """Play all actions of a submission again, its audits' too.

    Returns:
        What differs; empty where nothing does.

    Raises:
        RecordError: A run has no recorded actions, or they are damaged.
    """
    differences = []
    for run in _all(submission):
        found = verify(run, jobs=jobs, on_rollout=on_rollout)
        differences += [f"{run.path}: {sentence}" for sentence in found.differences]
    return differences


def write_badge(path: Path, submission: Submission, tier: Tier) -> None:
    """Write that a submission, as it is now, has a tier."""
    write_json(path, {"tier": tier, "runs": _digests(submission)})


def tier_of(path: Path, submission: Submission) -> Tier:
    """The tier that a badge gives a submission: "reported" without one, or if what was verified has changed since."""
    if not path.exists():
        return "reported"
    content: Any = parse_json(path, read_regular(path, _MOST))
    if not isinstance(content, dict) or content.get("tier") not in TIERS:
        raise UsageError(f"{path} is no badge.")
    tier: Tier = content["tier"]
    return tier if content.get("runs") == _digests(submission) else "reported"


def _all(submission: Submission) -> Sequence[Run]:
    return [each for run in submission.runs for each in run.conditions]


def _digests(submission: Submission) -> dict[str, list[str]]:
    digests = {}
    for run in _all(submission):
        assert run.path is not None
        name = run.path.relative_to(submission.path).as_posix()
        digests[name] = [run.manifest["episodes_sha256"], run.manifest.get(DIGEST, "")]
    return digests
