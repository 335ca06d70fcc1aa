"""A marked nest becomes one instruction."""

from __future__ import annotations

from tests.passes.golden import DOTS, VNNI, body


def test_dot_products() -> None:
    assert body("form_mma", DOTS, 'C.split(k, 4).split(j, 16).order(i, j.o, k.o, j.i, k.i).vector(j.i).intrin("vpdpbusd")', sizes={"K": 64, "N": 64}, spec=VNNI) == """\
for i < M
  for j.o < 4
    alloc C:acc.sum: i32[16] in reg padded
    vector j.i.zero < 16
      C:acc.sum[j.i.zero] = 0
    for k.o < 16 reduce
      mma vpdpbusd C:acc.sum[j.i] += A[i, k.i + k.o*4] * B[j.i + j.o*16, k.i + k.o*4] for j.i < 16, k.i < 4
    vector j.i.out < 16
      C[i, j.i.out + j.o*16] = C:acc.sum[j.i.out]"""


def test_tail_of_the_depth() -> None:
    """The loops have another shape: the mark is dropped, the loops stay."""
    assert body("form_mma", DOTS, 'C.split(k, 4).split(j, 16).order(i, j.o, k.o, j.i, k.i).vector(j.i).intrin("vpdpbusd")', sizes={"K": 6, "N": 64}, spec=VNNI) == """\
for i < M
  for j.o < 4
    alloc C:acc.sum: i32[16] in reg padded
    vector j.i.zero < 16
      C:acc.sum[j.i.zero] = 0
    for k.o < 2 reduce
      vector j.i < 16
        for k.i < min(4, 6 - k.o*4) reduce
          C:acc.sum[j.i] += i32(A[i, k.i + k.o*4]) * i32(B[j.i + j.o*16, k.i + k.o*4])
    vector j.i.out < 16
      C[i, j.i.out + j.o*16] = C:acc.sum[j.i.out]"""
