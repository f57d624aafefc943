"""One writer at a time in a folder.

The operating system releases the lock when the process ends, also when it is killed, so a kill leaves nothing to clean
up.
"""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from pathlib import Path

from gymnasium import logger

from mtbench.errors import UsageError

LOCK = ".lock"

# The former holder may remove the file after we open it and before we lock it. Then we try again.
_TRIES = 100


class FolderLock:
    """Holds a folder until it is released, creating the folder if need be.

    Args:
        folder: The folder. Once released, it is removed again if this made it and nothing was put into it.
        purpose: The holder's activity, for messages, such as ``"evaluates into"``.

    Raises:
        UsageError: Another process, or another part of this one, holds it; the message names the process.
    """

    def __init__(self, folder: Path, purpose: str) -> None:
        self.folder = folder
        self._path = folder / LOCK
        self._made = [path for path in (folder, *folder.parents) if not path.exists()]
        self._descriptor: int | None = None
        _held.add(self)
        try:
            for _ in range(_TRIES):
                folder.mkdir(parents=True, exist_ok=True)
                self._descriptor = self._try(purpose)
                if self._descriptor is not None:
                    return
            raise UsageError(f"{self._path} cannot be locked: it vanishes again and again.")
        except BaseException:
            self._remove_what_was_made()
            raise

    def release(self) -> None:
        """Release the folder. A second call does nothing."""
        if self._descriptor is None:
            return
        # Remove the file while holding the lock: a process that has opened it already will see that it is gone.
        with contextlib.suppress(OSError):
            self._path.unlink()
        self._let_go()
        if os.name == "nt":  # Windows cannot remove open files
            with contextlib.suppress(OSError):
                self._path.unlink()
        self._remove_what_was_made()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.release()

    def _try(self, purpose: str) -> int | None:
        """The descriptor of the locked file; None if its former holder removed it, or its folder, meanwhile."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            return None
        try:
            if not _lock(descriptor):
                holder = os.read(descriptor, 32).decode(errors="replace").strip()
                raise UsageError(
                    f"Process {holder or '(unknown)'} {purpose} {self.folder} at this moment: wait for it or stop it, "
                    "or give another folder with --out."
                )
            if not _is_at(descriptor, self._path):
                os.close(descriptor)
                return None
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()}\n".encode())
        except BaseException:
            with contextlib.suppress(OSError):
                os.close(descriptor)
            raise
        return descriptor

    def _let_go(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _remove_what_was_made(self) -> None:
        for path in self._made:
            try:
                path.rmdir()
            except OSError:
                return


_held: weakref.WeakSet[FolderLock] = weakref.WeakSet()


def _forget_in_child() -> None:
    # A child of fork shares its parent's lock and would keep it after the parent's end.
    for lock in list(_held):
        lock._let_go()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> bool:
        # A byte far behind the process id, which others must be able to read.
        os.lseek(descriptor, 1 << 20, os.SEEK_SET)
        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, 0, os.SEEK_SET)
        return True
else:
    import fcntl

    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:  # some network file systems have no locks
            logger.warn(f"This file system has no locks ({error}): take care that nobody else writes here.")
        return True
