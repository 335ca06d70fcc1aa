"""Tiles of sums that no reader asks for are not computed."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl
from tests.passes.golden import body
from tests.schedule.programs import CPU, check_same, op_of, steps_of

OP = """op f(A: i32[N, K], B: i32[M, K], c: i32[N, M]) -> y: i32[N, M] {{
  s[i, j] = sum[k](A[i, k] * B[j, k])
  y[i, j] = {0}
}}
"""
TILE = "s.split(i, 4).split(j, 8).order(i.o, j.o, k, i.i, j.i).unroll(i.i).vector(j.i)"
SIZES = {"N": 20, "M": 24, "K": 3}


@pytest.mark.parametrize(
    ("value", "condition"),
    [
        ("if j <= i then 2 * s[i, j] else c[i, j]", "if j.o*8 - i.o*4 - 3 <= 0"),
        ("if j > i + 2 then s[i, j] else 0", "if j.o*8 - i.o*4 + 5 > 0"),  # 7 of the tile's columns, less 2
        ("if i + j < 9 then s[i, j] else c[i, j]", "if i.o*4 + j.o*8 - 9 < 0"),
        ("if c[i, j] > 0 then 1 else if i >= j then s[i, j] else 7", "if i.o*4 - j.o*8 + 3 >= 0"),
    ],
)
def test_the_part_that_is_read(value: str, condition: str) -> None:
    text = OP.format(value)
    found = body("unread_tiles", text, TILE, sizes=SIZES)
    assert condition in found, found
    check_same(op_of(text), steps_of(op_of(text), TILE, CPU), SIZES)


@pytest.mark.parametrize(
    "value",
    [
        "if j <= i then c[i, j] else 2 * s[i, j]",  # the other branch
        "if j <= i then s[i, j] else s[i, j] + 1",
        "if c[i, j] > 0 then s[i, j] else 0",  # not of the place
        "if i * j < 9 then s[i, j] else 0",
        "(if j <= i then s[i, j] else 0) + (if j < i then s[i, j] else 0)",  # two halves
    ],
)
def test_all_of_it_where_that_may_be_read(value: str) -> None:
    text = OP.format(value)
    assert "if j.o" not in (found := body("unread_tiles", text, TILE, sizes=SIZES)) and "if i.o" not in found
    check_same(op_of(text), steps_of(op_of(text), TILE, CPU), SIZES)


def test_results_are_whole() -> None:
    text = "op f(A: i32[N, K]) -> (s: i32[N, N], y: i32[N, N]) {\n s[i, j] = sum[k](A[i, k] * A[j, k])\n y[i, j] = if j <= i then s[i, j] else 0\n}\n"
    assert "if j.o" not in body("unread_tiles", text, TILE, sizes={"N": 20, "K": 3})


@pytest.mark.parametrize("n", [97, 200])
def test_half_of_a_symmetric_product(n: int) -> None:
    text = """op f(A: i32[N, K], B: i32[N, K], C: i32[N, N]) -> D: i32[N, N] {
  D[i, j] = if j <= i then 2 * sum[k](A[j, k] * B[i, k] + B[j, k] * A[i, k]) + C[i, j] else C[i, j]
}
"""
    rng = np.random.default_rng(n)
    A, B, C = (rng.integers(-9, 9, shape).astype(np.int32) for shape in ((n, 50), (n, 50), (n, n)))
    want = np.where(np.tri(n, dtype=bool), 2 * (A @ B.T + B @ A.T) + C, C)
    np.testing.assert_array_equal(tridsl.compile(text).f(A, B, C), want)
