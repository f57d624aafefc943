"""Compile the engines with Numba, which needs no compiler on the user's machine.

The machine code is cached beside the sources, or in the user's cache folder if the sources' folder is read-only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

F = TypeVar("F", bound=Callable[..., Any])

# Bytes that a processor reads of memory at once.
_LINE = 64


def compiled(function: F) -> F:
    """Compile a function that other compiled functions call. It divides by zero as NumPy does."""
    return cast(F, numba.njit(error_model="numpy")(function))


def kernel(function: F, any_order: bool = False) -> F:
    """Compile a loop that Python calls. It releases the GIL, and its machine code is cached.

    Args:
        function: The loop.
        any_order: Let sums be added in whatever order is fastest here, so that other processors may round otherwise.

    Numba considers cached code valid as long as the loop's own file is unchanged, so it would miss changes in other
    files whose functions the loop calls. The cache's stamp here covers all sources that a loop may call: this
    package's suites and vector code, and the files beside the loop's own.
    """
    freedoms = {"reassoc", "nsz", "contract"} if any_order else False
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": freedoms}
    dispatcher: Any = numba.njit(cache=True, **options)(function)
    stamp = _package_digest() + _digest(tuple(sorted(Path(function.__code__.co_filename).parent.glob("*.py"))))
    try:
        dispatcher._cache._cache_file._source_stamp = stamp
    except AttributeError:  # this Numba keeps its stamp elsewhere: compile without the cache, slower but correct
        dispatcher = numba.njit(**options)(function)
    return cast(F, dispatcher)


@compiled
def prefetch(address: int, size: int) -> None:
    """In a compiled loop: ask the processor for memory that is needed soon, and do not wait for it.

    Args:
        address: Any will do; memory that is nobody's is passed over.
        size: Bytes.
    """
    for line in range(address, address + size, _LINE):
        _prefetch(line)


def _prefetch_instruction(context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        number, pointer = ir.IntType(32), ir.IntType(8).as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", (pointer,), kind)
        # To read; soon needed again; data.
        builder.call(function, [builder.inttoptr(arguments[0], pointer), number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.intp), generate


_prefetch: Callable[[int], None] = cast(Any, intrinsic(_prefetch_instruction))


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
