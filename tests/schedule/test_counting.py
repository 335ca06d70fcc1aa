"""Counts of several conditions on narrow elements: the ones of masks."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl
from tests.schedule.programs import CPU, SMALL, check_same, op_of
from tridsl.schedule.automatic import automatic, choose
from tridsl.schedule.steps import Order, Split, Unroll, Vector

HISTOGRAM = "op f(x: {0}[N]) -> h: i32[{1}] {{ h[b] = count[i](i32(x[i]) // 16 == i32(b)) }}"
OPS = {
    "bins": HISTOGRAM.format("u8", 16),
    "many_bins": HISTOGRAM.format("u8", 40),
    "signed": "op f(x: i8[M, N]) -> h: i64[M, 8] { h[r, b] = count[i](i32(x[r, i]) // 32 + 4 == i32(b)) }",
    "thresholds": "op f(x: i16[M, N], t: i16[K]) -> h: i64[K] { h[b] = count[i, j](x[i, j] > t[b]) }",
    "sums": "op f(x: u8[M, N]) -> h: i32[7] { h[b] = sum[i, j](i32(x[i, j] % 7 == u8(b))) }",
    "one": "op f(x: u8[N], t: u8) -> n: i64 { n = count[i](x[i] > t) }",
}


def test_few_bins_are_counted_together() -> None:
    steps = automatic(op_of(HISTOGRAM.format("u8", 16)), CPU, {"N": 5000})
    wanted = (Split(stage="h.count", axis="i", factor=64), Order(stage="h.count", axes=("i.o", "b", "i.i")), Unroll(stage="h.count", axis="b"))
    assert set(wanted) <= set(steps) and Vector(stage="h.count", axis="i.i") in steps


@pytest.mark.parametrize(("kind", "spec"), [("f32", CPU), ("u8", SMALL)])
def test_wide_elements_and_devices_without_masks_count_in_lanes(kind: str, spec: object) -> None:
    steps = automatic(op_of(HISTOGRAM.format(kind, 16)), spec, {"N": 5000})  # type: ignore[arg-type]  # parameters of a test have no types of their own
    assert not any(isinstance(s, Unroll) for s in steps)


@pytest.mark.parametrize("name", OPS)
@pytest.mark.parametrize("sizes", [{"M": 1, "N": 1, "K": 3}, {"M": 3, "N": 64, "K": 20}, {"M": 5, "N": 203, "K": 16}, {"M": 2, "N": 0, "K": 2}])
def test_exact(name: str, sizes: dict[str, int]) -> None:
    op = op_of(OPS[name])
    for one in ({n: k for n, k in sizes.items() if n in op.sizes},):
        check_same(op, automatic(op, CPU, one), one)
        rng = np.random.default_rng(1)
        compiled = tridsl.compile(OPS[name]).f
        kinds = {"u8": np.uint8, "i8": np.int8, "i16": np.int16}
        arguments = []
        for p in op.params:
            if getattr(p, "role", "input") != "input":
                continue
            shape = tuple(one[n.name] for n in p.shape) if hasattr(p, "shape") else ()  # type: ignore[union-attr]  # sizes of tests are constants
            arguments.append(rng.integers(0, 100, shape).astype(kinds[str(p.dtype)])[()])
        np.testing.assert_array_equal(compiled(*arguments), compiled.reference(*arguments))


def test_lanes_remain_an_answer() -> None:
    op = op_of(HISTOGRAM.format("u8", 16))
    assert not any(isinstance(s, Unroll) for s in choose(op, CPU, {"N": 5000}, {"h.count.counted": False}))
