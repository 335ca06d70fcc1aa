"""The greatest elements, and what they choose: values, places and their order are the oracle's to the last bit."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tests.backends.npu.designs import subject
from tridsl import stdlib

DEVICES = ("npu:sim:aie2", "npu:sim:aie2p")
BF16 = ml_dtypes.bfloat16
RANDOM = np.random.default_rng(33)
ROWS = """
op rows(x: f32[H, D], order: i32[K]) -> y: f32[K, D] {
  y[j, d] = x[order[j], d; pad=0]
}
"""
OPS = tridsl.compile(f"""{ROWS}
op columns(x: f32[S, H], order: i32[K]) -> y: f32[S, K] {{
  y[s, j] = x[s, order[j]; pad=0]
}}
op elements(x: f32[H], order: i32[K]) -> y: f32[K] {{
  y[j] = x[order[j]; pad=0]
}}
""")


def numbers(*shape: int, dtype: Any = np.float32) -> Any:
    """Few different ones, so that many are equal."""
    return (np.round(RANDOM.standard_normal(shape) * 8) / 8).astype(dtype)


def exactly(op: Any, *given: Any, device: str) -> None:
    got, want = op(*given, device=device), op.reference(*given)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        g, w = np.asarray(g), np.asarray(w)
        np.testing.assert_array_equal(g.astype(np.float64) if g.dtype == BF16 else g, w.astype(np.float64) if w.dtype == BF16 else w)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "kept"), [((5, 90), 9), ((3, 2, 40), 40), ((200,), 1)], ids=str)
def test_rows_are_ranked(shape: tuple[int, ...], kept: int, device: str) -> None:
    exactly(stdlib.topk, numbers(*shape), kept, device=device)
    exactly(stdlib.topk, numbers(*shape, dtype=BF16), kept, device=device)
    exactly(stdlib.topk, RANDOM.integers(-9, 9, shape, np.int32), kept, device=device)


def test_what_is_not_a_number_is_greatest_and_the_first_of_equals_in_front() -> None:
    x = numbers(4, 50)
    x[0, [7, 30, 31]] = np.nan
    x[1] = -np.inf
    x[2, 49] = np.inf
    x[3] = 1
    for kept in (1, 4, 50):
        exactly(stdlib.topk, x, kept, device="npu:sim")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("shape", "kept"), [((9001,), 17), ((2, 9000), 5), pytest.param((100003,), 16, marks=pytest.mark.full)], ids=str)
def test_long_rows_are_ranked_in_parts(shape: tuple[int, ...], kept: int, device: str) -> None:
    """The last part is smaller, of 9001 elements than what is kept of it."""
    exactly(stdlib.topk, numbers(*shape), kept, device=device)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_parts_on_any_number_of_columns(columns: int) -> None:
    x = numbers(5000, dtype=BF16)
    text = "op f(x: bf16[N]) -> (v: bf16[12], i: i32[12]) {\n  v, i = topk[n; k=12](x[n])\n}\n"
    ops = tridsl.compile(text + f"schedule f for npu {{\n  v.parts(n, 512)\n  v.part.split(n.o, {-(-10 // columns)})\n  v.part.bind(n.o.o=\"column\")\n"
                                "  v.part.store(l1, at=n.o.i)\n  v.split(n.o, 120)\n  v.store(l1, at=n.o.o)\n}\n")  # fmt: skip
    exactly(ops.f, x, device="npu:sim:aie2")


@pytest.mark.parametrize("device", DEVICES)
def test_elements_choose(device: str) -> None:
    """Places outside of the tensor too: what is padded there is read."""
    order = np.array([3, 0, 23, 3, -1, 24, 11], np.int32)
    exactly(OPS.columns, numbers(70, 24), order, device=device)
    exactly(OPS.rows, numbers(24, 100), order, device=device)
    exactly(OPS.rows, numbers(24, 5), order, device=device)
    exactly(OPS.elements, numbers(24), order, device=device)


def test_many_rows_to_choose_from_are_taken_in_narrow_tiles() -> None:
    """Of 5000 rows a core holds 4 bytes each."""
    given = subject("rows", numbers(5000, 7), RANDOM.integers(0, 5000, 40, np.int32), text=ROWS)
    assert next(b for b in given.design.buffers if b.name.startswith("x_l1")).shape[-1] * 4 < 16
    exactly(OPS.rows, given.arguments["x"], given.arguments["order"], device="npu:sim")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_units_and_keys_that_matter_most(dtype: Any, device: str) -> None:
    def random(*shape: int) -> Any:
        return RANDOM.standard_normal(shape).astype(dtype)

    exactly(stdlib.ffn_prune, random(33, 100), random(100, 65), 31, device=device)
    exactly(stdlib.kv_prune, random(20, 16), random(70, 16), random(70, 33), 0.25, 33, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", [(2,), (40,), (9001,), (3, 2), (3, 17)], ids=str)
def test_the_greatest_elements_place(shape: tuple[int, ...], device: str) -> None:
    """Of one vector too, which is a matrix of one row."""
    exactly(stdlib.argmax, numbers(*shape), device=device)
