"""Elementwise loops begin where their stores are aligned, whatever the array's place, and nothing outside the array is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tridsl
from tests.passes.golden import body

TWICE = """op f(x: f32[R, N]) -> y: f32[R, N] {
  y[r, n] = x[r, n] * 2
}
"""
OPS = """op rows[T in {f32, f64, f16, i8}](x: T[R, N], s: T[R]) -> y: T[R, N] {
  y[r, n] = x[r, n] - s[r]
}
op shifted(x: f32[R, N]) -> y: f32[R, N] {
  y[r, n] = x[r, n; pad=edge] + x[r, n + 1; pad=edge]
}
schedule shifted for cpu {
  y.vector(n)
}
"""


def test_the_first_lanes_are_done_apart() -> None:
    assert body("finish", TWICE, "y.vector(n)", sizes={"N": 256}) == """\
for r < R
  vector n.w.h < lead(y, 16) bound 16
    y[r, n.w.h] = x[r, n.w.h] * 2
  for n.v < lead(y, 16)*-1 // 16 + 16 bound 16
    vector n.w < 16
      y[r, lead(y, 16) + n.v*16 + n.w] = x[r, lead(y, 16) + n.v*16 + n.w] * 2
  for n.t.r < (lead(y, 16)*-1 // 16)*-1 bound 1
    vector n.w.r < (lead(y, 16)*-1 // 16)*-16 - lead(y, 16) - n.t.r*16 bound 16
      y[r, (lead(y, 16)*-1 // 16)*16 + lead(y, 16) + n.t.r*16 + n.w.r + 256] = x[r, (lead(y, 16)*-1 // 16)*16 + lead(y, 16) + n.t.r*16 + n.w.r + 256] * 2"""


def test_rows_of_any_length_have_leads_of_their_own() -> None:
    assert "vector n.w.h < (lead(y, 16) - r*260) % 16" in body("strip_vectors", TWICE, "y.vector(n)", sizes={"N": 260})


@pytest.mark.parametrize("size", [16, 255])
def test_short_rows_have_none(size: int) -> None:
    assert "lead" not in body("strip_vectors", TWICE, "y.vector(n)", sizes={"N": size})


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "i8"])
@pytest.mark.parametrize("columns", [256, 300, 1024, 1031])
def test_any_place(kind: str, columns: int) -> None:
    ops: Any = tridsl.compile(OPS)
    dtype = np.dtype({"f32": "f4", "f64": "f8", "f16": "f2", "i8": "i1"}[kind])
    rng = np.random.default_rng(columns)
    x, s = rng.integers(-9, 9, (3, columns)).astype(dtype), np.arange(3).astype(dtype)
    for offset in (0, 1, 5, 12, 15, 16, 31):
        memory = np.full(x.size + 200, 77, dtype)
        y = memory[offset : offset + x.size].reshape(x.shape)
        ops.rows(x, s, out=y)
        np.testing.assert_array_equal(y, x - s[:, None])
        assert (memory[:offset] == 77).all() and (memory[offset + x.size :] == 77).all()


def test_clamped_reads_keep_their_long_middle() -> None:
    ops: Any = tridsl.compile(OPS)
    x = np.random.default_rng(0).integers(-9, 9, (4, 777)).astype(np.float32)
    np.testing.assert_array_equal(ops.shifted(x), x + np.concatenate([x[:, 1:], x[:, -1:]], 1))
    assert "lead" not in ops.shifted.lower(x, device="cpu", until="finish")


@pytest.mark.parametrize(("columns", "led"), [(159, False), (160, True)])
def test_rows_that_are_widened_have_leads_sooner(columns: int, led: bool) -> None:
    ops: Any = tridsl.compile("op widened(x: i8[M, N], s: f32[N]) -> y: f32[M, N] { y[i, j] = f32(x[i, j]) * s[j] }")
    x, s = np.arange(3 * columns, dtype=np.int8).reshape(3, columns), np.arange(columns).astype(np.float32)
    assert ("lead" in ops.widened.lower(x, s, device="cpu", until="finish")) is led
    np.testing.assert_array_equal(ops.widened(x, s), x.astype(np.float32) * s)
