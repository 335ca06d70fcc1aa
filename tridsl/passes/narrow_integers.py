"""Arithmetic of integers that are known to be small moves to 16 bits, where a register holds twice the lanes.

    y[i] = u8((i32(a[i]) * i32(w[i]) + i32(b[i]) * (255 - i32(w[i])) + 127) // 255)
    ->   y[i] = u8((u16(a[i]) * u16(w[i]) + u16(b[i]) * (255 - u16(w[i])) + 127) // 255)         every step is 0 to 65152

Exact: every value on the way is one of the narrow type's.
"""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I16, U16, DType
from tridsl.ir.expr import Binary, Cast, Const, Expr, Select, Unary
from tridsl.ir.loop import Accumulate, Kernel, Store
from tridsl.ir.value_ranges import fits
from tridsl.ir.walk import rewrite
from tridsl.structs import replace

NARROW = (U16, I16)
"""Types to compute in, the first that holds all values."""
WIDE_BITS = 32
"""Bits of the arithmetic that is narrowed."""
OPERATIONS = frozenset({"add", "sub", "mul", "min", "max", "and", "shl", "shr", "floordiv", "mod"})
"""What gives in the narrow type what it gives in the wide one where operands and result fit."""


def narrow_integers(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Narrows what is cast to 16 bits or fewer, in the values that are stored and accumulated. Lanes of a device without vectors are
    as wide as they are."""
    if not spec.vector_bits:
        return kernel

    def within(node: Store | Accumulate) -> Store | Accumulate:
        return rewrite(node, {Cast: _narrowed})

    return replace(kernel, phases=rewrite(kernel.phases, {Store: within, Accumulate: within}))


def _narrowed(cast: Cast) -> Cast:
    inner = cast.a
    if not (cast.dtype.is_integer and cast.dtype.bits < WIDE_BITS and inner.dtype.is_integer and inner.dtype.bits >= WIDE_BITS):
        return cast
    for dtype in NARROW:
        found = _in(inner, dtype)
        if found is not None:
            return replace(cast, a=found)
    return cast


def _in(value: Expr, dtype: DType) -> Expr | None:
    """The value computed in the narrow type; None where some step may not fit."""
    if not fits(value, dtype):
        return None
    match value:
        case Const():
            return replace(value, dtype=dtype)
        case Cast(a=a) if a.dtype.is_integer and fits(a, dtype):
            return a if a.dtype == dtype else replace(value, dtype=dtype)
        case Binary(op=op) if op in OPERATIONS:
            both = _all_in((value.a, value.b), dtype)
            return None if both is None else replace(value, a=both[0], b=both[1], dtype=dtype)
        case Select():
            both = _all_in((value.a, value.b), dtype)
            return None if both is None else replace(value, a=both[0], b=both[1], dtype=dtype)
        case Unary(op="neg" | "abs"):
            one = _all_in((value.a,), dtype)
            return None if one is None else replace(value, a=one[0], dtype=dtype)
    return None


def _all_in(values: tuple[Expr, ...], dtype: DType) -> list[Expr] | None:
    found = [_in(value, dtype) for value in values]
    known = [value for value in found if value is not None]
    return known if len(known) == len(values) else None
