"""Scalar expressions → GLSL text, by a table of node types."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from tridsl.backends.vulkan.emit_cast import convert
from tridsl.backends.vulkan.emit_frame import Frame, Place, Value
from tridsl.backends.vulkan.emit_functions import DOUBLE_CALLS, FUNCTION_CALLS, OF_ROUNDED
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.backends.vulkan.ranges import INT32, Range, range_of
from tridsl.dtypes import F64, I64, NUMPY_TYPES, DType, compute_type
from tridsl.ir.expr import COMPARE, Binary, Call, Cast, Const, Expr, Load, Select, Unary, Var, add, index, mul
from tridsl.ir.rounding import rounds
from tridsl.ir.walk import walk


def emit_value(frame: Frame, expression: Expr) -> Value:
    """`expression` as GLSL. An i64 expression comes as `int` where its range allows."""
    return _EMIT[type(expression)](frame, expression)


def emit_as(frame: Frame, expression: Expr, dtype: DType | None = None) -> str:
    """Text of `expression` in the value type of its own dtype (or `dtype`, of the same kind): i64 in full width."""
    value = emit_value(frame, expression)
    wanted = frame.row(dtype or expression.dtype).value
    return value.text if value.type == wanted else f"{wanted}({value.text})"


def emit_condition(frame: Frame, expression: Expr) -> str:
    return emit_value(frame, expression).text


def constant_text(value: bool | float, dtype: DType) -> str:
    """A literal of the value type of `dtype`."""
    if dtype.kind == "bool":
        return "true" if value else "false"
    if dtype == F64:
        number = float(value)
        if math.isfinite(number):
            return f"{number!r}lf" if number >= 0 and not _is_minus_zero(number) else f"(-{-number!r}lf)"
        low, high = struct.unpack("<II", struct.pack("<d", number))
        return f"packDouble2x32(uvec2({low}u, {high}u))"
    if dtype.is_float:
        return _float_text(float(np.asarray(value, np.float64).astype(NUMPY_TYPES[dtype])))
    number = int(value)
    if dtype.kind == "uint":
        return f"{number}u"
    suffix = "L" if dtype == I64 else ""
    if number == dtype.low and dtype.bits >= 32:  # its absolute value is no literal
        return f"({number + 1}{suffix} - 1{suffix})"
    return f"{number}{suffix}" if number >= 0 else f"({number}{suffix})"


def _is_minus_zero(number: float) -> bool:
    return number == 0 and math.copysign(1, number) < 0


def _float_text(number: float) -> str:
    rounded = struct.unpack("<f", struct.pack("<f", number))[0] if abs(number) < 3.4028235677973366e38 else None
    if rounded is None or not math.isfinite(rounded) or _is_minus_zero(rounded):
        bits = (
            0x7FC00000
            if math.isnan(number)
            else 0x80000000
            if number == 0
            else 0x7F800000
            if number > 0
            else 0xFF800000
        )
        return f"uintBitsToFloat({bits}u)"
    shortest = next(text for digits in (6, 7, 8, 9) if _single(float(text := f"{rounded:.{digits}g}")) == rounded)
    text = shortest if any(c in shortest for c in ".e") else f"{shortest}.0"
    return text if rounded >= 0 else f"({text})"


def _single(number: float) -> float | None:
    try:
        return float(struct.unpack("<f", struct.pack("<f", number))[0])
    except OverflowError:  # six digits of the greatest float round past it
        return None


def _const(frame: Frame, node: Const) -> Value:
    if node.dtype == I64 and node.value != I64.low:
        return _index_const(frame, node)
    return Value(text=constant_text(node.value, node.dtype), type=frame.row(node.dtype).value)


def _index_const(frame: Frame, node: Const, *, limit: bool = False) -> Value:
    kind = "int" if INT32.low < int(node.value) <= INT32.high else "int64_t"
    return Value(text=frame.constant(int(node.value), kind, limit=limit), type=kind)


def emit_limit(frame: Frame, expression: Expr) -> Value:
    """`emit_value` of what an index stays below."""
    if isinstance(expression, Const) and expression.dtype == I64 and expression.value != I64.low:
        return _index_const(frame, expression, limit=True)
    return emit_value(frame, expression)


def _var(frame: Frame, node: Var) -> Value:
    """Variables are declared `int` exactly where their range fits (`declare_index`)."""
    if node.dtype == I64:
        return Value(text=frame.names[node.name], type=_index_type(frame, node))
    return Value(text=frame.names[node.name], type=frame.row(node.dtype).value)


def _index_type(frame: Frame, expression: Expr) -> str:
    if range_of(expression, frame.ranges).inside(INT32):
        return "int"
    frame.extensions.add(INT64)
    return "int64_t"


def _load(frame: Frame, node: Load) -> Value:
    place = frame.places[node.tensor]
    text = read_place(frame, place, node.index)
    if node.mask is not None:
        other = "false" if place.row.value == "bool" else f"{place.row.value}(0)"
        if node.other is not None:
            other = emit_as(frame, node.other)
        text = f"({emit_condition(frame, node.mask)} ? {text} : {other})"
    return Value(text=text, type=place.row.value)


def read_place(frame: Frame, place: Place, at: tuple[Expr, ...]) -> str:
    element = element_text(frame, place, at)
    return place.row.load.format(element) if place.holds_elements else element


def element_text(frame: Frame, place: Place, at: tuple[Expr, ...]) -> str:
    """The lvalue of `place[at]`."""
    if place.kind != "pointer" and not place.strides:
        return place.name
    offset = _offset(place, at)
    with frame.indexing(place):
        where = emit_value(frame, offset)
    behind = isinstance(offset, Const) and offset.value < 0  # of a reversed view: no array in GLSL has such an element
    if where.type == "int" and _all_narrow(frame, offset) and not behind:
        return f"{place.name}.v[{where.text}]" if place.kind == "pointer" else f"{place.name}[{where.text}]"
    if place.kind != "pointer":
        return f"{place.name}[int({where.text})]"
    size = place.dtype.storage_bytes
    kind = pointer_type(frame, place.dtype)
    return f"{kind}(uint64_t({place.name}) + uint64_t(int64_t({where.text}) * {size}L)).v[0]"


def _offset(place: Place, at: tuple[Expr, ...]) -> Expr:
    offset: Expr = index(0)
    for position, stride in zip(at, place.strides):
        offset = add(offset, mul(position, stride))
    return offset


def pointer_type(frame: Frame, dtype: DType) -> str:
    frame.pointers.add(dtype)
    return f"Pointer_{dtype.name}"


def _all_narrow(frame: Frame, offset: Expr) -> bool:
    """Byte offsets of access chains are computed in the index type's width by some drivers: leave room for the element."""
    return range_of(offset, frame.ranges).high < INT32.high // 8


