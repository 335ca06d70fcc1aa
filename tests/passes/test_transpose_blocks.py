"""Copies between different contiguous axes go through registers in blocks; what is over is copied one by one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.passes.golden import DOTS, MATMUL, VNNI, body
from tests.schedule.programs import CPU, check_same, op_of, steps_of
from tridsl.devices.spec import DeviceSpec

PACKED = "C.tile(i=12, j=32).split(k, 40).order(j.o, k.o, i.o, k.i, i.i, j.i).unroll(i.i).vector(j.i)\n A.pack(at=i.o)"
WORDS = (
    "C.tile(i=4, j=16).split(k, 128).split(k.i, 4).order(j.o, k.o, i.o, k.i.o, i.i, j.i, k.i.i).unroll(i.i).vector(j.i)\n"
    " A.pack(at=i.o)\n B.pack(at=k.o)\n C.intrin(\"vpdpbusd\")"
)

ROWS = WORDS.replace("A.pack(at=i.o)", "A.pack(at=i.o, rows=true)")


def test_blocks_and_what_is_over() -> None:
    text = body("finish", MATMUL, PACKED, sizes={"M": 24, "N": 32, "K": 40})
    panel = """\
  for A.pack.k.i.b < 2
    copy A[A.pack.i.i.t + i.o*12, A.pack.k.i.b*16 + A.pack.k.i.t] -> A.pack[A.pack.k.i.b*16 + A.pack.k.i.t, A.pack.i.i.t] \
for A.pack.i.i.t < 12, A.pack.k.i.t < 16, transposed
  for A.pack.i.i.r < 12
    for A.pack.k.i.r < 8
      A.pack[A.pack.k.i.r + 32, A.pack.i.i.r] = A[A.pack.i.i.r + i.o*12, A.pack.k.i.r + 32]
"""
    assert panel in text, text


def test_a_block_that_may_be_short_asks() -> None:
    text = body("expand_copies", MATMUL, PACKED, sizes={"M": 20, "N": 32, "K": 40})
    assert "if 12 <= min(12, 20 - i.o*12)" in text and "transposed" in text and ".pad" in text


def test_a_panel_longer_than_its_axis_is_filled_to_its_end() -> None:
    """The last block of a whole panel may hold no element at all: sums over the panel must find nothing there."""
    text = body("finish", DOTS, WORDS, sizes={"M": 4, "N": 16, "K": 72}, spec=VNNI)
    filled = [line.strip() for line in text.splitlines() if "A.pack[" in line and line.rstrip().endswith("= 0")]
    assert filled, text


def test_groups_stay_together() -> None:
    """Four bytes of a row for one instruction are one element of the block."""
    text = body("expand_copies", DOTS, WORDS, sizes={"M": 8, "N": 16, "K": 128}, spec=VNNI)
    blocks = [line.strip() for line in text.splitlines() if line.endswith("transposed")]
    assert len(blocks) == 2 and all(line.count(" < ") == 3 and " < 4, transposed" in line for line in blocks), text


def test_rows_that_stay_rows_move_a_register_at_a_time() -> None:
    text = body("expand_copies", DOTS, ROWS, sizes={"M": 8, "N": 16, "K": 128}, spec=VNNI)
    (copy,) = [line for line in text.splitlines() if line.strip().startswith("copy A") and line.endswith("transposed")]
    assert "A.pack.i.i.t < 1, A.pack.k.i.o.t < 16, A.pack.k.i.i.t < 4" in copy, text


def test_a_panel_without_rows_has_no_blocks() -> None:
    for n, k in ((0, 40), (32, 0), (0, 0)):
        assert "transposed" not in body("expand_copies", MATMUL, "B.pack(at=i)", sizes={"M": 4, "N": n, "K": k})


def test_small_blocks_and_other_devices_keep_their_loops() -> None:
    small = PACKED.replace("i=12", "i=2").replace("(k, 40)", "(k, 8)")
    assert "transposed" not in body("expand_copies", MATMUL, small, sizes={"M": 24, "N": 32, "K": 40})
    without = replace(CPU, vector_bits=None)
    assert "transposed" not in body("expand_copies", MATMUL, PACKED, sizes={"M": 24, "N": 32, "K": 40}, spec=without)


@pytest.mark.parametrize(
    ("text", "steps", "spec", "sizes"),
    [
        (MATMUL, PACKED, CPU, {"M": 30, "N": 33, "K": 85}),
        (DOTS, WORDS, VNNI, {"M": 11, "N": 19, "K": 203}),
        (DOTS, WORDS, VNNI, {"M": 1, "N": 1, "K": 1}),
        (DOTS, ROWS, VNNI, {"M": 11, "N": 19, "K": 203}),
        (DOTS, ROWS, VNNI, {"M": 4, "N": 16, "K": 63}),
    ],
)  # fmt: skip
def test_means_the_same(text: str, steps: str, spec: DeviceSpec, sizes: dict[str, int]) -> None:
    op = op_of(text)
    check_same(op, steps_of(op, steps, spec), sizes, spec)


TURN = "op f(x: i32[M, N]) -> y: i32[N, M] { y[j, i] = x[i, j] * 2 }"
TURNED = "y.split(j, 16).split(i, {0}).order(j.o, i.o, j.i, i.i).vector(i.i)\n x.pack(at=i.o)"


def test_short_blocks_without_a_pad_are_masked() -> None:
    """And filled with zeros where the panel has room for whole blocks: idle lanes compute something of it."""
    text = body("finish", TURN, TURNED.format(32), sizes={"M": 30, "N": 30})
    short = [line for line in text.splitlines() if "of 16, x.pack.j.i.s" in line]
    assert short and all("pad 0" in line and line.endswith("transposed") for line in short) and text.count(".e") == 0, text
    odd = body("finish", TURN, TURNED.format(37), sizes={"M": 74, "N": 30})
    assert "transposed" in odd and "pad 0" not in odd, odd


def test_devices_without_masks_copy_the_rest_one_by_one() -> None:
    text = body("finish", TURN, TURNED.format(32), sizes={"M": 30, "N": 30}, spec=replace(CPU, has_masks=False))
    assert "transposed" in text and ".i.i.e" in text, text


@pytest.mark.parametrize("sizes", [{"M": 30, "N": 30}, {"M": 1, "N": 17}, {"M": 40, "N": 5}, {"M": 33, "N": 64}])
@pytest.mark.parametrize("width", [32, 37])
def test_turning_means_the_same(width: int, sizes: dict[str, int]) -> None:
    op = op_of(TURN)
    check_same(op, steps_of(op, TURNED.format(width)), sizes)
