"""The content of ``mtbench list`` and ``mtbench info``, as JSON-safe values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import numpy.typing as npt

from mtbench import registration
from mtbench.rollout import MetaRollout
from mtbench.scoring.references import RAW, References, load_references
from mtbench.suite import Split, Suite, VariantList, VariantRange, Variants


def listed() -> list[dict[str, Any]]:
    """One entry for each ID; see ``mtbench list --json``."""
    entries = []
    for row in registration.rows():
        suite = row.suite
        entries.append(
            {
                "id": row.id,
                "suite": suite.name,
                "title": suite.title,
                "summary": row.summary,
                "k": row.k,
                "objective": row.objective,
                "tasks": {name: len(split.tasks) for name, split in suite.splits.items()},
                "further_tasks": {name: len(split.extra_tasks) for name, split in suite.splits.items()},
                "packages": packages(suite),
            }
        )
    return entries


def described(env_id: str, rollout: MetaRollout) -> dict[str, Any]:
    """A description of an environment, as ``mtbench info --json`` prints it.

    Bounds that are infinite are null, as JSON has no infinity.

    Args:
        env_id: Its ID.
        rollout: The environment, with the arguments it was made with.
    """
    suite = rollout.suite
    references = load_references(suite)
    remarks: Mapping[str, str] = suite.remarks
    return {
        "id": env_id,
        "suite": suite.name,
        "title": suite.title,
        "k": rollout.k,
        "objective": rollout.objective,
        "attempt_reset": rollout.attempt_reset,
        "attempt_variants": suite.attempt_variants,
        "max_steps": rollout.max_steps,
        "clip_rewards": rollout.clip_rewards,
        "reward_scales": rollout.reward_scales,
        "task_label_exposed": rollout.expose_task_label,
        "has_success": suite.has_success,
        "packages": packages(suite),
        "observation_space": _space(rollout.observation_space),
        "action_space": _space(rollout.action_space),
        "split": rollout.split.name,
        "chosen_tasks": list(rollout.tasks),
        "default_split": {"make": "train", "evaluate": "test"},
        "splits": {name: _split(split) for name, split in suite.splits.items()},
        "tasks": {task: _task(suite, task, references) for task in suite.tasks},
        "scales": {name: scale.description for name, scale in references.scales.items()},
        "sources": dict(references.sources),
        "warnings": list(references.warnings),
        "notes": list(references.notes),
        "repeats": dict(suite.repeats),
        "refused": dict(suite.refused),
        "seen_variants": seen_variants(suite),
        "remarks": dict(remarks),
        "departures": list(suite.departures),
    }


def packages(suite: Suite) -> dict[str, str | None]:
    """The distributions that a suite needs and the versions that are installed; None for one that is missing."""
    return {name: _installed(name) for name in suite.distributions}


def seen_variants(suite: Suite) -> dict[str, dict[str, float]]:
    """By split and task, the share of evaluation variants that repeat training ones, where it was measured."""
    measured: Mapping[str, Mapping[str, float]] = suite.seen_variants
    return {split: {task: float(share) for task, share in shares.items()} for split, shares in measured.items()}


def _installed(distribution: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _split(split: Split) -> dict[str, Any]:
    return {
        "tasks": list(split.tasks),
        "further_tasks": list(split.extra_tasks),
        "variants": {
            "drawn": _variants(split.variants),
            "evaluation": _variants(split.evaluation),
            "validation": None if split.validation is None else _variants(split.validation),
        },
    }


def _variants(variants: Variants) -> dict[str, Any]:
    """The count, and the bounds of a range or the values of a list."""
    if isinstance(variants, VariantRange):
        return {"count": len(variants), "start": variants.start, "stop": variants.stop}
    content = {"values": list(variants.values)} if isinstance(variants, VariantList) else {"text": str(variants)}
    return {"count": len(variants), **content}


def _task(suite: Suite, name: str, references: References) -> dict[str, Any]:
    task = suite.tasks[name]
    ends = {
        scale.name: {"low": scale.low[name], "high": scale.high[name]}
        for scale in references.scales.values()
        if scale.covers(name) and scale is not RAW
    }
    return {
        "family": task.family,
        "longest_attempt": task.max_steps,
        "references": {
            scale: {end: {"value": anchor.value, "entry": anchor.entry} for end, anchor in both.items()}
            for scale, both in ends.items()
        },
    }


def _space(space: gym.Space[Any]) -> dict[str, Any]:
    spaces = gym.spaces
    if isinstance(space, spaces.Dict):
        return {"type": "Dict", "spaces": {key: _space(part) for key, part in space.spaces.items()}}
    kind: dict[str, Any] = {"type": type(space).__name__, "shape": space.shape, "dtype": str(space.dtype)}
    if isinstance(space, spaces.Box):
        return {**kind, "low": _bound(space.low), "high": _bound(space.high)}
    if isinstance(space, spaces.Discrete):
        return {**kind, "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {**kind, "nvec": space.nvec.tolist()}
    return {**kind, "text": str(space)}


def _bound(bound: npt.NDArray[Any]) -> Any:
    """One number where all are equal, else a nested list; null where infinite."""
    numbers = [float(value) if np.isfinite(value) else None for value in bound.flat]
    if (bound == bound.flat[0]).all():
        return numbers[0]
    return np.array(numbers, dtype=object).reshape(bound.shape).tolist()
