"""Loops are split where clamps and masks change."""

from __future__ import annotations

from tests.passes.golden import body

STENCIL = """op f(x: f32[H, N]) -> y: f32[H, N] {
  y[h, i] = x[h, i - 1; pad=edge] + x[h, i + 1; pad=edge]
}
"""
MASKS = """op f(x: f32[H, N]) -> y: f32[H, N] {
  y[h, i] = x[h, i - 1; pad=0]
}
"""


def test_stencil() -> None:
    assert body("finish", STENCIL, "y.vector(i)", sizes={"H": 2, "N": 128}) == """\
for h < 2
  vector i.w.first < 16
    y[h, i.w.first] = x[h, max(i.w.first - 1, 0)] + x[h, i.w.first + 1]
  for i.v < 6
    vector i.w < 16
      y[h, i.v*16 + i.w + 16] = x[h, i.v*16 + i.w + 15] + x[h, i.v*16 + i.w + 17]
  vector i.w.last < 16
    y[h, i.w.last + 112] = x[h, i.w.last + 111] + x[h, min(i.w.last + 113, 127)]"""


def test_masks() -> None:
    assert body("finish", MASKS, "y.vector(i)", sizes={"H": 2, "N": 96}) == """\
for h < 2
  vector i.w.first < 16
    y[h, i.w.first] = if i.w.first - 1 >= 0 then x[h, i.w.first - 1] else 0
  for i.v < 5
    vector i.w < 16
      y[h, i.v*16 + i.w + 16] = x[h, i.v*16 + i.w + 15]"""


def test_a_clamp_inside_another() -> None:
    """A window is clamped at both ends: `max(min(j + b - 1, N - 1), 0)` is `j + b - 1` but in the first and the last tile."""
    text = "op f(x: f32[N]) -> y: f32[N] { y[i] = sum[b in 0..3](x[i + b - 1; pad=edge]) }"
    found = body("finish", text, "y.split(i, 32).order(i.o, b, i.i).unroll(b).vector(i.i)", sizes={"N": 256})
    clamped = [line.strip() for line in found.splitlines() if "+= x[" in line]
    assert len(clamped) == 3 and [line.count("m") > line.count("sum") for line in clamped].count(True) == 2, found
