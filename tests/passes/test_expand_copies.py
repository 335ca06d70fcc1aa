"""Copies become loops: vectors where both sides are contiguous, else along the source."""

from __future__ import annotations

from tests.passes.golden import MATMUL, body

WHOLLY_OUTSIDE = """op f(x: i32[M], z: i32[N]) -> y: i32[N] {
  y[i] = x[i; pad=3] + z[i]
}
"""


def test_panels() -> None:
    assert body("expand_copies", MATMUL, "C.tile(i=2, j=16).split(k, 4).order(i.o, j.o, k.o, k.i, i.i, j.i)\n A.pack(at=k.o)\n B.pack(at=k.o)", sizes={"N": 64, "K": 64}) == """\
for i.o < ceil(M / 2)
  for j.o < 4
    alloc C:acc.sum: f32[2, 16] in l1 padded
    for i.i.zero < 2
      for j.i.zero < 16
        C:acc.sum[i.i.zero, j.i.zero] = 0
    for k.o < 16 reduce
      alloc A.pack: f32[4, 2] in l2 padded
      for A.pack.i.i < min(2, M - i.o*2)
        for A.pack.k.i < 4
          A.pack[A.pack.k.i, A.pack.i.i] = A[A.pack.i.i + i.o*2, A.pack.k.i + k.o*4]
      for A.pack.i.i.pad < 2 - min(2, M - i.o*2) bound 2
        for A.pack.k.i.fill.2 < 4
          A.pack[A.pack.k.i.fill.2, min(2, M - i.o*2) + A.pack.i.i.pad] = 0
      alloc B.pack: f32[4, 16] in l2 padded
      for B.pack.k.i < 4
        vector B.pack.j.i < 16
          B.pack[B.pack.k.i, B.pack.j.i] = B[B.pack.k.i + k.o*4, B.pack.j.i + j.o*16]
      for k.i < 4 reduce
        for i.i < min(2, M - i.o*2)
          for j.i < 16
            C:acc.sum[i.i, j.i] += A.pack[k.i, i.i] * B.pack[k.i, j.i]
    for i.i.out < min(2, M - i.o*2)
      for j.i.out < 16
        C[i.i.out + i.o*2, j.i.out + j.o*16] = C:acc.sum[i.i.out, j.i.out]"""


def test_in_lanes() -> None:
    """Inside a vector loop there is no second one."""
    assert body("expand_copies", MATMUL, "C.split(k, 4).vector(j)\n A.pack(at=k.o)", sizes={"M": 8, "N": 8, "K": 8}) == """\
for i < 8
  vector j < 8
    alloc C:acc.sum: f32 in reg
    C:acc.sum[] = 0
    for k.o < 2 reduce
      alloc A.pack: f32[4] in l2 padded
      for A.pack.k.i < 4
        A.pack[A.pack.k.i] = A[i, A.pack.k.i + k.o*4]
      for k.i < 4 reduce
        C:acc.sum[] += A.pack[k.i] * B[k.i + k.o*4, j]
    C[i, j] = C:acc.sum[]"""


def test_wholly_outside() -> None:
    """A source without an element gives what stands for it."""
    assert body("expand_copies", WHOLLY_OUTSIDE, "y.split(i, 4)\n x.pack(at=i.o)", sizes={"M": 0, "N": 8}) == """\
for i.o < 2
  alloc x.pack: i32[4] in l2 padded
  vector x.pack.i.i < 4
    x.pack[x.pack.i.i] = if false then x[i.o*4 + x.pack.i.i] else 3
  for i.i < 4
    y[i.i + i.o*4] = x.pack[i.i] + z[i.i + i.o*4]"""
