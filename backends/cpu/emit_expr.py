"""Expressions: a table from node type to the function that writes its LLVM value.

Within a vector loop an expression that depends on the lane gives a vector, any other a scalar; the two meet in `together`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tridsl.backends.cpu.emit_cast import emit_cast
from tridsl.backends.cpu.emit_frame import Frame, Lane
from tridsl.backends.cpu.emit_index import steps_of
from tridsl.backends.cpu.emit_llvm import (
    HELD,
    INDEX_TYPE,
    WORD,
    Value,
    constant,
    declare,
    element_of,
    index_constant,
    intrinsic,
    ir,
    mangle,
    number_of,
    scalar_constant,
    splat,
    together,
    vector_constant,
)
from tridsl.backends.cpu.emit_narrow import emit_packed
from tridsl.backends.cpu.emit_words import emit_channel_sum
from tridsl.backends.cpu.functions import emit_function
from tridsl.dtypes import BF16, I32, INDEX, NUMPY_TYPES, DType
from tridsl.ir.expr import COMPARE, Binary, Call, Cast, Const, Load, Select, Unary, Var, sub
from tridsl.ir.rounding import rounds
from tridsl.ir.walk import walk


def held_constant(value: bool | float, dtype: DType) -> Value:
    """A scalar constant in held form; a bf16 constant is its bits."""
    if dtype == BF16:
        return scalar_constant(HELD[dtype], int(np.asarray(value, NUMPY_TYPES[BF16]).view(np.uint16)))
    return scalar_constant(HELD[dtype], value)


def emit_const(frame: Frame, node: Const) -> Value:
    return held_constant(node.value, node.dtype)


def emit_var(frame: Frame, node: Var) -> Value:
    if node.name in frame.known:
        return ir.Constant(INDEX_TYPE, frame.known[node.name])
    if frame.lane and node.name == frame.lane.variable:
        return vector_constant(INDEX_TYPE, range(frame.lane.count))
    return frame.values[node.name]


def emit_unary(frame: Frame, node: Unary) -> Value:
    builder, a = frame.builder, frame.evaluate(node.a)
    match node.op:
        case "not" | "invert":
            return builder.xor(a, constant(a.type, -1))
        case "neg":
            return builder.fneg(a) if node.dtype.is_float else builder.sub(constant(a.type, 0), a)
        case "abs":
            if node.dtype.is_float:
                return intrinsic(builder, "fabs", a.type, [a])
            return _absolute(frame, a) if node.dtype.kind == "int" else a


def _absolute(frame: Frame, a: Value) -> Value:
    negative = frame.builder.icmp_signed("<", a, constant(a.type, 0))
    return frame.builder.select(negative, frame.builder.sub(constant(a.type, 0), a), a)


def emit_binary(frame: Frame, node: Binary) -> Value:
    if node.op in COMPARE and node.a.dtype == INDEX and frame.lane:
        narrow = _compare_positions(frame, node, frame.lane)
        if narrow is not None:
            return narrow
    channels = emit_channel_sum(frame, node)
    if channels is not None:
        return channels
    a, b = together(frame.builder, frame.evaluate(node.a), frame.evaluate(node.b))
    dtype = node.a.dtype
    if node.op in COMPARE:
        return _compare(frame, node.op, a, b, dtype)
    kind = "float" if dtype.is_float else "unsigned" if dtype.kind in ("uint", "bool") else "signed"
    return BINARY[node.op, kind](frame, a, b)


def _compare(frame: Frame, op: str, a: Value, b: Value, dtype: DType) -> Value:
    """IEEE comparisons: only `!=` is true of a NaN."""
    sign = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}[op]
    if dtype.is_float:
        compare = frame.builder.fcmp_unordered if op == "ne" else frame.builder.fcmp_ordered
        return compare(sign, a, b)
    return (frame.builder.icmp_signed if dtype.kind == "int" else frame.builder.icmp_unsigned)(sign, a, b)


def _compare_positions(frame: Frame, node: Binary, lane: Lane) -> Value | None:
    """Positions of loops that lie a constant number of steps apart in the lanes: 32 bits hold those, and where the other side
    stands among them is found once for all lanes."""
    if any(isinstance(n, Var) and n.name not in frame.ranges or isinstance(n, Load) for n in walk(node)):
        return None  # a number from outside may wrap
    access = steps_of(frame, sub(node.a, node.b))
    if access.varying is not None or not access.offsets:
        return None
    builder = frame.builder
    start = index_constant(access.constant) if access.base is None else builder.add(access.base, index_constant(access.constant))
    limit = builder.sub(index_constant(0), start)
    for name, end in (("smax", min(access.offsets) - 1), ("smin", max(access.offsets) + 1)):
        limit = intrinsic(builder, name, INDEX_TYPE, [limit, index_constant(end)])
    return _compare(frame, node.op, vector_constant(WORD, access.offsets), splat(builder, builder.trunc(limit, WORD), lane.count), I32)


def emit_extreme(frame: Frame, name: str, a: Value, b: Value) -> Value:
    """`maximum` or `minimum`: NaN propagates, which zero wins is open as in NumPy (`nsz`).

    `vmaxps b, a` gives its second operand when either is NaN, so LLVM adds a test of `b` and a blend. An accumulator belongs in
    `a`: the test is then not on its way.
    """
    function = declare(frame.builder.module, f"llvm.{name}.{mangle(a.type)}", a.type, [a.type, a.type])
    return frame.builder.call(function, [b, a], fastmath=("nsz",))


def _floor_division(frame: Frame, a: Value, b: Value, wants_quotient: bool) -> Value:
    """Floor quotient or remainder of signed integers; 0 for divisor 0, and the minimum // -1 wraps."""
    builder, kind = frame.builder, a.type
    zero, one = constant(kind, 0), constant(kind, 1)
    number = number_of(b)
    if number is not None and number > 0:
        if number & (number - 1) == 0:
            amount = constant(kind, number.bit_length() - 1)
            return builder.ashr(a, amount) if wants_quotient else builder.and_(a, constant(kind, number - 1))
        quotient, remainder = builder.sdiv(a, b), builder.srem(a, b)
        below = builder.icmp_signed("<", remainder, zero)
        if wants_quotient:
            return builder.add(quotient, builder.sext(below, kind))
        return builder.add(remainder, builder.select(below, b, zero))
    by_zero = builder.icmp_signed("==", b, zero)
    by_minus_one = builder.icmp_signed("==", b, constant(kind, -1))
    safe = builder.select(builder.or_(by_zero, by_minus_one), one, b)
    quotient, remainder = builder.sdiv(a, safe), builder.srem(a, safe)
    differs = builder.icmp_signed("<", builder.xor(remainder, safe), zero)
    inexact = builder.icmp_signed("!=", remainder, zero)
    adjust = builder.and_(differs, inexact)
    if wants_quotient:
        floored = builder.add(quotient, builder.sext(adjust, kind))
        floored = builder.select(by_minus_one, builder.sub(zero, a), floored)
    else:
        floored = builder.add(remainder, builder.select(adjust, safe, zero))
    return builder.select(by_zero, zero, floored)


