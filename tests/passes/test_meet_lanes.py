"""Lanes that share the sums of a tile put their parts into shared memory, and each adds up some of the results."""

from __future__ import annotations

import numpy as np
import pytest

from tests.passes.golden import MATMUL, body, kernel_after
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.loop import Alloc
from tridsl.ir.walk import walk

SIZES = {"M": 4, "N": 16, "K": 12}


def shared(lanes: int, across: int, depth: int = 12) -> str:
    """A tile of 4 by 4 for each of `across` lanes in x, whose sums `lanes` lanes in z share."""
    tile = "split(i, 4).split(j, 4).order(i.o, k.o, j.o, k.i, i.i, j.i).unroll(i.i).vector(j.i)"
    return f"C.split(k, {depth // lanes}).{tile}.bind(i.o=\"group.x\", k.o=\"lane.z\", j.o=\"lane.x\")" if across else ""


def test_every_lane_adds_up_some_results() -> None:
    assert body("meet_lanes", MATMUL, shared(2, 4), sizes=SIZES) == """\
group.x i.o < 1
  alloc C:parts: f32[2, 4, 4, 4] in shared
  lane.z k.o < 2 reduce
    lane.x j.o < 4
      alloc C:acc.sum: f32[4, 4] in reg padded
      unroll i.i.zero < 4
        vector j.i.zero < 4
          C:acc.sum[i.i.zero, j.i.zero] = 0
      for k.i < 6 reduce
        unroll i.i < 4
          vector j.i < 4
            C:acc.sum[i.i, j.i] += A[i.i + i.o*4, k.i + k.o*6] * B[k.i + k.o*6, j.i + j.o*4]
      unroll i.i.add < 4
        vector j.i.add < 4
          C:parts[k.o, i.i.add, j.o, j.i.add] = C:acc.sum[i.i.add, j.i.add]
  lane.z k.o.meet < 2
    lane.x j.o.meet < 4
      unroll i.i.add.meet < 2
        vector j.i.add.meet < 4
          C[k.o.meet*2 + i.i.add.meet + i.o*4, j.i.add.meet + j.o.meet*4] = C:parts[0, k.o.meet*2 + i.i.add.meet, j.o.meet, j.i.add.meet] + C:parts[1, k.o.meet*2 + i.i.add.meet, j.o.meet, j.i.add.meet]"""


@pytest.mark.parametrize(("lanes", "meets"), [(2, True), (4, True), (3, False), (12, False)])
def test_the_sums_are_the_oracles(lanes: int, meets: bool) -> None:
    """Also where the lanes cannot divide the tile, which they then merge one by one."""
    kernel = kernel_after("finish", MATMUL, shared(lanes, 4), sizes=SIZES)
    assert any(isinstance(n, Alloc) and n.buffer.name == "C:parts" for n in walk(kernel.phases)) == meets
    random = np.random.default_rng(lanes)
    a, b = (random.integers(-8, 8, shape).astype(np.float32) for shape in ((4, 12), (12, 16)))
    np.testing.assert_array_equal(evaluate_kernel(kernel, {"A": a, "B": b}, {})["C"], a @ b)


def test_more_lanes_than_rows_divide_columns_too() -> None:
    text = body("meet_lanes", MATMUL, shared(8, 4, 16), sizes={"M": 4, "N": 16, "K": 16})
    assert "unroll i.i.add.meet < 1" in text and "vector j.i.add.meet < 2" in text


def test_what_was_there_before_is_added_to() -> None:
    """Where the sum also has a loop around the lanes, it begins there."""
    order = "order(i.o, k.o, k.i.o, j.o, k.i.i, i.i, j.i).unroll(i.i).vector(j.i)"
    steps = f'C.split(k, 6).split(k.i, 3).split(i, 4).split(j, 4).{order}.bind(i.o="group.x", k.i.o="lane.z", j.o="lane.x")'
    text = body("place_init", MATMUL, steps, sizes=SIZES)
    assert text.index("= 0") < text.index("for k.o < 2 reduce") and "] += C:parts[0, " in text
    random = np.random.default_rng(1)
    a, b = (random.integers(-8, 8, shape).astype(np.float32) for shape in ((4, 12), (12, 16)))
    np.testing.assert_array_equal(evaluate_kernel(kernel_after("finish", MATMUL, steps, sizes=SIZES), {"A": a, "B": b}, {})["C"], a @ b)
