"""The result file format: one folder per run, one row per attempt.

A run is ``episodes.parquet`` (the rows) and ``manifest.json`` (how they were made, and their checksum). Both files
are written under a temporary name and renamed, the manifest last: a folder with a manifest is complete.

========== ======= ========================================================================================
column     dtype   meaning
========== ======= ========================================================================================
suite      string  suite name
split      string  ``train`` or ``test``
task       string  task name
variant    int64   the attempt's variant
rollout    int64   index of the meta-rollout within its task, from 0; the same cases for every agent
attempt    int64   index of the attempt, from 1
return     float64 undiscounted, on the default reward scale
length     int64   base-environment steps; 0 where a time limit left the attempt unplayed
success    boolean null where the suite defines none
agent      string  the agent's name
train_seed Int64   seed of the training run, null for scripted policies
step       Int64   environment steps the agent was trained for, null for scripted policies
========== ======= ========================================================================================
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mtbench.audit import CONDITIONS, NORMAL, Condition, condition_of
from mtbench.checks import MAX_ATTEMPTS, check_episodes, check_manifest
from mtbench.errors import RecordError as RecordError  # noqa: PLC0414 (this is where its users look)
from mtbench.errors import UsageError
from mtbench.files import write_atomically as write_atomically  # noqa: PLC0414
from mtbench.files import write_json as write_json  # noqa: PLC0414
from mtbench.text import for_html, plain
from mtbench.untrusted import is_name, parse_json, read_digested, read_regular, shown

if TYPE_CHECKING:
    import pandas as pd

    from mtbench.scoring.scores import Scores

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
# The codecs that write_frame uses. Others could unpack to a thousand times their size.
_CODECS = {"SNAPPY", "UNCOMPRESSED"}

MAX_MANIFEST = 1 << 20  # bytes

# What an audit has in common with the run that it belongs to.
_SAME_IN_AUDITS = (
    *("env_id", "env_kwargs", "suite", "split", "cases", "tasks", "k", "objective", "rollouts_per_task", "agent"),
    *("policy", "policy_sha256", "privileged", "train_seed", "step", "evaluation_version"),
)

_REQUIRED = ("suite", "split", "task", "variant", "rollout", "attempt", "return", "length", "agent")


@dataclass(frozen=True, repr=False)
class Run:
    """One evaluation, validated.

    Attributes:
        path: The folder; None for a run that is only in memory.
        episodes: One row per attempt, columns as in :data:`COLUMNS`.
        manifest: How the rows were made.
        audits: The same evaluation under the conditions of the adaptation audit (:mod:`mtbench.audit`), where it was
            asked for.
    """

    path: Path | None
    episodes: pd.DataFrame
    manifest: dict[str, Any]
    audits: Mapping[Condition, Run] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What messages call this run: its folder, or its agent where it has none."""
        return f"the run of {plain(self.manifest['agent'])}" if self.path is None else str(self.path)

    @property
    def conditions(self) -> list[Run]:
        """This run, and those of its audit."""
        return [self, *self.audits.values()]

    def score(self, *, seed: int = 0, replicates: int = 2000, interval: str = "jackknife") -> Scores:
        """The scores of this run alone; arguments as for :func:`mtbench.score`."""
        from mtbench.scoring.scores import score

        return score([self], seed=seed, replicates=replicates, interval=interval)

    def to_dataframe(self) -> pd.DataFrame:
        """A copy of the rows: one per attempt, columns as in :data:`COLUMNS`."""
        return self.episodes.copy()

    def save(self, folder: Path | str) -> Run:
        """Write the run to a folder that :func:`read_run` and ``mtbench score`` read.

        Args:
            folder: A new or empty folder.

        Returns:
            The run with this folder as its path.

        Raises:
            UsageError: The folder is not empty.
        """
        folder = Path(folder)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not an empty folder: save the run somewhere else.")
        audits = {name: write_run(folder / name, run.episodes, run.manifest) for name, run in self.audits.items()}
        return replace(write_run(folder, self.episodes, self.manifest), audits=audits)

    def in_memory(self) -> Run:
        """The run without its folder."""
        return replace(self, path=None, audits={name: run.in_memory() for name, run in self.audits.items()})

    def __repr__(self) -> str:
        where = "in memory" if self.path is None else f"in {plain(self.path, 4096)}"
        return f"<mtbench run {where}: {self._description()}>"

    def _repr_html_(self) -> str:
        """The run as notebooks show it: what was played, and the mean scored return of each task."""
        from mtbench.scoring.scored import mean_scores

        means = mean_scores(self.episodes, self.manifest["objective"])
        rows = "".join(f"<tr><td>{for_html(task)}</td><td>{mean:.3f}</td></tr>" for task, mean in means.items())
        head = "<tr><th>task</th><th>mean scored return</th></tr>"
        return f"<p>{for_html(self._description())}</p>\n<table>{head}{rows}</table>"

    def _description(self) -> str:
        m = self.manifest
        sizes = f"{len(m['tasks'])} tasks x {m['rollouts_per_task']} rollouts x {m['k']} attempts"
        return f"{plain(m['agent'])} on {plain(m['env_id'])}, {plain(m['split'])} split, {sizes}"


