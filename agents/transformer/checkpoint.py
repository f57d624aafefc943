"""Checkpoints: everything a run needs to go on, whole or absent, the newest readable one wins.

A checkpoint is a folder ``checkpoints/update-000001000`` with ``state.pt`` (model, targets, PopArt, input statistics,
optimizer, counters) and ``replay.npz``. It is written under a temporary name and renamed; ``state.pt`` carries the
replay's checksum, so that a damaged half is noticed.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from mtbench.errors import UsageError

_STATE, _REPLAY, _DIGEST = "state.pt", "replay.npz", "digest"


def save(folder: Path, update: int, state: dict[str, Any], replay: dict[str, npt.NDArray[Any]], keep: int) -> Path:
    """Write a checkpoint, then remove all but the newest `keep`.

    Args:
        folder: The run's ``checkpoints``.
        update: Updates done.
        state: What ``torch.load(weights_only=True)`` can read back.
        replay: Arrays.
        keep: At least 1.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"update-{update:09d}"
    temporary = folder / f".{target.name}.{os.getpid()}.tmp"
    try:
        temporary.mkdir()
        np.savez(temporary / _REPLAY, **replay)  # type: ignore[arg-type]
        torch.save({**state, "replay_sha256": _sha256(temporary / _REPLAY)}, temporary / _STATE)
        (temporary / _DIGEST).write_text(_sha256(temporary / _STATE))
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        if target.exists():  # of a run that was killed after writing it and before going on
            shutil.rmtree(target)
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in _newest_first(folder)[keep:]:
        shutil.rmtree(old)
    return target


def load(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read a checkpoint and check it.

    Raises:
        UsageError: It is missing or damaged; the message says how.
    """
    state = load_state(path)
    if _sha256(path / _REPLAY) != state["replay_sha256"]:
        raise UsageError(f"{path / _REPLAY} is damaged (checksum differs).")
    with np.load(path / _REPLAY) as arrays:
        return state, {name: arrays[name] for name in arrays.files}


def load_state(path: Path) -> dict[str, Any]:
    """The model's part alone, without the replay.

    Raises:
        UsageError: It is missing or damaged.
    """
    for name in (_STATE, _REPLAY, _DIGEST):
        if not (path / name).is_file():
            raise UsageError(f"{path} is no checkpoint: it has no {name}.")
    if (path / _DIGEST).read_text() != _sha256(path / _STATE):
        raise UsageError(f"{path / _STATE} is damaged (checksum differs).")
    state: dict[str, Any] = torch.load(path / _STATE, map_location="cpu", weights_only=True)
    return state


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
    return sorted(folder.glob("update-*"), reverse=True)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Have the disk hold what the rename is about to promise."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
