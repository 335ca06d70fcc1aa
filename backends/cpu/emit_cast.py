"""Conversions between element types, scalar or lane by lane.

Every cast is decode (storage type to compute type), convert between compute types, encode. Narrowing a float rounds to
nearest even once: f64 goes to f16 and bf16 through an f32 that was rounded to odd (Boldo and Melquiond, "Emulation of FMA
and correctly rounded sums", 2008), so that the second rounding sees everything the first one dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tridsl.backends.cpu.emit_llvm import (
    FLOAT,
    HALF,
    HELD,
    INDEX_TYPE,
    SHORT,
    STORED,
    WORD,
    Value,
    constant,
    lanes_of,
    shaped,
)
from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I4, TRIT, U4, DType, compute_type

Convert = Callable[[Any, Value], Value]


def emit_cast(builder: Any, value: Value, source: DType, target: DType) -> Value:
    """`Cast` of ir.expr: ints wrap, float -> int truncates and saturates with NaN -> 0, narrowing floats rounds once."""
    if source == target:
        return value
    if target in (F16, BF16) and compute_type(source) == F64:
        odd = _round_to_odd(builder, value)
        return ENCODE[target](builder, odd)
    decoded = DECODE[source](builder, value) if source in DECODE else value
    converted = _convert(builder, decoded, compute_type(source), compute_type(target))
    return ENCODE[target](builder, converted) if target in ENCODE else converted


def to_stored(builder: Any, value: Value, dtype: DType) -> Value:
    """The held form of `dtype` as it lies in memory. 4-bit integers keep the upper nibble clear, as ml_dtypes does."""
    kind = shaped(STORED[dtype], lanes_of(value))
    if dtype == BOOL:
        return builder.zext(value, kind)
    if dtype == I4:
        return builder.and_(value, constant(kind, 15))
    return value


def from_stored(builder: Any, value: Value, dtype: DType) -> Value:
    """What was read from memory in held form; bits that mean nothing are not looked at."""
    kind = value.type
    if dtype == BOOL:
        return builder.icmp_unsigned("!=", value, constant(kind, 0))
    if dtype == U4:
        return builder.and_(value, constant(kind, 15))
    return _sign_extend(builder, value, 4) if dtype == I4 else value


def _sign_extend(builder: Any, value: Value, bits: int) -> Value:
    """The low `bits` of an i8, as a signed number."""
    unused = constant(value.type, 8 - bits)
    return builder.ashr(builder.shl(value, unused), unused)


def _brain_to_float(builder: Any, value: Value) -> Value:
    lanes = lanes_of(value)
    wide = builder.zext(value, shaped(WORD, lanes))
    return builder.bitcast(builder.shl(wide, constant(wide.type, 16)), shaped(FLOAT, lanes))


def _float_to_brain(builder: Any, value: Value) -> Value:
    """Round to nearest even by adding 0x7fff and the lowest kept bit; a NaN keeps its upper bits and becomes quiet."""
    lanes = lanes_of(value)
    kind = shaped(WORD, lanes)
    bits = builder.bitcast(value, kind)
    upper = builder.lshr(bits, constant(kind, 16))
    rounded = builder.add(bits, builder.add(builder.and_(upper, constant(kind, 1)), constant(kind, 0x7FFF)))
    quiet = builder.or_(upper, constant(kind, 0x40))
    is_nan = builder.fcmp_unordered("uno", value, value)
    return builder.trunc(builder.select(is_nan, quiet, builder.lshr(rounded, constant(kind, 16))), shaped(SHORT, lanes))


def _round_to_odd(builder: Any, value: Value) -> Value:
    lanes = lanes_of(value)
    kind = shaped(WORD, lanes)
    near = builder.fptrunc(value, shaped(FLOAT, lanes))
    back = builder.fpext(near, value.type)
    inexact = builder.fcmp_ordered("one", back, value)
    magnitude = shaped(INDEX_TYPE, lanes)
    clear = constant(magnitude, (1 << 63) - 1)
    beyond = builder.icmp_unsigned(
        ">", builder.and_(builder.bitcast(back, magnitude), clear), builder.and_(builder.bitcast(value, magnitude), clear)
    )
    bits = builder.bitcast(near, kind)
    toward_zero = builder.sub(bits, builder.zext(builder.and_(inexact, beyond), kind))
    return builder.bitcast(builder.or_(toward_zero, builder.zext(inexact, kind)), near.type)


DECODE: dict[DType, Convert] = {F16: lambda b, v: b.fpext(v, shaped(FLOAT, lanes_of(v))), BF16: _brain_to_float}
"""f16 and bf16 are held as their bits; 4-bit and ternary values are already held as the i8 they compute in."""

ENCODE: dict[DType, Convert] = {
    F16: lambda b, v: b.fptrunc(v, shaped(HALF, lanes_of(v))),
    BF16: _float_to_brain,
    I4: lambda b, v: _sign_extend(b, v, 4),
    U4: lambda b, v: b.and_(v, constant(v.type, 15)),
    TRIT: lambda b, v: _sign_extend(b, v, 2),
}


def _convert(builder: Any, value: Value, source: DType, target: DType) -> Value:
    if source == target:
        return value
    kind = shaped(HELD[target], lanes_of(value))
    return CONVERT[_group(source), _group(target)](builder, value, source, target, kind)


def _group(dtype: DType) -> str:
    return "float" if dtype.is_float else "bool" if dtype == BOOL else "integer"


def _float_to_float(builder: Any, value: Value, source: DType, target: DType, kind: Any) -> Value:
    return builder.fpext(value, kind) if target.bits > source.bits else builder.fptrunc(value, kind)


def _float_to_integer(builder: Any, value: Value, source: DType, target: DType, kind: Any) -> Value:
    """Clamped to what both types have, then converted (integers below 32 bits by way of i32).

    Not `fptosi.sat`: LLVM's X86 backend (20 to 22) saturates vectors one lane after the other.
    """
    assert target.low is not None and target.high is not None
    lowest, highest = float(target.low), _float_below(target.high, source)
    low, high, zero = (constant(value.type, number) for number in (lowest, highest, 0.0))
    number = builder.select(builder.fcmp_unordered("uno", value, value), zero, value)
    above = builder.select(builder.fcmp_ordered("<", number, low), low, number)
    within = builder.select(builder.fcmp_ordered(">", above, high), high, above)
    wide = shaped(WORD, lanes_of(value)) if target.bits < 32 else kind
    signed = target.kind == "int" or target.bits < 32
    converted = builder.fptosi(within, wide) if signed else builder.fptoui(within, wide)
    if int(highest) != target.high:
        converted = builder.select(builder.fcmp_ordered(">", value, high), constant(wide, target.high), converted)
    return builder.trunc(converted, kind) if wide != kind else converted


def _float_below(number: int, dtype: DType) -> float:
    """The greatest value of the type that is at most `number`."""
    kind = np.float32 if dtype == F32 else np.float64
    near = kind(number)
    return float(near if int(near) <= number else np.nextafter(near, kind(0)))


def _integer_to_float(builder: Any, value: Value, source: DType, target: DType, kind: Any) -> Value:
    return builder.sitofp(value, kind) if source.kind == "int" else builder.uitofp(value, kind)


def _integer_to_integer(builder: Any, value: Value, source: DType, target: DType, kind: Any) -> Value:
    if target.bits < source.bits:
        return builder.trunc(value, kind)
    if target.bits == source.bits:
        return value
    return builder.sext(value, kind) if source.kind == "int" else builder.zext(value, kind)


def _to_bool(builder: Any, value: Value, source: DType, target: DType, kind: Any) -> Value:
    zero = constant(value.type, 0)
    return builder.fcmp_unordered("!=", value, zero) if source.is_float else builder.icmp_signed("!=", value, zero)


CONVERT: dict[tuple[str, str], Callable[[Any, Value, DType, DType, Any], Value]] = {
    ("float", "float"): _float_to_float,
    ("float", "integer"): _float_to_integer,
    ("float", "bool"): _to_bool,
    ("integer", "float"): _integer_to_float,
    ("integer", "integer"): _integer_to_integer,
    ("integer", "bool"): _to_bool,
    ("bool", "float"): lambda b, v, s, t, kind: b.uitofp(v, kind),
    ("bool", "integer"): lambda b, v, s, t, kind: b.zext(v, kind),
}

