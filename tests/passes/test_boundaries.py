"""Boundary modes become index maps and masks."""

from __future__ import annotations

from tests.passes.golden import body

PAD_EDGE = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i - 1; pad=edge]
}
"""
PAD_REFLECT = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i - 1; pad=reflect]
}
"""
PAD_SYMMETRIC = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i - 1; pad=symmetric]
}
"""
PAD_WRAP = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i - 1; pad=wrap]
}
"""
PAD_2 = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i - 1; pad=2]
}
"""
RAISE = """op f(t: f32[V, D], ids: i32[N]) -> y: f32[N, D] {
  y[n, d] = t[ids[n], d]
}
"""


def test_pad_edge() -> None:
    assert body("boundaries", PAD_EDGE) == """\
for i < N
  y[i] = x[max(min(i - 1, N - 1), 0)]"""


def test_pad_reflect() -> None:
    assert body("boundaries", PAD_REFLECT) == """\
for i < N
  y[i] = x[if (i - 1) % (2*(N - 1)) < N then (i - 1) % (N*2 - 2) else N*2 - (i - 1) % (N*2 - 2) - 2]"""


def test_pad_symmetric() -> None:
    assert body("boundaries", PAD_SYMMETRIC) == """\
for i < N
  y[i] = x[if (i - 1) % (2*N) < N then (i - 1) % (N*2) else N*2 - (i - 1) % (N*2) - 1]"""


def test_pad_wrap() -> None:
    assert body("boundaries", PAD_WRAP) == """\
for i < N
  y[i] = x[(i - 1) % N]"""


def test_pad_2() -> None:
    assert body("boundaries", PAD_2) == """\
for i < N
  y[i] = if i - 1 >= 0 and i - 1 < N then x[i - 1] else 2"""


def test_raise() -> None:
    assert body("boundaries", RAISE) == """\
message 0: an index into `t` lies outside its shape
for n < N
  for d < D
    check i64(ids[n]) >= 0 and i64(ids[n]) < V and d >= 0 and d < D else message 0
    y[n, d] = if i64(ids[n]) >= 0 and i64(ids[n]) < V and d >= 0 and d < D then t[i64(ids[n]), d] else 0"""
