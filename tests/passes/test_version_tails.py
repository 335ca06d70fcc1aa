"""The last iteration of a loop whose register tile is shorter there has a body of its own."""

from __future__ import annotations

import pytest

from tests.passes.golden import MATMUL, body
from tests.schedule.programs import check_same, op_of, steps_of

ROWS = "C.tile(i=12, j=16).split(k, 4).order(j.o, k.o, i.o, k.i, i.i, j.i).parallel(i.o).unroll(i.i).vector(j.i)\n B.pack(at=k.o)"


def test_a_body_for_the_last_rows() -> None:
    text = body("version_tails", MATMUL, ROWS.replace("split(k, 4)", "split(k, 8)"), sizes={"M": 20, "N": 16, "K": 8})
    assert """\
  parallel i.o < 2
    if i.o < 1
      for k.i < 8 reduce
        unroll i.i < 12
          vector j.i < 16
            C[i.i + i.o*12, j.i] += A[i.i + i.o*12, k.i] * B.pack[k.i, j.i] from 0
    else
      for k.i.tail < 8 reduce
        unroll i.i.tail < 8
          vector j.i.tail < 16
            C[i.i.tail + 12, j.i.tail] += A[i.i.tail + 12, k.i.tail] * B.pack[k.i.tail, j.i.tail] from 0""" in text.replace(" + k.o*8", "").replace("k.o*8 + ", "")


def test_what_needs_none() -> None:
    whole = body("version_tails", MATMUL, ROWS, sizes={"M": 24, "N": 16, "K": 8})
    padded = body("version_tails", MATMUL, ROWS + "\n A.pack(at=i.o)", sizes={"M": 20, "N": 16, "K": 8})
    unknown = body("version_tails", MATMUL, ROWS, sizes={"N": 16, "K": 8})
    nothing = body("version_tails", MATMUL, ROWS, sizes={"M": 20, "N": 16, "K": 0})  # the result is still started, in one place
    assert not any(".tail" in text for text in (whole, padded, unknown, nothing))


@pytest.mark.parametrize("sizes", [{"M": 20, "N": 20, "K": 10}, {"M": 13, "N": 1, "K": 1}, {"M": 25, "N": 16, "K": 0}])
def test_means_the_same(sizes: dict[str, int]) -> None:
    op = op_of(MATMUL)
    check_same(op, steps_of(op, ROWS), sizes)