def _unsigned_division(frame: Frame, a: Value, b: Value, wants_quotient: bool) -> Value:
    builder, kind = frame.builder, a.type
    divide = builder.udiv if wants_quotient else builder.urem
    if number_of(b):
        return divide(a, b)
    by_zero = builder.icmp_unsigned("==", b, constant(kind, 0))
    return builder.select(by_zero, constant(kind, 0), divide(a, builder.select(by_zero, constant(kind, 1), b)))


def _float_division(frame: Frame, a: Value, b: Value, wants_quotient: bool) -> Value:
    """Floor quotient and remainder of floats, a - floor(a / b) * b."""
    builder = frame.builder
    floored = intrinsic(builder, "floor", a.type, [builder.fdiv(a, b)])
    return floored if wants_quotient else builder.fsub(a, builder.fmul(floored, b))


def _shift(frame: Frame, a: Value, b: Value, op: str) -> Value:
    """Shifts by the width or more (or by a negative amount) move everything out: 0, or -1 for `>>` of a negative number."""
    builder, kind = frame.builder, a.type
    width = element_of(kind).width
    shift = {"shl": builder.shl, "lshr": builder.lshr, "ashr": builder.ashr}[op]
    number = number_of(b)
    if number is not None and 0 <= number < width:
        return shift(a, b)
    inside = builder.icmp_unsigned("<", b, constant(kind, width))
    if op == "ashr":
        return shift(a, builder.select(inside, b, constant(kind, width - 1)))
    return builder.select(inside, shift(a, builder.select(inside, b, constant(kind, 0))), constant(kind, 0))


