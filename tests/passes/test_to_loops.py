"""One phase a stage, one loop an axis, in the order of the text."""

from __future__ import annotations

from tests.passes.golden import SOFTMAX, body

EXCLUSIVE_SCAN = """op f(x: i32[R, N]) -> y: i32[R, N] {
  y[r, n] = scan sum[n; exclusive](x[r, n])
}
"""
COMPACTION = """op f(x: i32[N]) -> y: i32[..N] {
  y = compact[i](x[i] * 2, x[i] > 0)
}
"""
UPDATE_OF_A_PART = """op f(inout c: i32[T, D], x: i32[S, D]) where S <= T {
  c[t in 0..S, d] = x[t, d]
}
"""
NARROW_FLOATS = """op f(x: f16[N]) -> y: f16[N] {
  y[i] = f16(x[i] * x[i])
}
"""

THE_SAME_EACH_TIME = """op f(x: i32[R], y: i32[N]) -> (least: i32[R], total: i32[R]) {
  least[r] = min[n in 0..N](x[r])
  total[r] = sum[n in 0..N](x[r])
}
"""


def test_softmax() -> None:
    assert body("loops", SOFTMAX) == """\
alloc m: f32[R] in global
alloc e: f32[R, N] in global
alloc y.sum: f32[R] in global
phase m
  for r < R
    for n < N reduce
      m[r] max= x[r, n] from -inf
phase e
  for r < R
    for n < N
      e[r, n] = exp(x[r, n] - m[r])
phase y.sum
  for r < R
    for k < N reduce
      y.sum[r] += e[r, k] from 0
phase y
  for r < R
    for n < N
      y[r, n] = e[r, n] / y.sum[r]"""


def test_exclusive_scan() -> None:
    assert body("loops", EXCLUSIVE_SCAN) == """\
for r < R
  alloc y:run.sum: i32 in reg
  y:run.sum[] = 0
  for n < N carried
    y[r, n] = y:run.sum[]
    y:run.sum[] += x[r, n]"""


def test_compaction() -> None:
    assert body("loops", COMPACTION) == """\
y.len[] = 0
for i < N carried
  append y[y.len[]++] = x[i] * 2 if x[i] > 0"""


def test_update_of_a_part() -> None:
    assert body("loops", UPDATE_OF_A_PART) == """\
for t < S
  for d < D
    c[t, d] = x[t, d]"""


def test_narrow_floats() -> None:
    """Arithmetic in the compute type; the store rounds."""
    assert body("loops", NARROW_FLOATS) == """\
for i < N
  y[i] = f32(x[i]) * f32(x[i])"""


def test_a_minimum_of_what_does_not_change_is_taken_once() -> None:
    assert body("loops", THE_SAME_EACH_TIME) == """\
phase least
  for r < R
    for n < min(N, 1) reduce
      least[r] min= x[r] from highest
phase total
  for r < R
    for n < N reduce
      total[r] += x[r] from 0"""
