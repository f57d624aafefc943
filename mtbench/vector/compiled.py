"""How the engines are compiled: by Numba, without a compiler on the user's machine, once and for all.

Machine code is kept in a cache beside the sources, or in the user's cache folder where that cannot be written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """A function for compiled ones to call. Divides by zero as NumPy does."""
    return cast(F, numba.njit(error_model="numpy")(function))


def kernel(function: F) -> F:
    """A loop for Python to call: without Python's lock, and kept in the cache.

    Numba takes cached code for valid while the loop's own file stays the same, and would miss a change of the rules
    that the loop calls. So the cache is stamped with all sources that a loop may call: this package's, and those beside
    the loop's own file.
    """
    dispatcher: Any = numba.njit(cache=True, nogil=True, error_model="numpy")(function)
    stamp = _package_digest() + _digest(tuple(sorted(Path(function.__code__.co_filename).parent.glob("*.py"))))
    try:
        dispatcher._cache._cache_file._source_stamp = stamp
    except AttributeError:  # a Numba that keeps its stamp elsewhere: compiling again is slower, and right
        dispatcher = numba.njit(nogil=True, error_model="numpy")(function)
    return cast(F, dispatcher)


@lru_cache
def _package_digest() -> str:
    package = Path(__file__).parent.parent
    files = (path for folder in ("suites", "vector") for path in (package / folder).rglob("*.py"))
    return _digest(tuple(sorted(files)))


@lru_cache
def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256(numba.__version__.encode())
    for path in files:
        digest.update(path.read_bytes())
    return digest.hexdigest()
