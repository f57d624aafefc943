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
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtbench.checks import MAX_ATTEMPTS, check_episodes, check_manifest
from mtbench.errors import RecordError as RecordError  # noqa: PLC0414 (this is where its users look)
from mtbench.files import write_atomically as write_atomically  # noqa: PLC0414
from mtbench.files import write_json as write_json  # noqa: PLC0414
from mtbench.untrusted import is_name, parse_json, read_regular, shown

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

# How Parquet holds each dtype; pandas before version 3 writes the first of the strings.
_PARQUET_TYPES: dict[str, tuple[str, ...]] = {
    "string": ("string", "large_string"),
    "int64": ("int64",),
    "Int64": ("int64",),
    "float64": ("double",),
    "boolean": ("bool",),
}
# What write_frame uses, and nothing that can grow a thousandfold when it is unpacked.
_CODECS = {"SNAPPY", "UNCOMPRESSED"}

MAX_MANIFEST = 1 << 20  # bytes

_REQUIRED = ("suite", "split", "task", "variant", "rollout", "attempt", "return", "length", "agent")


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


def episodes_frame(rows: list[dict[str, Any]] | dict[str, Any]) -> pd.DataFrame:
    """Rows, or columns by name, as a frame with the columns and dtypes of :data:`COLUMNS`."""
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def write_run(path: Path, episodes: pd.DataFrame, manifest: dict[str, Any]) -> Run:
    """Write a complete run, after the same validation that reading does.

    Raises:
        RecordError: The rows do not match the manifest.
    """
    validate(path, episodes, {**manifest, "episodes_sha256": "", "schema_version": SCHEMA_VERSION})
    write_frame(path / EPISODES, episodes)
    digest = hashlib.sha256((path / EPISODES).read_bytes()).hexdigest()
    complete = {"schema_version": SCHEMA_VERSION, **manifest, "episodes_sha256": digest}
    write_json(path / MANIFEST, complete)
    return Run(path, episodes, complete)


def write_frame(path: Path, frame: pd.DataFrame) -> None:
    """Write a frame as Parquet, atomically."""
    write_atomically(path, lambda temporary: frame.to_parquet(temporary, index=False))


def read_frame(path: Path) -> pd.DataFrame:
    """Read a Parquet file of episodes.

    Raises:
        RecordError: It is missing, a link, truncated, not Parquet, larger than any run, or has other columns.
    """
    return _parsed(path, read_regular(path, _largest(MAX_ATTEMPTS), RecordError), rows=None)


def read_run(path: Path | str) -> Run:
    """Read a run that anybody may have written, and check all of it.

    The order matters: the manifest's types and bounds, the size and digest of the rows' file, the file's own
    description of its rows, the rows.

    Raises:
        RecordError: The folder is incomplete, damaged, foreign, impossible or of another version; the message says
            which.
    """
    path = Path(path)
    if not path.is_dir():
        raise RecordError(f"{path} is not a folder. A run is a folder with {EPISODES} and {MANIFEST}.")
    if not os.path.lexists(path / MANIFEST):
        raise RecordError(
            f"{path} has no {MANIFEST}: it is no run, or its evaluation has not finished "
            "(run the same `mtbench evaluate` command again to finish it)."
        )
    manifest = parse_json(path / MANIFEST, read_regular(path / MANIFEST, MAX_MANIFEST, RecordError), RecordError)
    version = manifest.get("schema_version") if isinstance(manifest, dict) else None
    if type(version) is not int or version != SCHEMA_VERSION:
        raise RecordError(
            f"{path / MANIFEST} has schema version {shown(version)}; this mtbench reads version {SCHEMA_VERSION}."
        )
    suite = check_manifest(path / MANIFEST, manifest)
    rows = len(manifest["tasks"]) * manifest["rollouts_per_task"] * manifest["k"]
    content = read_regular(path / EPISODES, _largest(rows), RecordError)
    if hashlib.sha256(content).hexdigest() != manifest["episodes_sha256"]:
        raise RecordError(
            f"{path / EPISODES} is not the file its manifest describes (checksum differs): "
            "it was changed after the evaluation or belongs to another run."
        )
    episodes = _parsed(path / EPISODES, content, rows)
    check_episodes(path, episodes, manifest, suite)
    return Run(path, episodes, manifest)


def validate(path: Path, episodes: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Make the checks of :mod:`mtbench.checks` that reading makes, before writing.

    Raises:
        RecordError: Something is missing, doubled, foreign or impossible; the message names it.
    """
    check_episodes(path, episodes, manifest, check_manifest(path, manifest))


# ---- the rows' file ----


def _largest(rows: int) -> int:
    """The largest file of `rows` rows, in bytes: mtbench's own take 10 a row and 10,000 for all."""
    return 65_536 + 64 * rows


def _parsed(path: Path, content: bytes, rows: int | None) -> pd.DataFrame:
    """The rows of a Parquet file, after its own description of them is found to be what it should be.

    Args:
        path: For messages.
        content: The file's bytes.
        rows: How many there must be; None takes any number that a run may have.
    """
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as pq

    strings = [name for name, dtype in COLUMNS.items() if dtype == "string"]
    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        _check_layout(path, metadata, rows)
        # As dictionaries, a name repeated in a million rows is held once, however long it is.
        table = pq.ParquetFile(pa.BufferReader(content), read_dictionary=strings).read()
        table.validate(full=True)
        for name in strings:
            if any(not is_name(name) for chunk in table[name].chunks for name in chunk.dictionary.to_pylist()):
                raise RecordError(f"{path}: column {name!r} holds other things than short names.")
        for name in _REQUIRED:
            if table[name].null_count and name != "return":  # Parquet files of pandas hold NaN as null
                raise RecordError(f"{path}: column {name!r} has empty cells.")
        kinds = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype()}
        frame = table.to_pandas(types_mapper=kinds.get, ignore_metadata=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{path} is not a readable Parquet file (truncated or foreign): {shown(str(error))}"
        ) from None
    return frame.astype(COLUMNS)


def _check_layout(path: Path, metadata: Any, rows: int | None) -> None:
    """Check columns, their types, the number of rows and their size against the format, before reading any."""
    schema = metadata.schema.to_arrow_schema()
    if schema.names != list(COLUMNS):
        raise RecordError(f"{path} has the columns {shown(schema.names)}, expected {list(COLUMNS)}.")
    for name, kind in zip(schema.names, schema.types, strict=True):
        if str(kind) not in _PARQUET_TYPES[COLUMNS[name]]:
            expected = _PARQUET_TYPES[COLUMNS[name]][0]
            raise RecordError(f"{path}: column {name!r} should be of type {expected}, it is {shown(str(kind))}.")
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    found = sum(group.num_rows for group in groups)
    if found != metadata.num_rows or found > MAX_ATTEMPTS or found != (found if rows is None else rows):
        wanted = f"at most {MAX_ATTEMPTS:,}" if rows is None else f"{rows:,}, as its manifest says"
        raise RecordError(f"{path} has {found:,} rows, it should have {wanted}.")
    if sum(group.total_byte_size for group in groups) > 2 * _largest(found):
        raise RecordError(f"{path} unpacks to more than {2 * _largest(found):,} bytes, too many for {found:,} rows.")
    codecs = {group.column(i).compression for group in groups for i in range(len(COLUMNS))}
    if not codecs <= _CODECS:
        raise RecordError(f"{path} is compressed with {', '.join(sorted(codecs))}; runs are written with Snappy.")
