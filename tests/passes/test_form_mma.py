"""A marked nest becomes one instruction."""

from __future__ import annotations

import pytest

from tests.passes.golden import DOTS, VNNI, body
from tests.schedule.programs import check_same, op_of, steps_of


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


PAIRS = """op pairs(A: i16[M, K], B: i16[N, K]) -> C: i32[M, N] {
  C[i, j] = sum[k; acc=i32](A[i, k] * B[j, k])
}
"""
MARKED = 'C.split(k, {k}).split(j, {lanes}).order(i, j.o, k.o, j.i, k.i).vector(j.i).intrin("{row}")'


def test_operands_under_a_mask() -> None:
    """A padded depth is masked where its operands are read as they lie; panels of them are not."""
    op = op_of(PAIRS)
    for panels, is_one in (("", False), ("\nA.pack(at=k.o)\nB.pack(at=k.o)", True)):
        directives = "C.pad(k, 4)" + MARKED.format(k=2, lanes=8, row="vpdpwssd").removeprefix("C") + panels
        assert ("mma" in body("form_mma", PAIRS, directives, sizes={"M": 2, "N": 8, "K": 5}, spec=VNNI)) is is_one
        check_same(op, steps_of(op, directives, VNNI), {"M": 2, "N": 8, "K": 5}, VNNI)


@pytest.mark.parametrize("after", [".split(k.i, 2).unroll(k.i.i)", ".split(k.i, 1)", ".order(k.i, j.i)"])
def test_loops_that_later_steps_change_are_no_instruction(after: str) -> None:
    """Two loops over the depth look like lanes and depth, and so do lanes that stand inside the depth."""
    for text, row, k in ((PAIRS, "vpdpwssd", 2), (DOTS, "vpdpbusd", 4)):
        op, directives = op_of(text), MARKED.format(k=k, lanes=k, row=row) + after
        assert "mma" not in body("finish", text, directives, sizes={"M": 2, "N": 8, "K": 8}, spec=VNNI)
        check_same(op, steps_of(op, directives, VNNI), {"M": 2, "N": 8, "K": 8}, VNNI)
