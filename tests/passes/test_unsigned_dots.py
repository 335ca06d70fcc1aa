"""Signed bytes meet the instruction for unsigned ones with one correction per panel."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.golden import VNNI, body, kernel_after
from tests.schedule.programs import arguments, check_same, op_of, scheduled, steps_of
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.verify import LOWERED, verify

SIGNED = """op f(A: i8[M, K], B: i8[K, N]) -> C: i32[M, N] {
  C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j])
}
"""
LOOPS = "C.tile(i=2, j=16).split(k, 8).split(k.i, 4).order(j.o, k.o, i.o, k.i.o, i.i, j.i, k.i.i).unroll(i.i).vector(j.i)\n"
PANELS = LOOPS + " A.pack(at=i.o)\n B.pack(at=k.o)\n C.intrin(\"vpdpbssd\")"


def test_sums_of_a_panel() -> None:
    text = body("unsigned_dots", SIGNED, PANELS, sizes={"M": 4, "N": 16, "K": 16}, spec=VNNI)
    for line in (
        "B.pack.sum[C.j.i.out] = B.pack.sum.acc[C.j.i.out]",
        "C:acc.sum[i.i.zero, j.i.zero] = B.pack.sum[j.i.zero] * -128",
        "alloc A.pack: u8[2, 2, 4] in l2 padded",
    ):
        assert line in text, text
    assert "flipped" in text and "vpdpbssd" not in text and text.count("mma vpdpbusd") == 2


def test_without_panels_the_backend_corrects() -> None:
    """A panel of one operand only: there is nothing to flip once."""
    text = body("unsigned_dots", SIGNED, PANELS.replace(" A.pack(at=i.o)\n", ""), sizes={"M": 4, "N": 16, "K": 16}, spec=VNNI)
    assert "mma vpdpbssd" in text and "flipped" not in text


@pytest.mark.parametrize("more", ["C.split(k.i.o, 2).unroll(k.i.o.i)", "C.split(k.i.o, 4).unroll(k.i.o.o)", "C.split(k.i.o, 3)"])
def test_a_panel_that_several_loops_sum_over(more: str) -> None:
    """Its sums are those of all of them: the backend corrects every step."""
    op = op_of(SIGNED)
    wide = PANELS.replace("split(k, 8)", "split(k, 32)").replace("B.pack(at=k.o)", "B.pack(at=j.o)")
    steps = steps_of(op, wide.replace(" A.pack", f"{more}\n A.pack"), VNNI)
    for sizes in ({"M": 4, "N": 32, "K": 64}, {"M": 3, "N": 17, "K": 21}):
        given = arguments(op, sizes)
        kernel = scheduled(op, steps, sizes, VNNI, lowered=True)
        assert not verify(kernel, LOWERED)
        np.testing.assert_array_equal(evaluate_kernel(kernel, given, {})["C"], evaluate_op(op, given, sizes)["C"])


@pytest.mark.parametrize("sizes", [{"M": 3, "N": 17, "K": 21}, {"M": 1, "N": 1, "K": 3}, {"M": 2, "N": 16, "K": 0}])
def test_means_the_same(sizes: dict[str, int]) -> None:
    op = op_of(SIGNED)
    check_same(op, steps_of(op, PANELS, VNNI), sizes, VNNI)


def test_extremes_wrap_as_integers_do() -> None:
    sizes = {"M": 4, "N": 16, "K": 16}
    kernel = kernel_after("finish", SIGNED, PANELS, sizes=sizes, spec=VNNI)
    a, b = np.full((4, 16), -128, np.int8), np.full((16, 16), -128, np.int8)
    a[1], b[:, 1] = 127, 127
    got = evaluate_kernel(kernel, {"A": a, "B": b}, sizes)
    np.testing.assert_array_equal(got["C"], a.astype(np.int32) @ b.astype(np.int32))
