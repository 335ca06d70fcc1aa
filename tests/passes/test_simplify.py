"""Index expressions in normal form; loops of one iteration dissolve, of none disappear."""

from __future__ import annotations

from tests.passes.golden import MATMUL, body

FUSED_LOOPS = """op f(x: f32[M, N]) -> y: f32[M, N] {
  y[i, j] = x[i, j] * 2
}
"""
CLAMPS_DECIDED_BY_RANGES = """op f(x: f32[N]) -> y: f32[N] {
  y[i] = x[i; pad=edge] + x[i; pad=0]
}
"""


def test_tails_and_single_iterations() -> None:
    assert body("simplify", MATMUL, "C.split(j, 8).split(i, 32)", sizes={"M": 32, "N": 24, "K": 1}) == """\
for i.i < 32
  for j.o < 3
    for j.i < 8
      for k < 1 reduce
        C[i.i, j.i + j.o*8] += A[i.i, k] * B[k, j.i + j.o*8] from 0"""


def test_sum_over_nothing() -> None:
    """A reduce loop stays while the start of its result hangs on it."""
    assert body("simplify", MATMUL, sizes={"K": 0}) == """\
for i < M
  for j < N
    for k < 0 reduce
      C[i, j] += A[i, k] * B[k, j] from 0"""


def test_fused_loops() -> None:
    assert body("simplify", FUSED_LOOPS, "y.fuse(i, j)") == """\
for i.j < M*N
  y[i.j // N, i.j % N] = x[i.j // N, i.j % N] * 2"""


def test_clamps_decided_by_ranges() -> None:
    assert body("simplify", CLAMPS_DECIDED_BY_RANGES, sizes={"N": 8}) == """\
for i < 8
  y[i] = x[i] + x[i]"""


def test_storage_of_loops_that_are_gone() -> None:
    """Nothing is left of rows without elements: no loop over rows, either, that makes room for one."""
    chain = "op f(x: f32[M, N]) -> y: f32[M, N] {\n  t[i, j] = x[i, j] * 2\n  y[i, j] = t[i, j] + 1\n}\n"
    assert "alloc t" in body("schedule", chain, "t.at(y, i)", sizes={"N": 0})
    assert body("simplify", chain, "t.at(y, i)", sizes={"N": 0}) == ""
