"""What lanes keep of a reduction gives the reducer's own answer: NaN, ties, rows of the identity, any length."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import tridsl
from tests.passes.golden import body

OPS = """op extremes[T in {f32, f64, f16, bf16, i32}](x: T[R, N]) -> (high: T[R], low: T[R], top: i64[R], bottom: i64[R]) {
  high[r]   = max[n](x[r, n])
  low[r]    = min[n](x[r, n])
  top[r]    = argmax[n](x[r, n])
  bottom[r] = argmin[n](x[r, n])
}
op within(x: f32[N], const A: i32, const B: i32) -> (i: i64) {
  i = argmax[n in A..B](x[n; pad=edge])
}
"""
MAXIMA = """op f(x: f32[N]) -> m: f32 {
  m = max[n](x[n])
}
"""


def rows(kind: str, columns: int) -> np.ndarray:
    """Ties everywhere, rows of one value (both infinities too), a NaN first, last, in the middle, twice and throughout."""
    dtype = {"bf16": np.float32, "f16": np.float16, "f32": np.float32, "f64": np.float64, "i32": np.int32}[kind]
    x = np.random.default_rng(columns).integers(-4, 5, (12, columns)).astype(dtype)
    x[1], x[2] = 3, -3
    if kind != "i32":
        x[3], x[4] = np.inf, -np.inf
        for row, places in enumerate(([0], [-1], [columns // 2], [columns // 3, -1], slice(None)), 5):
            x[row, places] = np.nan
        x[10, columns // 2], x[11, columns // 2] = np.inf, -np.inf
    return x


@pytest.mark.parametrize("kind", ["f32", "f64", "f16", "i32"])
@pytest.mark.parametrize("columns", [1, 2, 15, 16, 17, 40, 127, 128, 129, 1000])
def test_extremes_and_where_they_are(kind: str, columns: int) -> None:
    x = rows(kind, columns)
    got = tridsl.compile(OPS).extremes(x)
    for found, wanted in zip(got, (x.max(1), x.min(1), x.argmax(1), x.argmin(1)), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_a_part_of_the_row() -> None:
    ops: Any = tridsl.compile(OPS)
    for columns in (9, 50, 400):
        low, high = columns // 3, columns - columns // 4
        for row in rows("f32", columns):
            assert ops.within(row, low, high) == low + row[low:high].argmax()


def test_whether_a_nan_was_seen_is_shared_by_copies() -> None:
    text = body("strip_vectors", MAXIMA, "m.vector(n)", sizes={"N": 512})
    assert "alloc m:n.part.extreme: f32[4, 16] in reg padded" in text
    assert "alloc m:n.part.ordered: bool[2, 16] in reg padded" in text
    assert "max= if m:n.part.ordered[0, n.part.x] then m:n.part.extreme[0, n.part.x] else nan" in text
