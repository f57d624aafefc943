"""The result file format: one folder per run, one row per attempt.

A run is ``episodes.parquet`` (the rows) and ``manifest.json`` (how they came to be, with the rows' checksum). Both
are written under a temporary name and renamed, the manifest last: a folder with a manifest is complete.

======== ======== ==========================================================================================
column   dtype    meaning
======== ======== ==========================================================================================
suite    string   suite name
split    string   ``train`` or ``test``
task     string   task name
variant  int64    the attempt's variant
rollout  int64    index of the meta-rollout within its task, from 0; the same cases for every agent
attempt  int64    index of the attempt, from 1
return   float64  undiscounted, on the default reward scale
length   int64    base-environment steps; 0 where a time limit left the attempt unplayed
success  boolean  null where the suite defines none
agent    string   the agent's name
train_seed Int64  seed of the training run, null for scripted policies
step     Int64    environment steps the agent was trained for, null for scripted policies
======== ======== ==========================================================================================
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench.errors import UsageError
from mtbench.files import write_atomically as write_atomically  # noqa: PLC0414 (re-exported)
from mtbench.files import write_json as write_json  # noqa: PLC0414

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
EPISODES = "episodes.parquet"
MANIFEST = "manifest.json"

COLUMNS: dict[str, str] = {
    "suite": "string",
    "split": "string",
    "task": "string",
    "variant": "int64",
    "rollout": "int64",
    "attempt": "int64",
    "return": "float64",
    "length": "int64",
    "success": "boolean",
    "agent": "string",
    "train_seed": "Int64",
    "step": "Int64",
}

# What a reader may rely on finding in every manifest.
_MANIFEST_TYPES: dict[str, type] = {
    "env_id": str,
    "env_kwargs": dict,
    "suite": str,
    "split": str,
    "tasks": list,
    "k": int,
    "objective": str,
    "rollouts_per_task": int,
    "agent": str,
    "episodes_sha256": str,
}
_REQUIRED = ("suite", "split", "task", "variant", "rollout", "attempt", "return", "length", "agent")


class RecordError(UsageError):
    """A run folder cannot be trusted; the message says which and why."""


@dataclass(frozen=True)
class Run:
    """One evaluation, read and validated.

    Attributes:
        path: The folder.
        episodes: One row per attempt, columns as in :data:`COLUMNS`.
        manifest: How they came to be.
    """

    path: Path
    episodes: pd.DataFrame
    manifest: dict[str, Any]


def episodes_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a frame with the columns and dtypes of :data:`COLUMNS`."""
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def write_run(path: Path, episodes: pd.DataFrame, manifest: dict[str, Any]) -> Run:
    """Write a complete run, after the same validation that reading does.

    Raises:
        RecordError: The rows do not match the manifest.
    """
    validate(path, episodes, {**manifest, "episodes_sha256": "", "schema_version": SCHEMA_VERSION})
    write_frame(path / EPISODES, episodes)
    complete = {"schema_version": SCHEMA_VERSION, **manifest, "episodes_sha256": _sha256(path / EPISODES)}
    write_json(path / MANIFEST, complete)
    return Run(path, episodes, complete)


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet, atomically."""
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def read_frame(path: Path) -> pd.DataFrame:
    """Read a Parquet file of episodes.

    Raises:
        RecordError: It is missing, truncated, not Parquet, or has other columns.
    """
    import pandas as pd
    import pyarrow as pa

    try:
        frame = pd.read_parquet(path)
    except FileNotFoundError:
        raise RecordError(f"{path} does not exist.") from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordError(f"{path} is not a readable Parquet file (truncated or foreign): {error}") from None
    if list(frame.columns) != list(COLUMNS):
        raise RecordError(f"{path} has the columns {list(frame.columns)}, expected {list(COLUMNS)}.")
    for name, dtype in COLUMNS.items():
        integer = dtype.lower() == "int64"
        if integer and not (pd.api.types.is_integer_dtype(frame[name]) or frame[name].isna().all()):
            raise RecordError(f"{path}: column {name!r} should hold integers, it is {frame[name].dtype}.")
    try:
        frame = frame.astype(COLUMNS)
    except (TypeError, ValueError) as error:
        raise RecordError(f"{path}: a column has values of another type than the format's: {error}") from None
    empty = [name for name in _REQUIRED if frame[name].isna().any()]
    if empty and empty != ["return"]:
        raise RecordError(f"{path}: column {empty[0]!r} has empty cells.")
    return frame


def read_run(path: Path | str) -> Run:
    """Read a run and check all of it.

    Raises:
        RecordError: The folder is incomplete, damaged, foreign or of another schema; the message says which.
    """
    path = Path(path)
    if not path.is_dir():
        raise RecordError(f"{path} is not a folder. A run is a folder with {EPISODES} and {MANIFEST}.")
    if not (path / MANIFEST).is_file():
        raise RecordError(
            f"{path} has no {MANIFEST}: it is no run, or its evaluation has not finished "
            "(run the same `mtbench evaluate` command again to finish it)."
        )
    try:
        manifest = json.loads((path / MANIFEST).read_text())
    except ValueError as error:
        raise RecordError(f"{path / MANIFEST} is not valid JSON: {error}") from None
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if version is True or version != SCHEMA_VERSION:
        raise RecordError(
            f"{path / MANIFEST} has schema version {version!r}; this mtbench reads version {SCHEMA_VERSION}."
        )
    _check_manifest(path / MANIFEST, manifest)
    episodes = read_frame(path / EPISODES)
    if _sha256(path / EPISODES) != manifest["episodes_sha256"]:
        raise RecordError(
            f"{path / EPISODES} is not the file its manifest describes (checksum differs): "
            "it was changed after the evaluation or belongs to another run."
        )
    validate(path, episodes, manifest)
    return Run(path, episodes, manifest)


def _check_manifest(path: Path, manifest: dict[str, Any]) -> None:
    for key, kind in _MANIFEST_TYPES.items():
        if key not in manifest:
            raise RecordError(f"{path} lacks {key}.")
        if not isinstance(manifest[key], kind) or isinstance(manifest[key], bool):
            raise RecordError(f"{path}: {key} should be of type {kind.__name__}, it is {manifest[key]!r}.")
    tasks = manifest["tasks"]
    if not tasks or not all(isinstance(task, str) for task in tasks) or len(set(tasks)) != len(tasks):
        raise RecordError(f"{path}: tasks should be names, none twice, they are {tasks!r}.")
    if manifest["k"] < 1 or manifest["rollouts_per_task"] < 1:
        raise RecordError(f"{path}: k and rollouts_per_task should be at least 1.")
    if manifest["objective"] not in ("k-shot", "k-episode"):
        raise RecordError(f"{path}: objective should be k-shot or k-episode, it is {manifest['objective']!r}.")


def validate(path: Path, episodes: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Check that every task has every rollout, every rollout every attempt, and every number makes sense.

    Raises:
        RecordError: Something is missing, doubled, foreign or not finite; the message names it.
    """
    import numpy as np

    for key in ("suite", "split", "agent"):
        found = set(episodes[key].unique())
        if found != {manifest[key]}:
            raise RecordError(f"{path}: column {key!r} holds {sorted(found)}, the manifest says {manifest[key]!r}.")
    for key in ("train_seed", "step"):
        stated = manifest.get(key)
        if not (episodes[key].isna().all() if stated is None else (episodes[key] == stated).fillna(False).all()):
            raise RecordError(f"{path}: column {key!r} does not hold the manifest's {stated!r} throughout.")
    missing = [task for task in manifest["tasks"] if task not in set(episodes["task"])]
    if missing:
        raise RecordError(f"{path}: no rows for {', '.join(missing)}.")
    foreign = sorted(set(episodes["task"]) - set(manifest["tasks"]))
    if foreign:
        raise RecordError(f"{path}: rows for tasks the manifest does not list: {', '.join(foreign)}.")
    bad = episodes[~np.isfinite(episodes["return"]) | (episodes["length"] < 0)]
    if len(bad):
        first = bad.iloc[0]
        raise RecordError(
            f"{path}: task {first['task']}, rollout {first['rollout']}, attempt {first['attempt']} has return "
            f"{first['return']} and length {first['length']}."
        )
    rollouts, k = int(manifest["rollouts_per_task"]), int(manifest["k"])
    expected = [(rollout, attempt) for rollout in range(rollouts) for attempt in range(1, k + 1)]
    for task, rows in episodes.groupby("task", observed=True):
        if sorted(zip(rows["rollout"], rows["attempt"], strict=True)) != expected:
            raise RecordError(
                f"{path}: task {task} should have {rollouts} rollouts of {k} attempts once each, "
                f"found {len(rows)} rows."
            )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
