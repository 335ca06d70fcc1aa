"""Small integers are computed in 16 bits where every step is known to fit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

import tridsl
from tests.passes.golden import body
from tests.schedule.programs import check_same, op_of

OP = "op f(a: u8[N], b: u8[N], w: u8[N]) -> y: {type}[N] {{ y[i] = {type}({value}) }}"
BLEND = "(i32(a[i]) * i32(w[i]) + i32(b[i]) * (255 - i32(w[i])) + 127) // 255"


@pytest.mark.parametrize(
    ("value", "narrow"),
    [
        (BLEND, "u16"),  # at most 65152: what one weight gains the other loses
        (BLEND.replace("255 - ", "257 - "), "i32"),
        ("(i32(a[i]) * 77 + i32(b[i]) * 150 + i32(w[i]) * 29) >> 8", "u16"),
        ("(i32(a[i]) * 77 + i32(b[i]) * 150 + i32(w[i]) * 31) >> 8", "i32"),
        ("abs(i32(a[i]) - i32(b[i])) % 10", "i16"),
        ("max(i32(a[i]) - 3 * i32(b[i]), 0)", "i16"),
        ("(i32(a[i]) - i32(b[i])) * (i32(a[i]) + i32(b[i])) // 2", "i32"),  # a square is not linear
        ("if a[i] > b[i] then i32(w[i]) + 1 else i32(w[i]) * 4", "u16"),
        ("i32(a[i]) // i32(b[i])", "i32"),
    ],
)
def test_the_type_that_holds_every_step(value: str, narrow: str) -> None:
    text = OP.format(type="u8", value=value)
    after = body("narrow_integers", text, "y.vector(i)")
    assert {t for t in ("u16", "i16", "i32") if f"{t}(a[" in after or f"{t}(w[" in after} == {narrow}
    check_same(op_of(text), (), {"N": 70})


@pytest.mark.parametrize(
    ("value", "formula"),
    [
        (BLEND, lambda a, b, w: (a * w + b * (255 - w) + 127) // 255),
        ("abs(i32(a[i]) - i32(b[i])) % 10", lambda a, b, w: abs(a - b) % 10),
        ("min(i32(a[i]) - 3 * i32(b[i]), 0) // 7", lambda a, b, w: np.minimum(a - 3 * b, 0) // 7),
    ],
)
def test_all_values(value: str, formula: Callable[..., NDArray[np.int64]]) -> None:
    """Every pair of bytes, as the wide arithmetic has it."""
    a, b = (v.reshape(-1).astype(np.uint8) for v in np.meshgrid(np.arange(256), np.arange(256)))
    w = np.random.default_rng(0).integers(0, 256, a.size).astype(np.uint8)
    got = tridsl.compile(OP.format(type="i16", value=value)).f(a, b, w)
    np.testing.assert_array_equal(got, formula(*(v.astype(np.int64) for v in (a, b, w))))


@pytest.mark.parametrize(
    ("condition", "sides"),
    [
        ("i32(x[i]) // 16 == i32(b)", "x[i] // 16 == u8(b)"),
        ("i32(x[i]) // 10 == i32(b)", "u16(x[i]) // 10 == u16(b)"),  # no registers divide bytes
        ("i32(x[i]) - 100 > i32(b)", "i16(x[i]) - 100 > i16(b)"),
        ("i32(x[i]) * 300 > i32(b)", "i32(x[i]) * 300 > i32(b)"),  # up to 76500
    ],
)
def test_comparisons_of_small_integers(condition: str, sides: str) -> None:
    text = f"op f(x: u8[N]) -> h: i64[16] {{ h[b] = count[i]({condition}) }}"
    assert sides in body("narrow_integers", text, "h.vector(i)")
    check_same(op_of(text), (), {"N": 70})


def test_variables_that_grow_beyond_the_type_are_compared_as_they_are() -> None:
    text = "op f(x: u8[N], w: i64[K]) -> h: i64[K] { h[b] = count[i](i32(x[i]) == i32(b)) + w[b] }"
    for size, dtype in ((256, "u8(b)"), (300, "u16(b)"), (70_000, "i32(b)")):
        assert f"== {dtype}" in body("narrow_integers", text, "h.count.vector(i)", sizes={"N": 9, "K": size})
