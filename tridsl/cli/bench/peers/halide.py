"""Halide's edges of a picture, scheduled by hand: the bar of the goals' table.

A strip of rows keeps a ring of grey rows; one or more rows of the result are made from it at once, a vector of lanes at a time; a
pixel's four bytes are read as one integer. Of the schedules that were best among a hundred or so on a Zen 4 and an Emerald Rapids
server, the one that is fastest on the arrays at hand is taken.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments, Table

STRIP, LANES = 120, 32
"""Rows of a strip, pixels of a vector."""
GROUPS = ((1, 8), (4, 8), (8, 16))
"""Rows made at once, and the ring of grey rows for them."""
_TRIALS = 5


@cache
def _pipeline(sobel: bool, strips: bool, rows: int, ring: int) -> tuple[Any, Any, Any]:
    """(pipeline, picture of pixels, threshold); without strips for pictures lower than one."""
    hl: Any = importlib.import_module("halide")
    x, y, strip, group, row = (hl.Var(name) for name in ("x", "y", "strip", "group", "row"))
    picture, threshold = hl.ImageParam(hl.UInt(32), 2), hl.Param(hl.Int(16))
    pixel = hl.BoundaryConditions.repeat_edge(picture)[x, y]
    red, green, blue = (hl.i32((pixel >> shift) & 255) for shift in (0, 8, 16))
    gray, edge = hl.Func("gray"), hl.Func("edge")
    gray[x, y] = hl.u8((4899 * red + 9617 * green + 1868 * blue + 8192) >> 14)

    def g(dx: int, dy: int) -> Any:
        return hl.i16(gray[x + dx, y + dy])

    if sobel:
        across = (g(1, -1) - g(-1, -1)) + 2 * (g(1, 0) - g(-1, 0)) + (g(1, 1) - g(-1, 1))
        down = (g(-1, 1) - g(-1, -1)) + 2 * (g(0, 1) - g(0, -1)) + (g(1, 1) - g(1, -1))
        size = hl.i16(hl.abs(across)) + hl.i16(hl.abs(down))
    else:
        size = hl.i16(hl.abs(g(0, -1) + g(0, 1) + g(-1, 0) + g(1, 0) - 4 * g(0, 0)))
    edge[x, y] = hl.select(size > threshold, hl.u8(255), hl.u8(0))
    edge.vectorize(x, LANES, hl.TailStrategy.GuardWithIf)
    gray.vectorize(x, LANES, hl.TailStrategy.RoundUp)
    if strips:
        edge.split(y, strip, y, STRIP, hl.TailStrategy.ShiftInwards).split(y, group, row, rows).reorder(row, x, group, strip).unroll(row)
        gray.store_at(edge, strip).compute_at(edge, group).fold_storage(y, ring)
    else:
        gray.compute_root()
    edge.compile_jit()
    return edge, picture, threshold


def _halide(a: Arguments, out: Sequence[Any], sobel: bool) -> Callable[[], Any] | None:
    rgba, edge = a["rgba"], out[0]
    if not rgba.flags.c_contiguous:
        return None
    hl: Any = importlib.import_module("halide")
    pixels, result = hl.Buffer(rgba.view(np.uint32)[:, :, 0]), hl.Buffer(edge)

    def call(group: tuple[int, int]) -> Callable[[], Any]:
        pipeline, picture, threshold = _pipeline(sobel, rgba.shape[0] >= STRIP, *group)

        def run() -> Any:
            picture.set(pixels)
            threshold.set(int(a["threshold"]))
            pipeline.realize(result)
            return edge

        return run

    return min(map(call, GROUPS), key=_seconds)


def _seconds(run: Callable[[], Any]) -> float:
    taken = []
    for _ in range(_TRIALS):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return min(taken)


HALIDE: Table = {"edges": lambda a, out: _halide(a, out, False), "sobel_edges": lambda a, out: _halide(a, out, True)}
