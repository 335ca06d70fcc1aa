"""Conversions between value types, by the kinds of their ends."""

from __future__ import annotations

from collections.abc import Callable

from tridsl.backends.vulkan.emit_frame import Frame, Value
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.dtypes import F64, I64, DType


def convert(frame: Frame, value: Value, source: DType, target: DType) -> Value:
    """`value` of type `source` as a value of type `target`: total, as `ir.expr` says."""
    row = frame.row(target)
    rule = _RULES[
        source.kind if source.kind in ("bool", "float") else "int",
        target.kind if target.kind in ("bool", "float") else "int",
    ]
    return Value(text=rule(frame, value, source, target), type=row.value)


def _to_bool(frame: Frame, value: Value, source: DType, target: DType) -> str:
    return f"({value.text} != {value.type}(0))"


def _same(frame: Frame, value: Value, source: DType, target: DType) -> str:
    return value.text


def _from_bool(frame: Frame, value: Value, source: DType, target: DType) -> str:
    row = frame.row(target)
    _note_wide(frame, target)
    return f"{row.value}({value.text})"


def _integer(frame: Frame, value: Value, source: DType, target: DType) -> str:
    """Wraps: through 32 bits down, sign-extended up."""
    row = frame.row(target)
    _note_wide(frame, target)
    text = value.text if value.type == row.value else f"{row.value}({value.text})"
    return text if _contains(target, source) else row.narrow.format(text)


def _to_float(frame: Frame, value: Value, source: DType, target: DType) -> str:
    row = frame.row(target)
    text = value.text if value.type == row.value else f"{row.value}({value.text})"
    return row.narrow.format(text)


def _to_integer(frame: Frame, value: Value, source: DType, target: DType) -> str:
    """Truncates and saturates, NaN → 0."""
    row = frame.row(target)
    low, high = target.low, target.high
    assert low is not None and high is not None
    _note_wide(frame, target)
    if source == F64:
        frame.helpers.add("to_int_double")
        frame.extensions.add(INT64)
        bounds = ("(-9223372036854775807L - 1L)" if low == I64.low else f"({low}L)", f"{high}L")
        text = f"to_int64({value.text}, {', '.join(bounds)})"
        return text if row.value == "int64_t" else f"{row.value}({text})"
    if target == I64:
        frame.helpers.add("to_int64")
        return f"to_int64({value.text})"
    frame.helpers.add("to_int")
    if target.kind == "uint":
        return f"to_uint({value.text}, {high}u)"
    lowest = "(-2147483647 - 1)" if low == -(1 << 31) else f"({low})"
    return f"to_int({value.text}, {lowest}, {high})"


def _contains(target: DType, source: DType) -> bool:
    assert target.low is not None and target.high is not None and source.low is not None and source.high is not None
    return target.low <= source.low and source.high <= target.high


def _note_wide(frame: Frame, target: DType) -> None:
    if target == I64:
        frame.extensions.add(INT64)


_RULES: dict[tuple[str, str], Callable[[Frame, Value, DType, DType], str]] = {
    ("bool", "bool"): _same,
    ("bool", "int"): _from_bool,
    ("bool", "float"): _from_bool,
    ("int", "bool"): _to_bool,
    ("int", "int"): _integer,
    ("int", "float"): _to_float,
    ("float", "bool"): _to_bool,
    ("float", "int"): _to_integer,
    ("float", "float"): _to_float,
}
