"""Codecs of matrix operands: registers of bytes, mapped byte by byte.

The meaning of a codec is its expression. Where all its bytes pass through one node whose values are few, it is a function with a
table, and the cheapest instruction of `devices.intrinsics.BYTE_FUNCTIONS` that computes that table stands for it; else its
arithmetic does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from tridsl.backends.cpu.emit_frame import Frame
from tridsl.backends.cpu.emit_llvm import BYTE, Value, constant, declare, ir, lanes_of, splat, vector_constant
from tridsl.devices.intrinsics import BYTE_FUNCTIONS, ByteFunction
from tridsl.ir import scalar
from tridsl.ir.expr import COMPARE, Binary, Cast, Const, Expr, Load, Select
from tridsl.ir.walk import children, walk

Table = np.ndarray[Any, np.dtype[np.uint8]]

REGISTERS = (64, 32, 16)
"""Bytes of the registers that the instructions come in."""


def emit_codec(frame: Frame, code: Expr, registers: Mapping[Load, Value]) -> Value:
    """The register that `code` makes of those of its loads. Loop variables that are numbers have been put in."""
    with _loads_are(frame, registers):
        return frame.evaluate(code)


@contextmanager
def _loads_are(frame: Frame, registers: Mapping[Load, Value]) -> Any:
    """While expressions are evaluated on whole registers, byte functions by their instructions."""
    ordinary = frame.expressions

    def rule(function: Callable[[Any, Any], Value]) -> Callable[[Any, Any], Value]:
        return lambda frame, node: _mapped(frame, node) or function(frame, node)

    frame.expressions = {**{kind: rule(function) for kind, function in ordinary.items()}, Load: lambda _, load: registers[load]}
    yield
    frame.expressions = ordinary


def _mapped(frame: Frame, code: Expr) -> Value | None:
    """`code` as one byte function of what all its bytes pass through."""
    if code.dtype.storage_bits != 8 or isinstance(code, Load) or not any(isinstance(n, Load) for n in walk(code)):
        return None
    source = _source(code)
    table = None if source is code else _table(code, source)
    if table is None:
        return None
    rows = [row for row in BYTE_FUNCTIONS if row.feature in frame.chip.features and _writes(row, table) is not None]
    if not rows:
        return None
    value = frame.evaluate(source)
    if lanes_of(value) not in REGISTERS:
        return None
    return EMIT[rows[0].name](frame, value, table)


def _source(code: Expr) -> Expr:
    """The innermost node that everything read passes through."""
    loads = {n for n in walk(code) if isinstance(n, Load)}
    if len(loads) == 1:
        return next(iter(loads))
    while True:
        reading = [c for c in children(code) if any(isinstance(n, Load) for n in walk(c))]
        if len(reading) != 1 or reading[0].dtype.storage_bits != 8:  # type: ignore[attr-defined]  # an expression's children are expressions
            return code
        code = reading[0]  # type: ignore[assignment]  # as above


def _table(code: Expr, source: Expr) -> Table | None:
    """The values of `code` for each value of `source`, as bytes; None where it depends on more."""
    most = _most(source)
    values = _evaluate(code, source, np.arange(most + 1, dtype=scalar.HELD[source.dtype]) if source.dtype.kind == "uint" else None)
    return None if values is None else np.broadcast_to(values, (most + 1,)).astype(np.uint8)


def _evaluate(code: Expr, source: Expr, values: Any) -> Any:
    if code == source or values is None:
        return values
    match code:
        case Const():
            return scalar.constant(code)
        case Binary(op=op, a=a, b=b):
            left, right = _evaluate(a, source, values), _evaluate(b, source, values)
            return None if left is None or right is None else scalar.BINARY[op](np.asarray(left), np.asarray(right))
        case Cast(a=a, dtype=dtype):
            inner = _evaluate(a, source, values)
            return None if inner is None else scalar.cast(np.asarray(inner), a.dtype, dtype)
        case Select(condition=condition, a=a, b=b):
            parts = [_evaluate(e, source, values) for e in (condition, a, b)]
            return None if any(p is None for p in parts) else np.where(*parts)
    return None


def _most(source: Expr) -> int:
    """2^n - 1 that a byte never exceeds."""
    match source:
        case Const(value=value):
            return (1 << int(value).bit_length()) - 1
        case Binary(op="and", a=a, b=b):
            return min(_most(a), _most(b))
        case Binary(op="or", a=a, b=b):
            return max(_most(a), _most(b))
        case Binary(op="shl", a=a, b=Const(value=count)):
            return min(255, (_most(a) << int(count)) | ((1 << int(count)) - 1))
        case Binary(op="shr", a=a, b=Const(value=count)):
            return _most(a) >> int(count)
        case Binary(op=op) if op in COMPARE:
            return 1
    return 255


# What an instruction needs for a table, or None where it cannot be one.


def _kept_bits(table: Table) -> int | None:
    bits = int(np.bitwise_or.reduce(table))
    return bits if np.array_equal(table, np.arange(len(table), dtype=np.uint8) & bits) else None


def _matrix(table: Table) -> tuple[int, int] | None:
    """`x -> A x + b` over the bits: A as the instruction wants it (byte 7 - i: what is added up in bit i of the result), and b."""
    first = int(table[0])
    columns = [int(table[1 << n]) ^ first if 1 << n < len(table) else 0 for n in range(8)]
    every = np.arange(len(table))
    linear = np.full(len(table), first)
    for n, column in enumerate(columns):
        linear ^= np.where(every >> n & 1, column, 0)
    if not np.array_equal(linear, table):
        return None
    rows = [sum((columns[n] >> bit & 1) << n for n in range(8)) for bit in range(8)]
    return int.from_bytes(bytes(rows[7 - i] for i in range(8)), "little"), first


def _writes(row: ByteFunction, table: Table) -> Any:
    return NEEDS[row.name](table)


def _and(frame: Frame, value: Value, table: Table) -> Value:
    return frame.builder.and_(value, constant(value.type, _kept_bits(table) or 0))


def _affine(frame: Frame, value: Value, table: Table) -> Value:
    found = _matrix(table)
    assert found is not None
    builder, lanes = frame.builder, lanes_of(value)
    matrix = builder.bitcast(splat(builder, ir.Constant(ir.IntType(64), found[0]), lanes // 8), value.type)
    function = declare(builder.module, f"llvm.x86.vgf2p8affineqb.{8 * lanes}", value.type, [value.type, value.type, BYTE])
    return builder.call(function, [value, matrix, ir.Constant(BYTE, found[1])])


def _table_of_64(frame: Frame, value: Value, table: Table) -> Value:
    lanes = lanes_of(value)
    if len(table) > lanes:
        return _shuffled(frame, value, table, lanes)
    entries = vector_constant(BYTE, np.resize(table, lanes).tolist())
    function = declare(frame.builder.module, f"llvm.x86.avx512.permvar.qi.{8 * lanes}", value.type, [value.type, value.type])
    return frame.builder.call(function, [entries, value])


def _shuffled(frame: Frame, value: Value, table: Table, lanes: int) -> Value:
    """A table of several registers: pairs of them, then the half that the next bit says."""
    builder = frame.builder
    function = declare(builder.module, f"llvm.x86.avx512.vpermi2var.qi.{8 * lanes}", value.type, [value.type] * 3)
    parts = [vector_constant(BYTE, table[n : n + lanes].tolist()) for n in range(0, len(table), lanes)]
    found = [builder.call(function, [low, value, high]) for low, high in zip(parts[::2], parts[1::2])]
    bit = 2 * lanes
    while len(found) > 1:
        upper = builder.icmp_unsigned("!=", builder.and_(value, constant(value.type, bit)), constant(value.type, 0))
        found = [builder.select(upper, high, low) for low, high in zip(found[::2], found[1::2])]
        bit *= 2
    return found[0]


NEEDS: dict[str, Callable[[Table], Any]] = {
    "vpandd": _kept_bits,
    "vgf2p8affineqb": _matrix,
    "vpermb": lambda table: table if len(table) <= 64 else None,
    "vpermi2b": lambda table: table,
}
EMIT: dict[str, Callable[[Frame, Value, Table], Value]] = {
    "vpandd": _and,
    "vgf2p8affineqb": _affine,
    "vpermb": _table_of_64,
    "vpermi2b": lambda frame, value, table: _shuffled(frame, value, table, lanes_of(value)),
}
