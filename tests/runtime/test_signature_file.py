"""Signatures survive the way to disk and back, exactly."""

from __future__ import annotations

import math

import msgspec
import pytest

from tridsl.backend import Signature
from tridsl.dtypes import BF16, BOOL, DTYPES, F32, I64
from tridsl.ir.expr import Call, Cast, Const, Load, Select, Unary, Var, add, binary, ceildiv, index, mul
from tridsl.ir.op import Scalar, Tensor
from tridsl.runtime.signature_file import SignatureRecord, from_record, to_record

N, M = Var(name="N"), Var(name="M")


def round_trip(signature: Signature) -> Signature:
    data = msgspec.msgpack.encode(to_record(signature))
    return from_record(msgspec.msgpack.decode(data, type=SignatureRecord))


def test_every_kind_of_param_and_expression() -> None:
    strange = Select(
        condition=binary("lt", N, M),
        a=Cast(a=Call(function="sqrt", args=(Cast(a=N, dtype=F32),), dtype=F32), dtype=I64),
        b=Unary(op="neg", a=M, dtype=I64),
        dtype=I64,
    )
    signature = Signature(
        params=(
            Tensor(name="x", dtype=BF16, shape=(add(N, index(2)), ceildiv(M, index(16)), strange)),
            Tensor(name="s", dtype=F32, shape=(N,), role="inout", length="s.len", strides=(mul(N, index(-1)),), layout="t16"),
            Tensor(name="z", dtype=I64, shape=(), role="output"),
            Scalar(name="eps", dtype=F32, default=Const(value=1e-5, dtype=F32)),
            Scalar(name="causal", dtype=BOOL, const=True, default=Const(value=False, dtype=BOOL)),
            Scalar(name="limit", dtype=F32, default=Const(value=-math.inf, dtype=F32)),
        ),
        sizes=("N", "M"),
        messages=("index out of range in `x[i]`",),
    )
    again = round_trip(signature)
    assert again == signature
    assert type(again.params[3].default.value) is float and again.params[4].default.value is False  # type: ignore[union-attr]


@pytest.mark.parametrize("name", list(DTYPES))
def test_every_dtype(name: str) -> None:
    signature = Signature(params=(Tensor(name="x", dtype=DTYPES[name], shape=()),), sizes=())
    assert round_trip(signature) == signature


def test_loads_are_refused() -> None:
    load = Load(tensor="x", index=(), dtype=I64)
    with pytest.raises(TypeError, match="Load"):
        to_record(Signature(params=(Tensor(name="x", dtype=F32, shape=(load,)),), sizes=()))


@pytest.mark.parametrize("field", [b"\x93\x90\x90", b"\x93\x91\x91\xa4evil\x90\x90", b"\x90"])
def test_decoding_is_strict(field: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        msgspec.msgpack.decode(field, type=SignatureRecord)
