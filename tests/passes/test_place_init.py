"""What stays in memory gets the identity before the outermost reduce loop."""

from __future__ import annotations

from tests.passes.golden import ROWS, body

SEVERAL_STATES = """op f(x: i32[R, N]) -> y: i64[R] {
  y[r] = argmax[n](x[r, n])
}
"""


def test_rows() -> None:
    assert body("place_init", ROWS, "y.order(n, r)") == """\
for r.start < R
  y[r.start] = 0
for n < N reduce
  for r < R
    y[r] += x[r, n]"""


def test_several_states() -> None:
    assert body("place_init", SEVERAL_STATES, "y.argmax.order(n, r)") == """\
monoid argmax(value: i32 = lowest, index: i64 = highest)
  value = if b.value > a.value or a.value == b.value and b.index < a.index then b.value else a.value
  index = if b.value > a.value or a.value == b.value and b.index < a.index then b.index else a.index
alloc y.argmax.value: i32[R] in global
alloc y.argmax.index: i64[R] in global
phase y.argmax
  for r.start < R
    y.argmax.value[r.start] = lowest
    y.argmax.index[r.start] = highest
  for n < N reduce
    for r < R
      y.argmax.value[r], y.argmax.index[r] argmax= x[r, n], n
phase y
  for r < R
    y[r] = y.argmax.index[r]"""
