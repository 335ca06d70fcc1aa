"""Loops inside lanes whose number of iterations differs from lane to lane."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.cpu import kernels as k
from tridsl.dtypes import F32, I32
from tridsl.ir.expr import Var, add, index, minimum, mul, sub

LANE, INNER = Var(name="y:i.o"), Var(name="y:i.i")
POINT = add(mul(LANE, index(4)), INNER)
PARAMS = (k.tensor("x", I32, "N"), k.tensor("y", I32, "N", role="output"))
SIZES = (0, 1, 3, 4, 5, 17, 29, 32)


@pytest.mark.parametrize("kind", ["serial", "unroll"])
@pytest.mark.parametrize("n", SIZES)
def test_tail_of_a_split_inside_lanes(n: int, kind: str) -> None:
    """vector i.o < ceil(N / 4): for i.i < min(4, N - i.o*4): the last lane that is on has the tail."""
    extent = minimum(index(4), sub(Var(name="N"), mul(LANE, index(4))))
    store = k.store("y", POINT, value=k.op("mul", k.load("x", I32, POINT), k.const(3, I32)))
    inner = k.loop("y:i.i", extent, store, kind=kind, bound=4)  # type: ignore[arg-type]
    lanes = k.loop("y:i.o", k.op("floordiv", add(Var(name="N"), index(3)), index(4)), inner, kind="vector", bound=8)
    kernel = k.kernel("uneven", PARAMS, lanes, sizes=("N",))
    k.agrees(kernel, {"x": np.arange(n, dtype=np.int32)}, {"N": n})


@pytest.mark.parametrize("n", SIZES)
def test_sums_of_different_lengths(n: int) -> None:
    """Lane i adds x[0] … x[i]: a triangle, in a register of its own."""
    lane, step = Var(name="y:i"), Var(name="y:k")
    total = k.accumulate(k.ref("s", lane), k.reducer("add", F32, 0.0), k.load("x", F32, step))
    lanes = k.loop(
        "y:i",
        minimum(index(32), Var(name="N")),
        k.store("s", lane, value=k.const(0.0, F32)),
        k.loop("y:k", add(lane, index(1)), total, reduce=True),
        k.store("y", lane, value=k.load("s", F32, lane)),
        kind="vector",
        bound=32,
    )
    params = (k.tensor("x", F32, "N"), k.tensor("y", F32, "N", role="output"))
    kernel = k.kernel("triangle", params, k.buffer("s", F32, 32), lanes, sizes=("N",))
    k.agrees(kernel, {"x": np.arange(n, dtype=np.float32)}, {"N": n})
