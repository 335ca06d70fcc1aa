"""A tile asks once whether it is whole, in front of the loop that combines its terms."""

from __future__ import annotations

import pytest

from tests.passes.golden import MATMUL, body
from tests.schedule import programs
from tridsl.ir.loop import For, If, Kernel
from tridsl.ir.walk import walk

PRODUCT = "op f(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] { C[i, j] = sum[k](A[i, k] * B[k, j]) }"
ROWS = "C.tile(i=12, j=16).split(k, 4).order(j.o, k.o, i.o, k.i, i.i, j.i).parallel(i.o).unroll(i.i).vector(j.i)\n B.pack(at=k.o)"
TILED = "C.tile(i=4, j=16).order(i.o, j.o, k, i.i, j.i).vector(j.i).unroll(i.i)"


def lowered(text: str, steps: str, sizes: dict[str, int]) -> Kernel:
    op = programs.op_of(text)
    return programs.scheduled(op, programs.steps_of(op, steps, **sizes), sizes, programs.CPU, lowered=True)


def guarded(kernel: Kernel) -> list[For]:
    """Unrolled loops without a constant end inside a loop over the terms of a sum."""
    sums = [n for p in kernel.phases for n in walk(p) if isinstance(n, For) and n.reduce and n.kind == "serial"]
    return [n for s in sums for n in walk(s) if isinstance(n, For) and n.kind == "unroll" and n.bound and not hasattr(n.extent, "value")]


@pytest.mark.parametrize(("rows", "asked"), [(8, False), (9, True), (3, False), (1, False)])
def test_only_tails_are_asked_for(rows: int, asked: bool) -> None:
    kernel = lowered(PRODUCT, TILED, {"M": rows, "K": 20, "N": 32})
    tiles = [n for p in kernel.phases for n in walk(p) if isinstance(n, If)]
    assert bool(tiles) == asked and (asked or not guarded(kernel))
    if asked:
        assert len(tiles) == 1 and not any(n in guarded(kernel) for s in tiles[0].then for n in walk(s))


def test_a_window_that_is_written_out_asks_as_it_goes() -> None:
    window = "op f(x: f32[N + 2, M]) -> y: f32[N, M] { y[i, j] = sum[r in 0..3](x[i + r, j]) }"
    steps = "y.tile(i=4, j=16).order(i.o, j.o, r, i.i, j.i).unroll(r).unroll(i.i).vector(j.i)"
    kernel = lowered(window, steps, {"N": 9, "M": 32})
    assert not any(isinstance(n, If) for p in kernel.phases for n in walk(p))


@pytest.mark.parametrize("rows", [0, 1, 4, 7, 9])
def test_the_meaning_stays(rows: int) -> None:
    op = programs.op_of(PRODUCT)
    sizes = {"M": rows, "K": 5, "N": 19}
    for steps in (TILED, TILED.replace("unroll(i.i)", "unroll(i.i).parallel(i.o)"), TILED.replace("i.o, j.o, k", "k, i.o, j.o")):
        programs.check_same(op, programs.steps_of(op, steps, **sizes), sizes)


def test_a_last_tile_of_known_length_has_a_body_without_questions() -> None:
    text = body("finish", MATMUL, ROWS.replace("split(k, 4)", "split(k, 8)"), sizes={"M": 20, "N": 16, "K": 8})
    assert """\
parallel i.o < 2
  if i.o < 1
""" in text
    assert """\
    for k.i < 8 reduce
      unroll i.i < 12
        vector j.i < 16
          C:acc.sum[i.i, j.i] += A[i.i + i.o*12, k.i] * B.pack[k.i, j.i]
""" in text
    assert """\
    for k.i.tail < 8 reduce
      unroll i.i.tail < 8
        vector j.i.tail < 16
          C:acc.sum.tail[i.i.tail, j.i.tail] += A[i.i.tail + 12, k.i.tail] * B.pack[k.i.tail, j.i.tail]
""" in text


def test_what_needs_no_second_body() -> None:
    whole = body("finish", MATMUL, ROWS, sizes={"M": 24, "N": 16, "K": 8})
    padded = body("finish", MATMUL, ROWS + "\n A.pack(at=i.o)", sizes={"M": 20, "N": 16, "K": 8})
    nothing = body("finish", MATMUL, ROWS, sizes={"M": 20, "N": 16, "K": 0})  # the result is still started, in one place
    assert not any(".tail" in text for text in (whole, padded, nothing))


@pytest.mark.parametrize("sizes", [{"M": 20, "N": 20, "K": 10}, {"M": 13, "N": 1, "K": 1}, {"M": 25, "N": 16, "K": 0}])
def test_the_meaning_stays_with_panels(sizes: dict[str, int]) -> None:
    op = programs.op_of(MATMUL)
    programs.check_same(op, programs.steps_of(op, ROWS), sizes)