def _extreme(name: str) -> Callable[[Frame, Value, Value], Value]:
    return lambda frame, a, b: intrinsic(frame.builder, name, a.type, [a, b])


BINARY: dict[tuple[str, str], Callable[[Frame, Value, Value], Value]] = {
    ("add", "float"): lambda f, a, b: f.builder.fadd(a, b, flags=f.contraction),
    ("sub", "float"): lambda f, a, b: f.builder.fsub(a, b, flags=f.contraction),
    ("mul", "float"): lambda f, a, b: f.builder.fmul(a, b, flags=f.contraction),
    ("div", "float"): lambda f, a, b: f.builder.fdiv(a, b),
    ("max", "float"): lambda f, a, b: emit_extreme(f, "maximum", a, b),
    ("min", "float"): lambda f, a, b: emit_extreme(f, "minimum", a, b),
    ("floordiv", "float"): lambda f, a, b: _float_division(f, a, b, True),
    ("mod", "float"): lambda f, a, b: _float_division(f, a, b, False),
    ("floordiv", "signed"): lambda f, a, b: _floor_division(f, a, b, True),
    ("mod", "signed"): lambda f, a, b: _floor_division(f, a, b, False),
    ("div", "signed"): lambda f, a, b: _floor_division(f, a, b, True),
    ("floordiv", "unsigned"): lambda f, a, b: _unsigned_division(f, a, b, True),
    ("mod", "unsigned"): lambda f, a, b: _unsigned_division(f, a, b, False),
    ("div", "unsigned"): lambda f, a, b: _unsigned_division(f, a, b, True),
    ("max", "signed"): _extreme("smax"),
    ("min", "signed"): _extreme("smin"),
    ("max", "unsigned"): _extreme("umax"),
    ("min", "unsigned"): _extreme("umin"),
    ("shr", "signed"): lambda f, a, b: _shift(f, a, b, "ashr"),
    ("shr", "unsigned"): lambda f, a, b: _shift(f, a, b, "lshr"),
    **{("shl", kind): lambda f, a, b: _shift(f, a, b, "shl") for kind in ("signed", "unsigned")},
    **{("add", kind): lambda f, a, b: f.builder.add(a, b) for kind in ("signed", "unsigned")},
    **{("sub", kind): lambda f, a, b: f.builder.sub(a, b) for kind in ("signed", "unsigned")},
    **{("mul", kind): lambda f, a, b: f.builder.mul(a, b) for kind in ("signed", "unsigned")},
    **{("and", kind): lambda f, a, b: f.builder.and_(a, b) for kind in ("signed", "unsigned")},
    **{("or", kind): lambda f, a, b: f.builder.or_(a, b) for kind in ("signed", "unsigned")},
    **{("xor", kind): lambda f, a, b: f.builder.xor(a, b) for kind in ("signed", "unsigned")},
}


def emit_select(frame: Frame, node: Select) -> Value:
    condition, a, b = (frame.evaluate(e) for e in (node.condition, node.a, node.b))
    condition, a, b = together(frame.builder, condition, a, b)
    return frame.builder.select(condition, a, b)


def emit_cast_node(frame: Frame, node: Cast) -> Value:
    value = frame.evaluate(node.a)
    packed = emit_packed(frame, node, value)
    return emit_cast(frame.builder, value, node.a.dtype, node.dtype) if packed is None else packed


def emit_call(frame: Frame, node: Call) -> Value:
    args = together(frame.builder, *(frame.evaluate(a) for a in node.args))
    return emit_function(frame.builder, node.function, args, frame.chip.features, rounded=all(rounds(a) for a in node.args))


