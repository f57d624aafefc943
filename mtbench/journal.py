"""The finished shards of an evaluation under way; an interrupted one goes on from them.

A folder ``.partial`` in the run's folder holds ``plan.json`` (the settings, and each shard's checksum and duration) and
one Parquet file for each finished shard. The plan carries a checksum of its own. A shard that is not, to the last bit,
what its checksum says is played again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy.typing as npt
from gymnasium import logger

from mtbench import records, traces
from mtbench.errors import UsageError
from mtbench.files import sweep, write_json
from mtbench.locking import LOCK, FolderLock
from mtbench.records import RecordError

if TYPE_CHECKING:
    import pandas as pd

    from mtbench.cases import Case


Array = npt.NDArray[Any]


class Journal:
    """Holds the folder of an evaluation against others, and keeps its finished shards.

    Use it in a ``with`` statement. At its end the folder is free again; if no shard was finished, nothing that was made
    for the evaluation stays.

    Args:
        path: The run's ``.partial``.
        settings: What the shards depend on.
        space: Of actions, where they are kept, too.

    Raises:
        UsageError: Another process evaluates into this folder, or the shards there have other settings.
        RecordError: The plan is damaged.
    """

    def __init__(self, path: Path, settings: dict[str, Any], space: gym.Space[Any] | None = None) -> None:
        self._path, self._space = path, space
        self._actions: dict[int, list[Array]] = {}
        self._plan = path / "plan.json"
        self._lock = FolderLock(path, "evaluates into")
        try:
            if (path.parent / records.MANIFEST).exists():
                raise UsageError(f"Another process has just finished {path.parent}: run the same command again.")
            sweep(path)
            sweep(path.parent, (records.EPISODES, records.MANIFEST, traces.ACTIONS))
            self._content = self._read(settings)
        except BaseException:
            self._lock.release()
            raise
        self._frames: dict[int, pd.DataFrame] = {}

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def has(self, index: int, shard: Sequence[Case]) -> bool:
        """Whether the shard is on disk, whole."""
        path = self._shard(index)
        if not path.exists():
            return False
        entry = self._content["shards"].get(str(index))
        try:
            if entry is None or entry["sha256"] != _sha256(path.read_bytes()):
                raise RecordError(f"{path} is not what the evaluation wrote (its checksum is another or missing).")
            frame = records.read_frame(path)
        except (RecordError, OSError) as error:
            logger.warn(f"Playing shard {index} again: {error}")
            return False
        if {(c.task, c.rollout) for c in shard} != set(zip(frame["task"], frame["rollout"], strict=True)):
            return False
        if self._space is not None:
            try:
                counts = traces.steps(frame, self._content["settings"])
                self._actions[index] = traces.read_packed(
                    self._trace(index), entry.get("actions_sha256", ""), counts, self._space
                )
            except (RecordError, OSError) as error:
                logger.warn(f"Playing shard {index} again: {error}")
                return False
        self._frames[index] = frame
        return True

    def add(self, index: int, frame: pd.DataFrame, seconds: float, actions: list[Array] | None = None) -> None:
        """Write a finished shard; it is on disk when this returns."""
        path = self._shard(index)
        entry: dict[str, Any] = {"seconds": round(seconds, 3)}
        if actions is not None:
            entry["actions_sha256"] = traces.write_actions(self._trace(index), actions)
            self._actions[index] = actions
        records.write_frame(path, frame)
        self._frames[index] = frame
        self._content["shards"][str(index)] = {"sha256": _sha256(path.read_bytes()), **entry}
        write_json(self._plan, {**self._content, "sha256": _checksum(self._content)})

    def frames(self) -> pd.DataFrame:
        """The rows of all shards."""
        import pandas as pd

        return pd.concat([self._frames[index] for index in sorted(self._frames)], ignore_index=True)

    def actions(self) -> list[Array]:
        """By rollout, in the order of :meth:`frames`."""
        return [rollout for index in sorted(self._frames) for rollout in self._actions[index]]

    def times(self) -> dict[str, Any]:
        """When the evaluation first began, and how long its shards took together, in seconds."""
        seconds = sum(self._content["shards"][str(index)]["seconds"] for index in self._frames)
        return {"started": self._content["started"], "seconds": round(seconds, 3)}

    def remove(self) -> None:
        """Delete the shards: the records are written."""
        _remove(self._path, self._lock)

    def close(self) -> None:
        """Let others in; finished shards stay."""
        self._lock.release()

    def _shard(self, index: int) -> Path:
        return self._path / f"shard-{index:05d}.parquet"

    def _trace(self, index: int) -> Path:
        return self._path / f"shard-{index:05d}.actions"

    def _read(self, settings: dict[str, Any]) -> dict[str, Any]:
        if not self._plan.exists():
            started = datetime.now(timezone.utc).isoformat(timespec="seconds")
            return {"settings": settings, "started": started, "shards": {}}
        damaged = RecordError(f"{self._plan} is damaged: delete {self._path} to begin anew.")
        try:
            content = json.loads(self._plan.read_bytes())
            known = dict(content["settings"])
            stated = content.pop("sha256", None)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise damaged from None
        refuse_other(self._path.parent, known, settings)
        if stated != _checksum(content):
            raise damaged
        return dict(content)


def refuse_other(out: Path, existing: dict[str, Any], settings: dict[str, Any]) -> None:
    """Raise a UsageError if a folder's evaluation has other settings."""
    for key, value in settings.items():
        if existing.get(key) != value:
            if key == traces.SAVED:
                raise UsageError(f"{out} holds an evaluation without its actions: give another folder with --out.")
            raise UsageError(
                f"{out} holds an evaluation with {key} = {existing.get(key)!r}, not {value!r}. "
                "Give another folder with --out, or delete this one."
            )


def discard(path: Path) -> None:
    """Remove the shards of an evaluation that was killed between writing its records and removing its shards."""
    if path.is_dir():
        try:
            _remove(path, FolderLock(path, "evaluates into"))
        except (UsageError, OSError):  # somebody is at it, or the folder is not ours to change
            return


def _remove(path: Path, lock: FolderLock) -> None:
    for inside in list(path.iterdir()):
        if inside.is_dir():
            shutil.rmtree(inside)
        elif inside.name != LOCK:
            inside.unlink()
    lock.release()
    with contextlib.suppress(OSError):  # the lock may have removed it
        path.rmdir()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return _sha256(json.dumps(content, sort_keys=True).encode())
