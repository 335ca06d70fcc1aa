"""Frozen values as bytes and back, for what the call layer keeps on disk: only the classes of a table, never code.

A class is written as a map of one entry, its name to its fields in order; a tuple as an array; `DType` by its name.
Spans are not kept.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import msgspec

from tridsl.api import signatures
from tridsl.dtypes import DTYPES, DType
from tridsl.ir import expr, op
from tridsl.structs import declared

T = TypeVar("T")

CLASSES: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        expr.Const, expr.Var, expr.Boundary, expr.Load, expr.Unary, expr.Binary, expr.Select, expr.Cast, expr.Call,
        op.Tensor, op.Scalar, op.Contract, op.Op,
        signatures.Parameter, signatures.TypeChoice, signatures.Overload, signatures.OpSummary, signatures.ModuleSummary,
    )
}  # fmt: skip


def to_bytes(value: Any) -> bytes:
    """`value`: classes of `CLASSES`, tuples, element types and plain values. The same value gives the same bytes."""
    return msgspec.msgpack.encode(_plain(value))


def from_bytes(record: bytes, kind: type[T]) -> T:
    """The `kind` that `to_bytes` was given. Raises ValueError for anything it cannot have written."""
    try:
        value = _value(msgspec.msgpack.decode(record))
        if not isinstance(value, kind):
            raise TypeError(f"a record of {type(value).__name__}, not {kind.__name__}")
        return value
    except (msgspec.DecodeError, KeyError, TypeError) as problem:
        raise ValueError(f"not a record: {problem}") from None


@cache
def _fields(kind: type) -> tuple[str, ...]:
    named: tuple[str, ...] | None = getattr(kind, "_fields", None)  # of a named tuple
    return tuple(name for name in declared(kind) if name != "span") if named is None else named


def _plain(value: Any) -> Any:
    kind = type(value).__name__
    if kind in CLASSES:  # before tuples: signatures are named tuples
        return {kind: [_plain(getattr(value, name)) for name in _fields(CLASSES[kind])]}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return {"DType": value.name} if isinstance(value, DType) else value


def _value(plain: Any) -> Any:
    if isinstance(plain, list):
        return tuple(_value(item) for item in plain)
    if isinstance(plain, dict):
        ((kind, content),) = plain.items()
        if kind == "DType":
            return DTYPES[content]
        names = _fields(CLASSES[kind])
        if len(names) != len(content):
            raise TypeError(f"{kind} has {len(names)} fields, the record {len(content)}")
        return CLASSES[kind](**{name: _value(item) for name, item in zip(names, content)})
    return plain
