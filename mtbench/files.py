"""Write files atomically and durably, also across a power cut, and explain errors of a full disk."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from mtbench.errors import UsageError

# An exceeded quota or file size limit is reported like a full disk.
_FULL = {errno.ENOSPC, errno.EFBIG, *filter(None, [getattr(errno, "EDQUOT", None)])}

# Temporary files are called `.NAME.PID-TOKEN.tmp`. A process id alone is not unique: containers start counting anew.
# Earlier versions wrote no token.
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.\d+(-[0-9a-f]{8})?\.tmp")


class DiskFullError(UsageError, OSError):
    """A file could not be written for lack of space."""


def temporary_path(path: Path) -> Path:
    """A unique temporary name beside `path`; :func:`sweep` recognizes such names."""
    return path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it, so that `path` is never half written.

    The file is on disk when this returns: a power cut afterwards does not undo or empty it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        write(temporary)
        flush(temporary)
        os.replace(temporary, path)
        flush(path.parent)
    except OSError as error:
        _name(error, path, temporary)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def replace_folder(out: Path, fill: Callable[[Path], object]) -> None:
    """Let `fill` write into an empty folder beside `out`, then put it in the place of `out`, which is removed."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(out)
    try:
        temporary.mkdir()
        fill(temporary)
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    except OSError as error:
        _name(error, out, temporary)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _name(error: OSError, path: Path, temporary: Path) -> None:
    """Let an error name the file that was asked for: errors of writing name none, others the temporary one."""
    if error.errno is not None and error.filename in (None, str(temporary)):
        error.filename, error.filename2 = str(path), None


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(content, indent=1) + "\n"))


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    if path.is_dir():
        if os.name == "nt":  # Windows cannot flush a folder
            return
        descriptor = os.open(path, os.O_RDONLY)
    else:
        descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path, names: Collection[str] | None = None) -> None:
    """Remove the temporary files that killed writers left.

    Call this only while holding the folder's lock (:mod:`mtbench.locking`): a live writer's file looks the same.

    Args:
        folder: The folder; it need not exist.
        names: Remove the temporary files of these files only; None removes all.
    """
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or (names is not None and found["name"] not in names):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Turn an OSError for lack of space into one that says what to do.

    Args:
        folder: The folder being written, for errors that do not name their file.
    """
    try:
        yield
    except DiskFullError:
        raise
    except OSError as error:
        if error.errno is None or error.errno not in _FULL:
            raise
        where = folder if error.filename is None else error.filename
        raise DiskFullError(
            f"The disk is full: {where} could not be written ({os.strerror(error.errno)}). "
            "Free some space and run the same command again: it goes on from what was saved."
        ) from error
