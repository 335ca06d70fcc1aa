"""A loop that touches only padding past its end runs to its bound."""

from __future__ import annotations

from tests.passes.golden import MATMUL, body


def test_tile_over_panels() -> None:
    assert body("pad_tiles", MATMUL, "C.tile(i=2, j=16).order(i.o, j.o, k, i.i, j.i).unroll(i.i).vector(j.i)\n A.pack(at=k)\n B.pack(at=k)") == """\
for i.o < ceil(M / 2)
  for j.o < ceil(N / 16)
    alloc C:acc.sum: f32[2, 16] in reg padded
    unroll i.i.zero < 2
      vector j.i.zero < 16
        C:acc.sum[i.i.zero, j.i.zero] = 0
    for k < K reduce
      alloc A.pack: f32[2] in l2 padded
      copy A[A.pack.i.i + i.o*2, k] -> A.pack[A.pack.i.i] for A.pack.i.i < min(2, M - i.o*2) of 2, pad 0
      alloc B.pack: f32[16] in l2 padded
      copy B[k, B.pack.j.i + j.o*16] -> B.pack[B.pack.j.i] for B.pack.j.i < min(16, N - j.o*16) of 16, pad 0
      unroll i.i < 2
        vector j.i < 16
          C:acc.sum[i.i, j.i] += A.pack[i.i] * B.pack[j.i]
    unroll i.i.out < min(2, M - i.o*2)
      vector j.i.out < min(16, N - j.o*16)
        C[i.i.out + i.o*2, j.i.out + j.o*16] = C:acc.sum[i.i.out, j.i.out]"""


def test_without_panels() -> None:
    """B is not padded: the loop over it keeps its end."""
    assert body("pad_tiles", MATMUL, "C.split(j, 16).order(i, j.o, k, j.i).vector(j.i)") == """\
for i < M
  for j.o < ceil(N / 16)
    alloc C:acc.sum: f32[16] in reg padded
    vector j.i.zero < 16
      C:acc.sum[j.i.zero] = 0
    for k < K reduce
      vector j.i < min(16, N - j.o*16)
        C:acc.sum[j.i] += A[i, k] * B[k, j.i + j.o*16]
    vector j.i.out < min(16, N - j.o*16)
      C[i, j.i.out + j.o*16] = C:acc.sum[j.i.out]"""
