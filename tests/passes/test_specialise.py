"""What a call fixed becomes constant; what it did not stays an argument."""

from __future__ import annotations

from tests.passes.golden import ROWS, body

CONST_PARAMETER = """op f(x: f32[N], const s: i32) -> y: f32[N // s] where s > 0 {
  y[i] = x[i * s] * f32(s)
}
"""


def test_known_size_and_strides() -> None:
    assert body("specialise", ROWS, sizes={"N": 64}, strides=(("x", (1, 64)),)) == """\
for r < R
  for n < 64 reduce
    y[r] += x[r, n] from 0"""


def test_const_parameter() -> None:
    """In an index it is i64, elsewhere of its own type."""
    assert body("specialise", CONST_PARAMETER, constants=(("s", 2),)) == """\
for i < N // 2
  y[i] = x[i*2] * f32(2)"""
