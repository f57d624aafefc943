"""Native functions called from compiled loops."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _call(typing_context: Any, function: Any, argument: Any) -> Any:
    """``((void (*)(void *)) function)(argument)``; both are addresses, as integers.

    An address that is an argument, and no constant, leaves the machine code cacheable.
    """
    signature = types.void(types.uint64, types.uint64)

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = ir.IntType(8).as_pointer()
        native = ir.FunctionType(ir.VoidType(), [pointer])
        target = builder.inttoptr(arguments[0], native.as_pointer())
        builder.call(target, [builder.inttoptr(arguments[1], pointer)])
        return context.get_dummy_value()

    return signature, generate


call: Any = intrinsic(_call)