def _unary(frame: Frame, node: Unary) -> Value:
    if node.dtype == I64 and node.op == "neg" and _index_type(frame, node) == "int":
        inner = emit_value(frame, node.a)
        if inner.type == "int":
            return Value(text=f"(-{inner.text})", type="int")
    row = frame.row(node.dtype)
    a = emit_as(frame, node.a)
    if node.op == "abs" and node.dtype == I64:
        a = f"({a} < 0L ? 0L - {a} : {a})"
    elif node.op == "abs":
        a = a if node.dtype.kind == "uint" else f"abs({a})"
    elif node.op == "neg" and not node.dtype.is_float:
        a = f"({row.value}(0) - {a})"
    else:
        a = f"({ {'neg': '-', 'not': '!', 'invert': '~'}[node.op] }{a})"
    return Value(text=_narrow(frame, a, node.dtype), type=row.value)


def _narrow(frame: Frame, text: str, dtype: DType) -> str:
    """Bring the result of 32-bit arithmetic back into a smaller integer type."""
    return frame.row(dtype).narrow.format(text) if dtype.is_integer else text


_INFIX = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "and": "&", "or": "|", "xor": "^",
    "eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">=",
}  # fmt: skip
_BOOLEAN = {"and": "&&", "or": "||", "xor": "!=", "add": "||", "mul": "&&", "max": "||", "min": "&&"}
_WRAPPING = ("add", "sub", "mul", "shl", "floordiv")
_CALLED = {"min": "lesser", "max": "greater", "floordiv": "floor_div", "mod": "floor_mod"}


