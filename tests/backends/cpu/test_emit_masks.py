"""Idle lanes: what they may read, and what LLVM makes of masks that it can see through."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.cpu import kernels as k
from tests.differential.guarded import Guarded
from tridsl.dtypes import BF16, BOOL, I16, I32, NUMPY_TYPES, U8, DType
from tridsl.ir.expr import Cast, Const, Expr, Load, Var, index, minimum, sub

N = Var(name="N")


@pytest.mark.parametrize("dtype", [BF16, I16, U8, I32], ids=str)
@pytest.mark.parametrize("high", [False, True])
def test_one_lane_stores_one_element(dtype: DType, high: bool) -> None:
    """for i < N: vector w < min(1, N - i) of 16: y[i + w] = x[i + w]: a masked store in which LLVM sees that one lane is on."""
    i, w = Var(name="y:i"), Var(name="y:w")
    place = k.op("add", i, w)
    wide: Expr = k.load("x", dtype, place)
    if dtype == I32:  # from 64 bits
        wide = Cast(a=Cast(a=wide, dtype=k.I64), dtype=I32)
    body = k.loop("y:w", minimum(index(1), sub(N, i)), k.store("y", place, value=wide), kind="vector", bound=16)
    kernel = k.kernel("one", (k.tensor("x", dtype, "N"), k.tensor("y", dtype, "N", role="output")), k.loop("y:i", N, body), sizes=("N",))
    x, y = (Guarded((5,), (1,), NUMPY_TYPES[dtype], high=high) for _ in range(2))
    x.array[:] = np.arange(5).astype(NUMPY_TYPES[dtype])
    k.compiled(kernel, k.host())([x.array, y.array, 5], 1)
    assert (x.array == y.array).all() and y.untouched()
    x.close()
    y.close()


def test_a_buffer_that_is_no_whole_number_of_registers() -> None:
    """33 flags in registers, written by one masked vector of 64 lanes: the idle lanes have no room and stay out."""
    i, z, r = Var(name="y:i"), Var(name="y:z"), Var(name="y:r")
    any_of = k.reducer("or", BOOL, False)
    greater = k.op("gt", Load(tensor="x", index=(i,), dtype=I32), Const(value=0, dtype=I32))
    flag = Load(tensor="acc", index=(z,), dtype=BOOL)
    kernel = k.kernel(
        "flags",
        (k.tensor("x", I32, 33), k.tensor("y", BOOL, 33, role="output")),
        k.buffer("acc", BOOL, 33, padded=(True,)),
        k.loop("y:r", 33, k.store("acc", r, value=Const(value=False, dtype=BOOL)), kind="vector", bound=64),
        k.loop("y:i", 33, k.accumulate(k.ref("acc", i), any_of, greater), kind="vector", bound=33),
        k.loop("y:z", 33, k.store("y", z, value=flag), kind="vector", bound=64),
    )
    k.agrees(kernel, {"x": np.arange(-16, 17, dtype=np.int32)})


@pytest.mark.parametrize("lanes", [1, 16])
def test_what_no_lane_takes_part_in_is_not_combined(lanes: int) -> None:
    """for j < 8: vector w < lanes: y[j] |= x[w] > 0 if j < N: of 5 elements there is no sixth. (A byte that is no flag would become one.)"""
    j, w = Var(name="y:j"), Var(name="y:w")
    greater = k.op("gt", Load(tensor="x", index=(w,), dtype=I32), Const(value=0, dtype=I32))
    statement = k.accumulate(k.ref("y", j), k.reducer("or", BOOL, False), greater, mask=k.op("lt", j, N))
    body = k.loop("y:j", 8, k.loop("y:w", lanes, statement, kind="vector", bound=lanes))
    start = k.loop("y:s", N, k.store("y", Var(name="y:s"), value=Const(value=False, dtype=BOOL)))
    kernel = k.kernel("any_of", (k.tensor("x", I32, 16), k.tensor("y", BOOL, "N", role="output")), start, body, sizes=("N",))
    x, y = np.arange(1, 17, dtype=np.int32), Guarded((5,), (1,), np.dtype(np.bool_), high=False)
    k.compiled(kernel, k.host())([x, y.array, 5], 1)
    assert y.array.all() and y.untouched()
    y.close()
