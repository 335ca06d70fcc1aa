"""Scans over lanes against the oracle: every type and tail, exclusive, of several states, inside other loops and with masks off."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.cpu.kernels import (
    accumulate,
    agrees,
    buffer,
    const,
    kernel,
    load,
    loop,
    op,
    reducer,
    ref,
    run,
    store,
    tensor,
    values,
)
from tridsl.devices.spec import load_chip
from tridsl.dtypes import BOOL, F32, F64, I16, I32, I64, U8, U32, DType
from tridsl.ir.expr import Expr, Var, add, ceildiv, minimum, mul, sub
from tridsl.ir.loop import Kernel, Stmt
from tridsl.ir.op import Reducer

N = Var(name="N")


def scanned(dtype: DType, combine: Reducer, lanes: int, *, exclusive: bool = False) -> Kernel:
    at: Expr = add(mul(Var(name="o"), const(lanes)), Var(name="v"))
    step = accumulate(ref("s"), combine, load("x", dtype, at))
    out = store("y", at, value=load("s", dtype))
    body: tuple[Stmt, ...] = (out, step) if exclusive else (step, out)
    length = minimum(const(lanes), sub(N, mul(Var(name="o"), const(lanes))))
    vector = loop("v", length, *body, kind="vector", bound=lanes, carried=True)
    blocks = loop("o", ceildiv(N, const(lanes)), vector, carried=True)
    start = store("s", value=const(combine.identity[0].value, dtype))
    params = [tensor("x", dtype, "N"), tensor("y", dtype, "N", role="output")]
    return kernel("scanned", params, buffer("s", dtype), start, blocks, sizes=("N",))


CASES = [(F32, "add", 0.0), (F64, "max", float("-inf")), (I16, "add", 0), (I32, "mul", 1), (U32, "min", (1 << 32) - 1), (I64, "add", 0), (U8, "max", 0), (BOOL, "or", 0)]


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize(("dtype", "name", "identity"), CASES, ids=lambda v: str(v))
def test_scan_of_every_type_and_tail(dtype: DType, name: str, identity: float, exclusive: bool) -> None:
    combine = reducer(name, dtype, identity)
    for lanes in (16, 12):
        what = scanned(dtype, combine, lanes, exclusive=exclusive)
        for length in (0, 1, 15, 16, 17, 53):
            x = (values(F32, length) * 4).round().astype(np.float32) if dtype == F32 else values(dtype, length)
            for chip in (None, load_chip("x86_64_v3")):
                agrees(what, {"x": x}, {"N": length}, spec=chip)


def test_a_nan_stays_once_it_came() -> None:
    x = np.arange(40, dtype=np.float64)
    x[19] = np.nan
    got = run(scanned(F64, reducer("max", F64, float("-inf")), 16), {"x": x}, {"N": 40})["y"]
    np.testing.assert_array_equal(got, np.maximum.accumulate(x))


def test_values_are_computed_in_the_lanes() -> None:
    """The scanned value is an expression, what is stored another one of the running value and the lane."""
    at = Var(name="v")
    step = accumulate(ref("s"), reducer("add", I32, 0), op("mul", load("x", I32, at), const(3, I32)))
    out = store("y", at, value=op("sub", load("s", I32), load("x", I32, at)))
    body = loop("v", 23, step, out, kind="vector", bound=32, carried=True)
    params = [tensor("x", I32, 23), tensor("y", I32, 23, role="output")]
    agrees(kernel("lanes", params, buffer("s", I32), store("s", value=const(0, I32)), body), {"x": values(I32, 23)})
