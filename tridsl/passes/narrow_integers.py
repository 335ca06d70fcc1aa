"""Arithmetic of integers that are known to be small moves to 16 bits, where a register holds twice the lanes.

    y[i] = u8((i32(a[i]) * i32(w[i]) + i32(b[i]) * (255 - i32(w[i])) + 127) // 255)
    ->   y[i] = u8((u16(a[i]) * u16(w[i]) + u16(b[i]) * (255 - u16(w[i])) + 127) // 255)         every step is 0 to 65152

Exact: every value on the way is one of the narrow type's. Comparisons move to bytes where they can, which hold as many lanes as a mask:

    h[b] += i64(i32(x[i]) // 16 == i32(b))   ->   h[b] += i64(x[i] // 16 == u8(b))           b < 16
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I8, I16, INDEX, U8, U16, DType
from tridsl.ir.expr import COMPARE, Binary, Cast, Const, Expr, Load, Select, Unary, Var, binary, index
from tridsl.ir.loop import Accumulate, For, Kernel, Store
from tridsl.ir.value_ranges import fits
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.structs import replace

NARROW = (U16, I16)
"""Types to compute in, the first that holds all values."""
COMPARED = (U8, I8, U16, I16)
"""The same for the two sides of a comparison."""
OF_BYTES = frozenset({"add", "sub", "min", "max", "and", "shr", "floordiv"})
"""What registers do with bytes about as fast as with wider elements; dividing by a power of two is a shift."""
WIDE_BITS = 32
"""Bits of the arithmetic that is narrowed."""
LARGEST = 1 << 16
OPERATIONS = frozenset({"add", "sub", "mul", "min", "max", "and", "shl", "shr", "floordiv", "mod"})
"""What gives in the narrow type what it gives in the wide one where operands and result fit."""


def narrow_integers(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Narrows what is cast to 16 bits or fewer, in the values that are stored and accumulated. Lanes of a device without vectors are
    as wide as they are."""
    if not spec.vector_bits:
        return kernel

    bounds = _bounds(kernel)

    def compared(node: Binary) -> Binary:
        return _compared(node, bounds)

    def within(node: Store | Accumulate) -> Store | Accumulate:
        return rewrite(node, {Cast: _narrowed, Binary: compared})

    return replace(kernel, phases=rewrite(kernel.phases, {Store: within, Accumulate: within}))


def _bounds(kernel: Kernel) -> dict[str, Expr]:
    """For each loop variable that stays below a known number, an expression of that range."""
    most: dict[str, int] = {}
    for phase in kernel.phases:
        for loop in (n for n in walk(phase) if isinstance(n, For)):
            count = int(loop.extent.value) if isinstance(loop.extent, Const) else loop.bound
            most[loop.var] = max(most.get(loop.var, 0), INDEX.high or 0 if count is None else count)
    return {name: binary("mod", Var(name=name), index(n)) for name, n in most.items() if 0 < n <= LARGEST}


def _compared(node: Binary, bounds: Mapping[str, Expr]) -> Binary:
    wide = node.a.dtype.is_integer and node.a.dtype.bits >= WIDE_BITS
    if node.op not in COMPARE or not wide or node.a.dtype != node.b.dtype:
        return node
    if not any(isinstance(n, Load) for n in walk((node.a, node.b))):
        return node
    bounded = substitute((node.a, node.b), bounds)
    for dtype in COMPARED:
        both = _all_in(bounded, dtype)
        if both is not None:
            a, b = _with_variables(both, bounds)
            return replace(node, a=a, b=b)
    return node


def _with_variables(values: list[Expr], bounds: Mapping[str, Expr]) -> list[Expr]:
    """The loop variables again in place of the expressions that stood for their ranges."""
    names = {expression: Var(name=name) for name, expression in bounds.items()}
    return [rewrite(value, {Binary: lambda node: names.get(node, node)}) for value in values]


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
        case Binary(op=op, b=b) if op in (OPERATIONS if dtype.bits > 8 else OF_BYTES) and (op != "floordiv" or dtype.bits > 8 or _is_power(b)):
            both = _all_in((value.a, value.b), dtype)
            return None if both is None else replace(value, a=both[0], b=both[1], dtype=dtype)
        case Select():
            both = _all_in((value.a, value.b), dtype)
            return None if both is None else replace(value, a=both[0], b=both[1], dtype=dtype)
        case Unary(op="neg" | "abs"):
            one = _all_in((value.a,), dtype)
            return None if one is None else replace(value, a=one[0], dtype=dtype)
    return None


def _is_power(value: Expr) -> bool:
    return isinstance(value, Const) and int(value.value) > 0 and int(value.value).bit_count() == 1


def _all_in(values: tuple[Expr, ...], dtype: DType) -> list[Expr] | None:
    found = [_in(value, dtype) for value in values]
    known = [value for value in found if value is not None]
    return known if len(known) == len(values) else None
