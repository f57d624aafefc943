"""Checkpoints: everything that a training run needs to resume, written atomically. The newest readable one is used.

A checkpoint is a folder ``checkpoints/update-000001000`` with ``state.pt`` (model, targets, PopArt, input statistics,
optimizer, counters), ``replay.npz`` (unfinished rollouts, and which rollouts lie where in the replay's own files, see
replay.py) and ``digest``, the checksum of ``state.pt``. It is written under a temporary name and renamed; ``state.pt``
carries the checksum of ``replay.npz``, so that a damaged half is noticed.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtbench.errors import UsageError
from mtbench.files import flush, temporary_path
from mtbench.untrusted import shown

_STATE, _REPLAY, _DIGEST = "state.pt", "replay.npz", "digest"

# `.old`: a checkpoint that is being replaced by another one of the same update.
_NAME = re.compile(r"update-(?P<update>\d{9,})(?P<old>\.old)?")


def save(folder: Path, update: int, state: dict[str, Any], replay: dict[str, npt.NDArray[Any]], keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`, and those of later updates: they are damaged.

    Args:
        folder: The run's ``checkpoints``.
        update: Updates done.
        state: What ``torch.load(weights_only=True)`` can read back.
        replay: Arrays.
        keep: At least 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"update-{update:09d}"
    temporary = temporary_path(target)
    replaced = target.with_name(f"{target.name}.old")
    try:
        temporary.mkdir()
        np.savez(temporary / _REPLAY, **replay)  # type: ignore[arg-type]
        # Serialize to memory first: PyTorch's own writer does not report a full disk, and the checksum needs the bytes.
        buffer = io.BytesIO()
        torch.save({**state, "replay_sha256": _sha256(temporary / _REPLAY)}, buffer)
        (temporary / _STATE).write_bytes(buffer.getbuffer())
        (temporary / _DIGEST).write_text(hashlib.sha256(buffer.getbuffer()).hexdigest())
        for path in (*temporary.iterdir(), temporary):
            flush(path)
        if target.exists():  # saved twice without an update between, or damaged
            shutil.rmtree(replaced, ignore_errors=True)
            os.replace(target, replaced)
        os.replace(temporary, target)
        flush(folder)
    except OSError as error:
        if error.filename is None:
            error.filename = str(target)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    earlier = [path for path in _newest_first(folder) if path != target and _order(path) < (update, True)]
    for path in _newest_first(folder):
        if path != target and path not in earlier[: keep - 1]:
            shutil.rmtree(path)
    return target


def load(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read a checkpoint and check it.

    Raises:
        UsageError: It is missing or damaged; the message says how.
    """
    state = load_state(path)
    try:
        if _sha256(path / _REPLAY) != state["replay_sha256"]:
            raise UsageError(f"{path / _REPLAY} is damaged (checksum differs).")
        with np.load(path / _REPLAY) as arrays:
            return state, {name: arrays[name] for name in arrays.files}
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        if isinstance(error, UsageError):
            raise
        raise UsageError(f"{path / _REPLAY} cannot be read: {error}.") from None


def load_state(path: Path) -> dict[str, Any]:
    """The model's part alone, without the replay, and its ``digest``, which identifies the checkpoint.

    Raises:
        UsageError: It is missing or damaged.
    """
    for name in (_STATE, _REPLAY, _DIGEST):
        if not (path / name).is_file():
            raise UsageError(f"{path} is no checkpoint: it has no {name}.")
    try:
        content = (path / _STATE).read_bytes()
        stated = (path / _DIGEST).read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error}.") from None
    digest = hashlib.sha256(content).hexdigest()
    if stated != digest.encode():
        raise UsageError(f"{path / _STATE} is damaged (checksum differs).")
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        return {**state, "digest": digest}
    except Exception as error:  # PyTorch raises any exception for a file that it did not write
        # The rest of PyTorch's message explains how to load the file anyway, which would execute its content.
        why = shown(str(error).partition(". ")[0])
        raise UsageError(f"{path / _STATE} is no state of a training run: {why}") from None


def newest(folder: Path, with_replay: bool = True) -> tuple[Path, dict[str, Any], dict[str, npt.NDArray[Any]]] | None:
    """The newest checkpoint that can be read, warning of damaged ones; None where there is none at all.

    Raises:
        UsageError: There are checkpoints and all of them are damaged.
    """
    found = _newest_first(folder)
    for path in found:
        try:
            state, replay = load(path) if with_replay else (load_state(path), {})
        except UsageError as error:
            warnings.warn(f"{error} Falling back to the checkpoint before it.", stacklevel=2)
            continue
        return path, state, replay
    if found:
        raise UsageError(f"Every checkpoint in {folder} is damaged. Delete the folder to begin anew.")
    return None


def _newest_first(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("update-*") if _NAME.fullmatch(path.name)), key=_order, reverse=True)


def _order(path: Path) -> tuple[int, bool]:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found["update"]), found["old"] is None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
