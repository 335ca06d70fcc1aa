"""Reductions accumulate in registers while the innermost reduction runs."""

from __future__ import annotations

import pytest

from tests.passes.golden import MATMUL, body
from tests.schedule.programs import check_same, op_of, steps_of


def test_tile() -> None:
    assert body("register_tiles", MATMUL, "C.tile(i=2, j=16).order(i.o, j.o, k, i.i, j.i).unroll(i.i).vector(j.i)") == """\
for i.o < ceil(M / 2)
  for j.o < ceil(N / 16)
    alloc C:acc.sum: f32[2, 16] in reg padded
    unroll i.i.zero < 2
      vector j.i.zero < 16
        C:acc.sum[i.i.zero, j.i.zero] = 0
    for k < K reduce
      unroll i.i < min(2, M - i.o*2)
        vector j.i < min(16, N - j.o*16)
          C:acc.sum[i.i, j.i] += A[i.i + i.o*2, k] * B[k, j.i + j.o*16]
    unroll i.i.out < min(2, M - i.o*2)
      vector j.i.out < min(16, N - j.o*16)
        C[i.i.out + i.o*2, j.i.out + j.o*16] = C:acc.sum[i.i.out, j.i.out]"""


def test_tile_in_parts() -> None:
    """Over several rounds what each adds is added to memory; with no round at all the result is still started."""
    assert body("register_tiles", MATMUL, "C.split(k, 4).split(j, 16).order(k.o, i, j.o, k.i, j.i).vector(j.i)") == """\
if ceil(K / 4) <= 0
  for i.start < M
    for j.o.start < ceil(N / 16)
      vector j.i.start < min(16, N - j.o.start*16)
        C[i.start, j.i.start + j.o.start*16] = 0
for k.o < ceil(K / 4) reduce
  for i < M
    for j.o < ceil(N / 16)
      alloc C:acc.sum: f32[16] in reg padded
      vector j.i.zero < 16
        C:acc.sum[j.i.zero] = 0
      for k.i < min(4, K - k.o*4) reduce
        vector j.i < min(16, N - j.o*16)
          C:acc.sum[j.i] += A[i, k.i + k.o*4] * B[k.i + k.o*4, j.i + j.o*16]
      if k.o == 0
        vector j.i.out < min(16, N - j.o*16)
          C[i, j.i.out + j.o*16] = C:acc.sum[j.i.out]
      else
        vector j.i.add < min(16, N - j.o*16)
          C[i, j.i.add + j.o*16] += C:acc.sum[j.i.add]"""


def test_lanes_that_add_to_one_result() -> None:
    """No lane can hold the result: it stays in memory."""
    assert body("register_tiles", MATMUL, "C.split(k, 16).order(i, k.o, k.i, j).vector(k.o)") == """\
for i < M
  vector k.o < ceil(K / 16) reduce
    for k.i < min(16, K - k.o*16) reduce
      for j < N
        C[i, j] += A[i, k.i + k.o*16] * B[k.i + k.o*16, j] from 0"""


def test_too_large() -> None:
    assert body("register_tiles", MATMUL, "C.order(k, i, j)", sizes={"M": 100, "N": 100}) == """\
for k < K reduce
  for i < 100
    for j < 100
      C[i, j] += A[i, k] * B[k, j] from 0"""


@pytest.mark.parametrize("length", [0, 1, 70])
def test_a_sum_whose_rounds_compute_another_stage_is_started_without_any(length: int) -> None:
    op = op_of("op f(x: i32[N]) -> y: i32 {\n y = sum[k](x[k] * 3)\n}")
    check_same(op, steps_of(op, "y.parts(k, 4)\n y.split(k.o, 8)\n y.part.at(y, k.o.o)", N=length), {"N": length})