def _binary(frame: Frame, node: Binary) -> Value:
    operand = node.a.dtype
    if operand == I64:
        narrow = _narrow_index(frame, node)
        if narrow is not None:
            return narrow
    a, b = emit_as(frame, node.a), emit_as(frame, node.b)
    if operand == I64:
        frame.extensions.add(INT64)
    if node.op in COMPARE:
        return Value(text=_compare(node.op, operand, a, b), type="bool")
    if operand.kind == "bool":
        return Value(text=f"({a} {_BOOLEAN[node.op]} {b})", type="bool")
    text = _times_large(frame, node, a, b) or binary_text(frame, node.op, a, b, operand)
    return Value(text=text, type=frame.row(node.dtype).value)


def _times_large(frame: Frame, node: Binary, a: str, b: str) -> str | None:
    """i64 products with a constant in 2^31..2^32, which NVIDIA's compiler (driver 580) takes for a negative one where the other
    factor was widened from 32 bits."""
    for text, factor in ((a, node.b), (b, node.a)):
        if node.op == "mul" and node.dtype == I64 and isinstance(factor, Const) and 1 << 31 <= int(factor.value) < 1 << 32:
            frame.helpers.add("shifted_31")
            return f"(shifted_31({text}) + {text} * {int(factor.value) - (1 << 31)}L)"
    return None


def binary_text(frame: Frame, op: str, a: str, b: str, dtype: DType) -> str:
    """`a op b` on full-width values of one type, with the language's total semantics."""
    if dtype.kind == "bool":
        return f"({a} {_BOOLEAN[op]} {b})"
    if dtype.is_float:
        return _float_binary(frame, op, a, b, dtype)
    if op in ("shl", "shr"):
        frame.helpers.add("shift")
        text = f"shift_{'left' if op == 'shl' else 'right'}({a}, {b}, {compute_type(dtype).bits})"
    elif op in _CALLED:
        if op in ("floordiv", "mod"):
            frame.helpers.add("floor_div")
            frame.extensions.add(INT64)
        name = op if dtype == I64 and op in ("min", "max") else _CALLED[op]  # Mesa 22.3.6 compares widened numbers wrongly
        if name in ("lesser", "greater"):
            frame.helpers.add(name)
        text = f"{name}({a}, {b})"
    else:
        text = f"({a} {_INFIX[op]} {b})"
    return _narrow(frame, text, dtype) if op in _WRAPPING else text


def _float_binary(frame: Frame, op: str, a: str, b: str, dtype: DType) -> str:
    if op in ("min", "max"):
        frame.helpers.add("nan_max_double" if dtype == F64 else "nan_max")
        return f"nan_{op}({a}, {b})"
    if op == "floordiv":
        return f"floor({a} / {b})"
    if op == "mod":
        return f"({a} - floor({a} / {b}) * {b})"
    return f"({a} {_INFIX[op]} {b})"


def _compare(op: str, operand: DType, a: str, b: str) -> str:
    if operand.kind == "bool" and op not in ("eq", "ne"):
        a, b = f"uint({a})", f"uint({b})"
    return f"({a} {_INFIX[op]} {b})"


def _narrow_index(frame: Frame, node: Binary) -> Value | None:
    """i64 arithmetic in 32 bits, where operands and result are known to fit."""
    ranges = [range_of(part, frame.ranges) for part in (node.a, node.b)]
    if not all(r.inside(INT32) for r in ranges) or (node.op not in COMPARE and _index_type(frame, node) != "int"):
        return None
    parts = (node.a, node.b) if node.op not in COMPARE else (_unwidened(node.a), _unwidened(node.b))
    emit_part = emit_limit if node.op in COMPARE else emit_value
    a, b = (emit_part(frame, part) for part in parts)
    if a.type != "int" or b.type != "int":
        return None
    if node.op in COMPARE:
        return Value(text=f"({a.text} {_INFIX[node.op]} {b.text})", type="bool")
    if node.op in ("floordiv", "mod"):
        if ranges[0].low >= 0 and ranges[1].low > 0:
            return Value(text=f"({a.text} {'/' if node.op == 'floordiv' else '%'} {b.text})", type="int")
        frame.helpers.add("floor_div")
        frame.extensions.add(INT64)
    if node.op in ("min", "max"):
        return Value(text=f"{_least_name(frame, node)}({a.text}, {b.text})", type="int")
    if node.op in _CALLED:
        return Value(text=f"{_CALLED[node.op]}({a.text}, {b.text})", type="int")
    if node.op in ("shl", "shr"):
        return None
    return Value(text=f"({a.text} {_INFIX[node.op]} {b.text})", type="int")


