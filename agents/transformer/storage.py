"""The replay's files: arrays mapped into memory, and the log that undoes what was written after a checkpoint.

The arrays are the persistent replay: they are written in place, and a checkpoint only flushes them. A checkpoint must
stay whole while training goes on, so before a place that it refers to is written anew, the old content is appended to
the undo log. Resuming copies it back.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from mtbench.errors import UsageError
from mtbench.files import DiskFullError, write_atomically

Array = npt.NDArray[Any]

_READERS = 4  # reads at once
_KEY_BYTES = 32  # of the checkpoint that an undo log belongs to, at its begin


def claim_space(folder: Path, needed: int) -> None:
    """Refuse a replay that does not fit the disk, before any training.

    Args:
        folder: Where it will be; files that are there already count as its own.
        needed: Bytes in all.

    Raises:
        DiskFullError: There is less.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = sum(_allocated(path) for path in folder.iterdir() if path.is_file())
    free = shutil.disk_usage(folder).free
    if needed - held > free:
        raise DiskFullError(
            f"The disk is too small for the replay: {needed:,} bytes are needed in {folder}, "
            f"{free + held:,} are free. Free some space, choose another disk with --out, or lower collect.replay."
        )


def _allocated(path: Path) -> int:
    status = path.stat()
    return int(status.st_blocks * 512) if hasattr(status, "st_blocks") else status.st_size


def mapped(path: Path, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array in a file, which keeps what it holds; it is made, cut or lengthened to fit, and zero where it is new.

    Raises:
        UsageError: The path is a link or something else than a file.
    """
    size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    if path.is_symlink():  # of a folder from a stranger: it would be written through
        raise UsageError(f"{path} is a symbolic link. Put the file itself there, or delete the link.")
    try:
        descriptor = os.open(path, flags, 0o666)
    except IsADirectoryError:
        raise UsageError(f"{path} is not a regular file. Delete it.") from None
    with open(descriptor, "r+b") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is not a regular file. Delete it.")
        if status.st_size != size:
            os.ftruncate(descriptor, size)
        try:
            _occupy(descriptor, size)
        except OSError as error:
            if not status.st_size:
                path.unlink()
            error.filename = str(path)
            raise
        return np.memmap(file, dtype=dtype, mode="r+", shape=shape)


def _occupy(descriptor: int, size: int) -> None:
    """Allocate all of a sparse file now: writing to mapped memory on a full disk would kill the process."""
    if hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(descriptor, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):  # the file system does not support it
                raise


class SliceReader:
    """Reads slices of an array that fills a file, many at once, without going through the array's mapped memory.

    A mapped array brings in a page at a time, each when it is touched. Reading a slice of images in one call is twice
    as fast where the page cache has it, and three times where only the disk has it; several calls at once keep a disk
    busy.

    Args:
        path: The file of `array`.
        array: ``(capacity, ...)``, mapped to it.
    """

    def __init__(self, path: Path, array: Array) -> None:
        self._file = path.open("rb", buffering=0)
        self._row = array[0].nbytes
        self._pool = ThreadPoolExecutor(_READERS, "replay")

    def read_into(self, slices: Iterable[tuple[Array, int]]) -> None:
        """Fill each array ``(n, ...)``, contiguous, with the n rows that begin at the row given."""
        list(self._pool.map(self._read, *zip(*slices, strict=True)))

    def _read(self, into: Array, first: int) -> None:
        rest, offset = into.data.cast("B"), first * self._row
        while rest:
            count = os.preadv(self._file.fileno(), [rest], offset)
            if not count:
                raise OSError(errno.EIO, "The file is shorter than the replay", self._file.name)
            rest, offset = rest[count:], offset + count

    def close(self) -> None:
        """Close the file."""
        self._pool.shutdown()
        self._file.close()


class UndoLog:
    """What has been overwritten since a checkpoint, in order.

    The file begins with the checkpoint's key and is made when something is first kept. Its records have no lengths: the
    reader knows them.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = bytes(_KEY_BYTES)
        self._file: IO[bytes] | None = None

    def begin(self, key: bytes) -> None:
        """Forget everything: from now on it belongs to the checkpoint with this key of 32 bytes."""
        self.close()
        self._key = key
        self._path.unlink(missing_ok=True)

    def keep(self, arrays: Iterable[Array]) -> None:
        """Append a record. When this returns, a killed process no longer loses it."""
        if self._file is None:
            write_atomically(self._path, lambda temporary: temporary.write_bytes(self._key))
            self._file = self._path.open("ab", buffering=0)
        content = memoryview(b"".join(array.tobytes() for array in arrays))
        try:
            while content:
                content = content[self._file.write(content) :]
        except OSError as error:
            error.filename = str(self._path)
            raise

    def read(self, key: bytes, sizes: Iterable[int]) -> list[tuple[int, int]]:
        """Where the records are that belong to a checkpoint: offset and size of each whole one.

        Args:
            key: The checkpoint's.
            sizes: Of the records that it may have, in bytes, in order.
        """
        if self._path.is_symlink() or not self._path.is_file():
            return []
        with self._path.open("rb") as file:
            if file.read(_KEY_BYTES) != key:
                return []
        found, end, held = [], _KEY_BYTES, self._path.stat().st_size
        for size in sizes:
            if end + size > held:
                break
            found.append((end, size))
            end += size
        return found

    def record(self, place: tuple[int, int]) -> bytes:
        """The content of a record that :meth:`read` found."""
        offset, size = place
        with self._path.open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def close(self) -> None:
        """Close the file; what it holds stays."""
        if self._file is not None:
            self._file.close()
            self._file = None
