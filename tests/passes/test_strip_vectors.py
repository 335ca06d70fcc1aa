"""Vector loops of any length become loops over whole registers."""

from __future__ import annotations

from tests.passes.golden import MATMUL, ROWS, SOFTMAX, body

ELEMENTWISE = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i] * 2
}
"""


def test_elementwise() -> None:
    assert body("strip_vectors", ELEMENTWISE, "y.vector(i)") == """\
for i.v < N // 16
  vector i.w < 16
    y[0*16 + i.v*16 + i.w] = x[0*16 + i.v*16 + i.w] * 2
for i.t.r < ceil(N / 16) - N // 16 bound 1
  vector i.w.r < min(16, N - (N // 16)*16 - i.t.r*16)
    y[(N // 16)*16 + i.t.r*16 + i.w.r] = x[(N // 16)*16 + i.t.r*16 + i.w.r] * 2"""


def test_reduction() -> None:
    assert body("strip_vectors", ROWS, "y.vector(n)", sizes={"N": 256}) == """\
for r < R
  alloc y:acc.sum: f32 in reg
  y:acc.sum[] = 0
  alloc y:n.part.sum: f32[8, 16] in reg padded
  unroll n.part.u < 8
    vector n.part.w < 16
      y:n.part.sum[n.part.u, n.part.w] = 0
  for n.v < 2 reduce
    unroll n.u < 8
      vector n.w < 16
        y:n.part.sum[n.u, n.w] += x[r, n.u*16 + n.v*128 + n.w]
  unroll n.part.j4 < 4
    vector n.part.m4 < 16
      y:n.part.sum[n.part.j4, n.part.m4] += y:n.part.sum[n.part.j4 + 4, n.part.m4]
  unroll n.part.j2 < 2
    vector n.part.m2 < 16
      y:n.part.sum[n.part.j2, n.part.m2] += y:n.part.sum[n.part.j2 + 2, n.part.m2]
  unroll n.part.j1 < 1
    vector n.part.m1 < 16
      y:n.part.sum[n.part.j1, n.part.m1] += y:n.part.sum[n.part.j1 + 1, n.part.m1]
  vector n.part.x < 16 reduce
    y:acc.sum[] += y:n.part.sum[0, n.part.x]
  y[r] = y:acc.sum[]"""


def test_a_target_in_each_iteration() -> None:
    """Lanes that add to several results cannot keep partial ones: they are combined in each iteration."""
    assert body("strip_vectors", MATMUL, "C.order(k, i, j).vector(k)", sizes={"M": 3, "N": 1, "K": 32}) == """\
alloc C:acc.sum: f32[3] in l1 padded
for i.zero < 3
  C:acc.sum[i.zero] = 0
for k.v < 2 reduce
  vector k.w < 16 reduce
    for i < 3
      C:acc.sum[i] += A[i, 0*16 + k.v*16 + k.w] * B[0*16 + k.v*16 + k.w, 0]
for i.out < 3
  C[i.out, 0] = C:acc.sum[i.out]"""


def test_storage_of_each_lane() -> None:
    assert body("strip_vectors", SOFTMAX, "m.at(y, r)\n e.at(y, r)\n y.sum.at(y, r)\n y.vector(r)", sizes={"R": 16, "N": 5}) == """\
alloc y.sum: f32[1, 16] in l1 padded
alloc e: f32[1, 5, 16] in l1 padded
alloc m: f32[1, 16] in l1 padded
alloc m:acc.max: f32[16] in reg padded
alloc y.sum:acc.sum: f32[16] in reg padded
vector r < 16
  m:acc.max[r] = -inf
  for n < 5 reduce
    m:acc.max[r] max= x[r, n]
  m[0, r] = m:acc.max[r]
  for n < 5
    e[0, n, r] = exp(x[r, n] - m[0, r])
  y.sum:acc.sum[r] = 0
  for k < 5 reduce
    y.sum:acc.sum[r] += e[0, k, r]
  y.sum[0, r] = y.sum:acc.sum[r]
  for n < 5
    y[r, n] = e[0, n, r] / y.sum[0, r]"""
