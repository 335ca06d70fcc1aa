"""A `Signature` as bytes: MessagePack of tagged, typed records, decoded strictly; no pickle, nothing is ever executed.

Only what a signature can hold has a record: params, and the expressions of their shapes (which load nothing).
MessagePack rather than JSON because a default may be inf or nan.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from tridsl.backend import Signature
from tridsl.dtypes import DTYPES
from tridsl.ir.expr import Binary, BinaryOp, Call, Cast, Const, Node, Select, Unary, UnaryOp, Var
from tridsl.ir.op import Role, Scalar, Tensor


class ConstRecord(msgspec.Struct, frozen=True, array_like=True, tag="const", forbid_unknown_fields=True):
    value: bool | int | float
    dtype: str


class VarRecord(msgspec.Struct, frozen=True, array_like=True, tag="var", forbid_unknown_fields=True):
    name: str
    dtype: str


class UnaryRecord(msgspec.Struct, frozen=True, array_like=True, tag="unary", forbid_unknown_fields=True):
    op: UnaryOp
    a: ExprRecord
    dtype: str


class BinaryRecord(msgspec.Struct, frozen=True, array_like=True, tag="binary", forbid_unknown_fields=True):
    op: BinaryOp
    a: ExprRecord
    b: ExprRecord
    dtype: str


class SelectRecord(msgspec.Struct, frozen=True, array_like=True, tag="select", forbid_unknown_fields=True):
    condition: ExprRecord
    a: ExprRecord
    b: ExprRecord
    dtype: str


class CastRecord(msgspec.Struct, frozen=True, array_like=True, tag="cast", forbid_unknown_fields=True):
    a: ExprRecord
    dtype: str


class CallRecord(msgspec.Struct, frozen=True, array_like=True, tag="call", forbid_unknown_fields=True):
    function: str
    args: tuple[ExprRecord, ...]
    dtype: str


ExprRecord: TypeAlias = ConstRecord | VarRecord | UnaryRecord | BinaryRecord | SelectRecord | CastRecord | CallRecord


class TensorRecord(msgspec.Struct, frozen=True, array_like=True, tag="tensor", forbid_unknown_fields=True):
    name: str
    dtype: str
    shape: tuple[ExprRecord, ...]
    role: Role
    length: str | None
    strides: tuple[ExprRecord, ...] | None
    layout: str


class ScalarRecord(msgspec.Struct, frozen=True, array_like=True, tag="scalar", forbid_unknown_fields=True):
    name: str
    dtype: str
    const: bool
    default: ConstRecord | None


class SignatureRecord(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    params: tuple[TensorRecord | ScalarRecord, ...]
    sizes: tuple[str, ...]
    messages: tuple[str, ...]


_RECORDS: dict[type, type[msgspec.Struct]] = {
    Const: ConstRecord, Var: VarRecord, Unary: UnaryRecord, Binary: BinaryRecord, Select: SelectRecord,
    Cast: CastRecord, Call: CallRecord, Tensor: TensorRecord, Scalar: ScalarRecord,
}  # fmt: skip
_NODES: dict[type[msgspec.Struct], type] = {record: node for node, record in _RECORDS.items()}


def to_record(signature: Signature) -> SignatureRecord:
    """Raises TypeError for an expression that no signature may hold (a `Load`)."""
    return SignatureRecord(
        params=tuple(_to_record(param) for param in signature.params),
        sizes=signature.sizes,
        messages=signature.messages,
    )


def from_record(record: SignatureRecord) -> Signature:
    """Raises KeyError for an unknown dtype."""
    return Signature(
        params=tuple(_from_record(param) for param in record.params), sizes=record.sizes, messages=record.messages
    )


def _to_record(node: Node) -> Any:
    record = _RECORDS.get(type(node))
    if record is None:
        raise TypeError(f"a signature holds no {type(node).__name__}")
    return record(*(_write(name, getattr(node, name)) for name in record.__struct_fields__))


def _write(name: str, value: Any) -> Any:
    if name == "dtype":
        return value.name
    if isinstance(value, tuple):
        return tuple(_write("", item) for item in value)
    return _to_record(value) if isinstance(value, Node) else value


def _from_record(record: msgspec.Struct) -> Any:
    fields = {name: _read(name, getattr(record, name)) for name in record.__struct_fields__}
    return _NODES[type(record)](**fields)


def _read(name: str, value: Any) -> Any:
    if name == "dtype":
        return DTYPES[value]
    if isinstance(value, tuple):
        return tuple(_read("", item) for item in value)
    return _from_record(value) if isinstance(value, msgspec.Struct) else value
