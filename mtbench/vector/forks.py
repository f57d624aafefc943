"""Detect that an object is used in a forked copy of the process that made it.

A process made by ``os.fork`` gets a copy of the memory but none of the threads, and it shares pipes and mapped files
with its parent. So a vector environment must not be stepped in a forked process, and freeing it there must not stop
the parent's helper processes.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from typing import Any


def after_fork(function: Callable[[], None]) -> None:
    """Call a function in every process that is forked from this one."""
    if hasattr(os, "register_at_fork"):  # Windows does not fork
        os.register_at_fork(after_in_child=function)


class OwnProcess:
    """Remembers the process that made it. A copy or an unpickled object belongs to the process that makes it.

    Attributes:
        is_current: Whether this code runs in that process. A plain attribute: environments read it in every step.
    """

    __slots__ = ("__weakref__", "is_current")

    def __init__(self) -> None:
        self.is_current: bool = True
        _processes.add(self)

    def __reduce__(self) -> Any:
        return OwnProcess, ()


_processes: weakref.WeakSet[OwnProcess] = weakref.WeakSet()


def _mark_as_forked() -> None:
    for process in list(_processes):
        process.is_current = False


after_fork(_mark_as_forked)


def finalize_unless_forked(owner: Any, function: Callable[..., Any], *arguments: Any) -> weakref.finalize[..., Any]:
    """``weakref.finalize`` that does nothing in a forked process."""
    return weakref.finalize(owner, _if_own, OwnProcess(), function, *arguments)


def _if_own(process: OwnProcess, function: Callable[..., Any], *arguments: Any) -> None:
    if process.is_current:
        function(*arguments)
