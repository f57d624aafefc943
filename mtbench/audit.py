"""The adaptation audit: whether an agent adapts within a rollout, or plays well from its first step.

One policy plays the same cases under several conditions. What it loses, case by case, says what its scores are made of:
without memory between attempts, what remembering earlier attempts is worth; with another variant in every attempt, how
much of that is about this very variant. A policy without memory loses nothing under the first condition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError
from mtbench.suite import Suite

Condition = Literal["normal", "no-memory", "other-variants"]
NORMAL: Condition = "normal"
CONDITIONS: tuple[Condition, ...] = get_args(Condition)

#: What a condition does, for tables and messages.
DESCRIPTIONS: dict[Condition, str] = {
    "normal": "as always",
    "no-memory": "the policy's memory is emptied at the start of every attempt",
    "other-variants": "every attempt plays another variant, so that nothing learnt of one serves the next",
}
#: What the difference between the normal condition and another one measures.
MEASURES: dict[Condition, str] = {"no-memory": "memory", "other-variants": "this variant"}


def condition_of(manifest: Mapping[str, Any]) -> Condition:
    """The condition under which a checked manifest's run was played."""
    condition: Condition = manifest.get("condition", NORMAL)
    return condition


def audit_conditions(suite: Suite, k: int) -> list[Condition]:
    """The conditions beside the normal one: ``other-variants`` where attempts otherwise repeat a variant.

    Raises:
        UsageError: Rollouts of one attempt show no adaptation.
    """
    if k < 2:
        raise UsageError("The audit compares attempts of one rollout, and here is one attempt: give --env k=2 or more.")
    return ["no-memory", "other-variants"] if suite.attempt_variants == "same" else ["no-memory"]


def other_variants(variants: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The variants of a task's cases when every attempt plays another one.

    Attempt j of a case plays the variant of a later case, the same number of cases later for all. So each attempt has
    the same variants over all cases as it has under the normal condition, and differences between variants cancel.

    Args:
        variants: ``(rollouts, k)``, each row the same variant k times.

    Raises:
        UsageError: There are too few cases, or too few different variants among them.

    Example:
        >>> other_variants(np.array([[3, 3], [5, 5], [8, 8]]))
        array([[3, 5],
               [5, 8],
               [8, 3]])
    """
    rollouts, k = variants.shape
    first = variants[:, 0]
    found = first[:, None]
    for _ in range(1, k):
        for shift in range(1, rollouts):
            later = np.roll(first, -shift)
            if (later[:, None] != found).all():
                found = np.concatenate([found, later[:, None]], axis=1)
                break
        else:
            raise UsageError(
                f"{rollouts} rollouts per task, of {len(np.unique(first))} variants, are too few for the audit to play "
                f"another variant in each of {k} attempts: give more --rollouts-per-task."
            )
    return found
