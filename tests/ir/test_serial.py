"""Kernels survive JSON, and nothing else does."""

from __future__ import annotations

import json
import math

import pytest

from tests.ir import handmade as h
from tridsl.dtypes import F32
from tridsl.ir import loop
from tridsl.ir.expr import Boundary, Const, Var, index
from tridsl.ir.op import Op
from tridsl.ir.serial import from_json, to_json


def kernel() -> loop.Kernel:
    i = Var(name="C:i")
    load = h.load("x", i, boundary=Boundary(mode="value", value=Const(value=-math.inf, dtype=F32)))
    body = loop.For(
        var="C:i", extent=index(8), bound=8, kind="lane", binding="lane.x",
        body=(loop.Barrier(), loop.Store(target=loop.Ref(tensor="y", index=(i,)), value=load)),
    )  # fmt: skip
    buffer = loop.Buffer(name="t", dtype=F32, shape=(index(4),), space="shared", padded=(True,))
    return loop.Kernel(
        name="k",
        params=(h.tensor("x", "N"), h.tensor("y", 8, role="output")),
        sizes=("N",),
        phases=(loop.Phase(name="p", body=(loop.Alloc(buffer=buffer), body)),),
    )


def test_round_trip() -> None:
    assert from_json(to_json(kernel()), loop.Kernel) == kernel()
    for op in (h.matmul(), h.attention()):
        assert from_json(to_json(op), Op) == op


def test_nan_and_signed_zero_survive() -> None:
    assert math.isnan(from_json(to_json(Const(value=math.nan, dtype=F32)), Const).value)
    assert math.copysign(1, from_json(to_json(Const(value=-0.0, dtype=F32)), Const).value) == -1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("node",), "Popen"), (("name",), 3), (("sizes",), ["N", 3]), (("phases",), "p"), (("extra",), 1), (("params", 0, "dtype"), {"dtype": "f31"}),
        (("params", 0, "role"), "owner"), (("phases", 0, "body", 1, "bound"), True), (("phases", 0, "body", 1, "extent", "value"), {"float": "x"}),
        (("phases", 0, "body", 1, "extent"), None), (("phases", 0, "body", 1), {"node": "Const", "value": 1, "dtype": {"dtype": "f32"}}),
        (("phases", 0, "body", 1, "kind"), "warp"),
    ],
)  # fmt: skip
def test_other_shapes_are_refused(path: tuple[str | int, ...], value: object) -> None:
    data = json.loads(to_json(kernel()))
    place = data
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(ValueError):
        from_json(json.dumps(data), loop.Kernel)


@pytest.mark.parametrize(
    "data", [b"", b"[", b"null", b"[]", b'{"node":"Const"}', b'{"node":["Const"]}', b"\xff\x00", b"[" * 100_000]
)
def test_garbage_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        from_json(data, loop.Kernel)


def test_the_class_asked_for_is_the_class_given() -> None:
    with pytest.raises(ValueError, match="not a Kernel"):
        from_json(to_json(index(3)), loop.Kernel)
