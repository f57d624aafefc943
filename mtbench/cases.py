"""The cases of an evaluation: a fixed, versioned list of meta-rollouts, the same for every agent.

Evaluation cases measure an agent; validation cases serve to choose a checkpoint or a setting. Each use has its own
random streams. Held-out splits have no validation cases, so that no choice depends on the final test.

Fixed cases are known to everybody, so an agent could have learnt them by heart. Cases of a secret (``secret:`` and 32
hexadecimal digits) are drawn like evaluation cases from a stream that nobody knows before the agent is handed in.
"""

from __future__ import annotations

import re
import secrets
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from mtbench.audit import NORMAL, Condition, condition_of, other_variants
from mtbench.errors import UsageError, unknown_name_error
from mtbench.suite import Split, Suite, VariantRange, Variants

# Bump this when `evaluation_cases` returns other cases. Scores are comparable only within one version.
EVALUATION_VERSION = 2

#: What cases are for. Cases of a secret are the third use.
USES = ("evaluation", "validation")
_SECRET = re.compile(r"secret:([0-9a-f]{32})")


def is_use(use: str) -> bool:
    """Whether there are cases of this name."""
    return use in USES or _SECRET.fullmatch(use) is not None


def is_secret(use: str) -> bool:
    """Whether these are cases of a secret."""
    return use not in USES


def new_secret() -> str:
    """The use of cases that nobody knows: drawn by the operating system, not by a seeded generator."""
    return f"secret:{secrets.token_hex(16)}"


# If a split has at most this many variants, cases play all of them equally often. If it has more, cases draw variants
# with replacement.
MOST_ENUMERATED = 10_000


@dataclass(frozen=True, slots=True)
class Case:
    """One meta-rollout, the same for every agent.

    Attributes:
        task: Task name.
        rollout: Index within the task, from 0.
        seed: The seed for ``reset``.
        variants: One variant per attempt.
    """

    task: str
    rollout: int
    seed: int
    variants: tuple[int, ...]


def evaluation_cases(
    suite: Suite,
    split: str,
    tasks: Sequence[str],
    rollouts_per_task: int,
    k: int,
    use: str = "evaluation",
    condition: Condition = NORMAL,
) -> list[Case]:
    """The fixed cases of an evaluation, in a fixed order that mixes the tasks.

    A case depends only on the suite, split, use, task, index and :data:`EVALUATION_VERSION`. So a longer evaluation
    contains the cases of a shorter one, a subset of the tasks has the same cases as the full set, and an attempt's
    variant does not depend on k.

    Args:
        suite: The suite.
        split: One of its splits.
        tasks: Names of tasks of the split.
        rollouts_per_task: Cases per task.
        k: Attempts per case.
        use: ``"evaluation"``, ``"validation"`` for choosing between models, or cases of a secret.
        condition: Of the adaptation audit. The cases of ``"other-variants"`` depend on their number, too.

    Raises:
        ValueError: No such split or use, or the split has no validation cases.

    Example:
        >>> from mtbench.suite import load_suite
        >>> case, *_ = evaluation_cases(load_suite("popgym"), "test", ["RepeatFirstEasy"], 2, 2)
        >>> case
        Case(task='RepeatFirstEasy', rollout=0, seed=2817951965, variants=(1675801442, 1981218353))
    """
    cases = []
    for task in tasks:
        variants = case_variants(suite, split, task, rollouts_per_task, k, use, condition).tolist()
        seeds = _stream(suite, split, task, use, 0).integers(2**32, size=rollouts_per_task).tolist()
        cases += [Case(task, i, seeds[i], tuple(variants[i])) for i in range(rollouts_per_task)]
    order = np.random.default_rng(EVALUATION_VERSION).permutation(len(cases))
    return [cases[i] for i in order]


def manifest_cases(suite: Suite, manifest: Mapping[str, Any]) -> list[Case]:
    """The cases of a run, in the order in which they are played."""
    m = manifest
    sizes, use = (m["rollouts_per_task"], m["k"]), m.get("cases", "evaluation")
    return evaluation_cases(suite, m["split"], m["tasks"], *sizes, use, condition_of(m))


def case_variants(
    suite: Suite,
    split: str,
    task: str,
    rollouts: int,
    k: int,
    use: str = "evaluation",
    condition: Condition = NORMAL,
) -> npt.NDArray[np.int64]:
    """The variants of a task's cases: shape (rollouts, k), int64. Arguments as in :func:`evaluation_cases`."""
    drawn_from = _variants(suite.split(split), use)
    streams = [_stream(suite, split, task, use, 1 + attempt) for attempt in range(k)]
    if suite.attempt_variants == "same":
        repeated = np.repeat(_drawn(drawn_from, rollouts, streams[0])[:, None], k, axis=1)
        return other_variants(repeated) if condition == "other-variants" else repeated
    return np.stack([_drawn(drawn_from, rollouts, stream) for stream in streams], axis=1)


def _variants(split: Split, use: str) -> Variants:
    if not is_use(use):
        raise unknown_name_error("kind of cases", use, USES, "evaluations")
    if use != "validation":
        return split.evaluation
    if split.validation is None:
        raise UsageError(
            f"The split {split.name!r} has no validation cases: choose models on the train split, and play "
            f"{split.name!r} in the final evaluation alone."
        )
    return split.validation


def _stream(suite: Suite, split: str, task: str, use: str, part: int) -> np.random.Generator:
    names = [zlib.crc32(name.encode()) for name in (suite.name, split, task)]
    secret = _SECRET.fullmatch(use)
    kind, drawn = (len(USES), [int(secret[1], 16)]) if secret else (USES.index(use), [])
    return np.random.default_rng(np.random.SeedSequence([EVALUATION_VERSION, *names, *drawn], spawn_key=(kind, part)))


def _drawn(variants: Variants, count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw `count` variants. If there are few variants, each appears once before any appears again."""
    size = len(variants)
    if size <= MOST_ENUMERATED:
        rounds = [rng.permutation(size) for _ in range(-(-count // size))]
        index = np.concatenate(rounds)[:count]
    else:
        index = rng.integers(size, size=count)
    if isinstance(variants, VariantRange):
        return np.asarray(index + variants.start, dtype=np.int64)
    return np.array(variants.values, dtype=np.int64)[index]
