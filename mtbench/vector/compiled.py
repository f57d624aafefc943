"""How the engines are compiled: by Numba, without a compiler on the user's machine, once and for all.

Machine code is kept in a cache beside the sources, or in the user's cache folder where that cannot be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A function for compiled ones to call. Divides by zero as NumPy does."""
    return cast(F, numba.njit(error_model="numpy")(function))


def kernel(function: F) -> F:
    """A loop for Python to call: without Python's lock, and kept in the cache.

    The cache knows a loop by its own file alone. It must hold :data:`SOURCES` in its closure, or a change of the rules
    that it calls would go unnoticed.
    """
    assert "sources" in function.__code__.co_freevars
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))


def _sources() -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    package = Path(__file__).parent.parent
    for path in sorted(path for folder in ("suites", "vector") for path in (package / folder).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


#: Changes with any source here.
SOURCES = _sources()