def _least_name(frame: Frame, node: Binary) -> str:
    """What `min` or `max` of an index is called: what no data are in is never the same for all of a loop (`emit_functions.lesser`)."""
    if not any(isinstance(part, Load) for part in walk(node)):
        return node.op
    frame.helpers.add(_CALLED[node.op])
    return _CALLED[node.op]


def _unwidened(node: Expr) -> Expr:
    """What `node` widened to i64. Mesa 22.3.6 answers `int64_t(x) < 5` with false for every `x` of 32 bits."""
    if isinstance(node, Cast) and node.dtype == I64 and node.a.dtype.kind == "int":
        return node.a
    return node


def _select(frame: Frame, node: Select) -> Value:
    condition = emit_condition(frame, node.condition)
    a, b = emit_value(frame, node.a), emit_value(frame, node.b)
    if a.type != b.type:
        a = Value(text=emit_as(frame, node.a), type=frame.row(node.dtype).value)
        b = Value(text=emit_as(frame, node.b), type=a.type)
    if a.type in SELECTED and all(_is_free(frame, arm) for arm in (node.a, node.b)):
        return Value(text=f"mix({b.text}, {a.text}, {condition})", type=a.type)
    return Value(text=f"({condition} ? {a.text} : {b.text})", type=a.type)


SELECTED = ("float", "int", "uint")
"""Value types that `mix` chooses among."""
FREE = 64
"""Nodes of an arm that is computed whether or not it is wanted: GLSL's own choice is a branch wherever an arm is more than a name, and lanes that
branch wait for one another, with whatever each of them has under way."""


def _is_free(frame: Frame, arm: Expr) -> bool:
    """Whether lanes that do not want the arm may compute it: a few operations, and no element that may be beyond the end."""
    nodes = list(walk(arm))
    return len(nodes) <= FREE and all(_is_inside(frame, node) for node in nodes if isinstance(node, Load))


def _is_inside(frame: Frame, load: Load) -> bool:
    place = frame.places[load.tensor]
    if place.count is None or load.mask is not None:
        return False
    return not place.strides or range_of(_offset(place, load.index), frame.ranges).inside(Range(0, place.count - 1))


def _cast(frame: Frame, node: Cast) -> Value:
    if node.dtype == node.a.dtype:
        return emit_value(frame, node.a)
    return convert(frame, emit_value(frame, node.a), node.a.dtype, node.dtype)


def _call(frame: Frame, node: Call) -> Value:
    double = node.args[0].dtype == F64
    table = DOUBLE_CALLS if double else FUNCTION_CALLS
    spelling, helper = (not double and all(map(rounds, node.args)) and OF_ROUNDED.get(node.function)) or table[node.function]
    if helper:
        frame.helpers.add(helper)
    if helper in ("sin", "cos", "tan"):
        frame.extensions.add(INT64)
    arguments = ", ".join(emit_as(frame, argument) for argument in node.args)
    return Value(text=f"({spelling}({arguments}))", type=frame.row(node.dtype).value)


_EMIT: dict[type, Callable[[Frame, Any], Value]] = {
    Const: _const,
    Var: _var,
    Load: _load,
    Unary: _unary,
    Binary: _binary,
    Select: _select,
    Cast: _cast,
    Call: _call,
}


def is_varying(frame: Frame, expression: Expr) -> bool:
    """Whether lanes of one group may see different values."""
    return any(
        (isinstance(node, Var) and (node.name in frame.lanes or node.name in frame.subgroups))
        or (isinstance(node, Load) and node.tensor in frame.places and frame.places[node.tensor].varying)
        for node in walk(expression)
    )