def episodes_frame(rows: list[dict[str, Any]] | dict[str, Any]) -> pd.DataFrame:
    """Rows, or columns by name, as a frame with the columns and dtypes of :data:`COLUMNS`."""
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def row_order(episodes: pd.DataFrame, tasks: Sequence[str]) -> npt.NDArray[np.int64]:
    """The places of the rows in order of task, rollout and attempt.

    Args:
        episodes: Rows of these tasks, columns as in :data:`COLUMNS`.
        tasks: Their order.
    """
    import pandas as pd

    task = pd.Index(tasks).get_indexer(pd.Index(episodes["task"]))
    order: npt.NDArray[np.int64] = np.lexsort((episodes["attempt"].to_numpy(), episodes["rollout"].to_numpy(), task))
    return order


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
    """Read a run from an untrusted folder and check all of it.

    The order matters: the manifest's types and bounds, the size and digest of the rows' file, the file's own
    description of its rows, the rows.

    Raises:
        RecordError: The folder is incomplete, damaged, foreign, impossible or of another version; the message says
            which.

    Example:
        >>> import mtbench
        >>> chosen = {"tasks": ["RepeatFirstEasy"]}
        >>> run = mtbench.evaluate("MTPOPGym-v0", "random", "runs/random", rollouts_per_task=1, env_kwargs=chosen)
        >>> read_run("runs/random").episodes.equals(run.episodes)
        True
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
    content = read_digested(path / EPISODES, _largest(rows), manifest["episodes_sha256"], RecordError)
    episodes = _parsed(path / EPISODES, content, rows)
    check_episodes(path, episodes, manifest, suite)
    audits = _read_audits(path, manifest) if condition_of(manifest) == NORMAL else {}
    return Run(path, episodes, manifest, audits)


def _read_audits(path: Path, manifest: dict[str, Any]) -> dict[Condition, Run]:
    """The runs of the audit inside a run's folder; each must be of the same evaluation.

    Raises:
        RecordError: One of them cannot be read, or is of another evaluation.
    """
    audits: dict[Condition, Run] = {}
    for condition in CONDITIONS:
        if condition == NORMAL or not os.path.lexists(path / condition / MANIFEST):
            continue
        audits[condition] = audit = read_run(path / condition)
        for key in (*_SAME_IN_AUDITS, "condition"):
            wanted = condition if key == "condition" else manifest.get(key)
            if audit.manifest.get(key) != wanted:
                raise RecordError(
                    f"{audit.path} is no audit of {path}: {key} is {shown(audit.manifest.get(key))}, not "
                    f"{shown(wanted)}."
                )
    return audits


def validate(path: Path, episodes: pd.DataFrame, manifest: dict[str, Any]) -> None:
    """Check a run as reading does (:mod:`mtbench.checks`), before it is written.

    Raises:
        RecordError: Something is missing, doubled, foreign or impossible; the message names it.
    """
    check_episodes(path, episodes, manifest, check_manifest(path, manifest))


# ---- the rows' file ----


def _largest(rows: int) -> int:
    """The largest file of `rows` rows, in bytes: mtbench's own take 10 a row and 10,000 for all."""
    return 65_536 + 64 * rows


def _parsed(path: Path, content: bytes, rows: int | None) -> pd.DataFrame:
    """The rows of a Parquet file; its metadata is checked before any row is read.

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
        # Dictionary encoding holds a repeated name once, however long it is. Without threads: Arrow may abort a process
        # that ends while they begin (its issue 34314), and so few rows need none.
        table = pq.ParquetFile(pa.BufferReader(content), read_dictionary=strings).read(use_threads=False)
        table.validate(full=True)
        for name in strings:
            if any(not is_name(name) for chunk in table[name].chunks for name in chunk.dictionary.to_pylist()):
                raise RecordError(f"{path}: column {name!r} holds other things than short names.")
        for name in _REQUIRED:
            if table[name].null_count and name != "return":  # Parquet files of pandas hold NaN as null
                raise RecordError(f"{path}: column {name!r} has empty cells.")
        return pd.DataFrame({name: _column(table[name], dtype) for name, dtype in COLUMNS.items()})
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, RecordError):
            raise
        raise RecordError(
            f"{path} is not a readable Parquet file (truncated or foreign): {shown(str(error))}"
        ) from None


def _column(column: Any, dtype: str) -> Any:
    """A column of an Arrow table as an array of pandas: many times faster than a conversion of the whole table."""
    import pandas as pd

    if dtype == "string":
        joined = column.unify_dictionaries().combine_chunks()
        names = pd.array(joined.dictionary.to_pylist(), dtype="string")
        return names.take(joined.indices.to_numpy(zero_copy_only=False))
    if dtype in ("int64", "float64"):
        return np.array(column.to_numpy())
    return pd.api.types.pandas_dtype(dtype).__from_arrow__(column)


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
