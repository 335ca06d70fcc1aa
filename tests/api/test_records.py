"""Records give back what was written, and nothing else is accepted."""

import math

import msgspec
import pytest

from tridsl.api import records
from tridsl.api.signatures import ModuleSummary, OpSummary, Overload, Parameter, TypeChoice
from tridsl.dtypes import BOOL, F32, I32
from tridsl.ir.expr import Binary, Const, Var, index
from tridsl.ir.op import Contract, Op, Scalar, Tensor

SIZE = Var(name="N")
HEADER = Op(
    name="f",
    types=(("T", F32),),
    params=(
        Tensor(
            name="x",
            dtype=F32,
            shape=(SIZE, Binary(op="mul", a=SIZE, b=index(2), dtype=SIZE.dtype)),
            strides=(index(-1), index(0)),
        ),
        Scalar(name="eps", dtype=F32, default=Const(value=math.inf, dtype=F32)),
        Scalar(name="k", dtype=I32, const=True),
        Tensor(name="y", dtype=F32, shape=(SIZE,), role="output", length="y.len"),
    ),
    sizes=("N",),
    stages=(),
    contracts=(Contract(condition=Binary(op="ge", a=SIZE, b=index(1), dtype=BOOL), message="N >= 1"),),
    dynamic=("N",),
)
SUMMARY = ModuleSummary(
    ops=(
        OpSummary(
            name="f",
            overloads=(
                Overload(
                    parameters=(Parameter(name="x", text="x: T[N]", dtype="T", role="input", rank=1),),
                    results=("y: T[N]",),
                    result_names=("y",),
                    types=(TypeChoice(name="T", choices=("f32", "f16"), default=None),),
                    text="op f…",
                    doc="what it does",
                ),
            ),
        ),
    ),
    uses=(("stdlib", "rmsnorm", "ab12"),),
)


@pytest.mark.parametrize(("value", "kind"), [(HEADER, Op), (SUMMARY, ModuleSummary), ((HEADER, (("x", "y"),)), tuple)])
def test_round_trip(value: object, kind: type) -> None:
    record = records.to_bytes(value)
    assert records.from_bytes(record, kind) == value
    assert records.to_bytes(records.from_bytes(record, kind)) == record


@pytest.mark.parametrize(
    "record",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"Path": ["/"]}),
        msgspec.msgpack.encode({"Op": [1]}),
        msgspec.msgpack.encode(3),
        records.to_bytes(HEADER)[:-3],
    ],
)
def test_anything_else_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="not a record"):
        records.from_bytes(record, Op)
