"""Compactions: every tile brings its elements packed with their count, and what the host puts together is the oracle's, in its order."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.backends.npu.designs import Subject, agree, subject
from tridsl import stdlib
from tridsl.diagnostics import TriError

RANDOM = np.random.default_rng(21)
BF16 = ml_dtypes.bfloat16


def numbers(count: int, dtype: Any) -> Any:
    return (RANDOM.standard_normal(count) * 40).astype(dtype)


def above(count: int, dtype: Any, threshold: float, **more: Any) -> Subject:
    return subject("above", numbers(count, dtype), dtype(threshold), **more)


@pytest.mark.parametrize(
    ("count", "dtype", "threshold"),
    [
        (300, np.float32, 10), (64, np.int16, -300), pytest.param(5000, np.int16, 10, marks=pytest.mark.full), (700, BF16, 5), (90, np.int8, 10),
        pytest.param(1, np.float32, 1e9, marks=pytest.mark.full), (200, np.float32, 1e9), pytest.param(130, np.int32, -300, marks=pytest.mark.full),
    ],
)  # fmt: skip
def test_what_is_left_and_where_it_was(count: int, dtype: Any, threshold: float) -> None:
    """All, none and some of the elements; tiles that are not whole."""
    given = above(count, dtype, threshold, generation="aie2")
    agree(given.results(dispatches=2), given.want())


def test_what_is_not_a_number_is_dropped() -> None:
    x = numbers(100, np.float32)
    x[[3, 17, 99]] = np.nan, np.inf, -np.inf
    given = subject("above", x, np.float32(0))
    agree(given.results(), given.want())


def test_the_tiles_of_a_design_have_their_count_in_front() -> None:
    design = above(600, np.float32, 0, decisions={"y.columns": 2, "y.tile": 256}).design
    assert [(g.result, g.packed, g.header, g.length) for g in design.gathers] == [("y", "y.heap.y", 16, "y.len"), ("pos", "y.heap.pos", 16, "pos.len")]
    packed = next(t for t in design.tensors if t.name == "y.heap.y")
    assert packed.given == (3, 16 + 272)


def test_through_an_ordinary_call() -> None:
    x = numbers(1000, np.float32)
    y, pos = stdlib.above(x, 12.0, device="npu:sim")
    np.testing.assert_array_equal(y, x[x >= 12])
    np.testing.assert_array_equal(pos, np.nonzero(x >= 12)[0])


def test_other_second_phases_are_refused() -> None:
    text = "op f(x: f32[N]) -> y: f32[N] { y[i] = scan sum[i](x[i]) }\n"
    with pytest.raises(TriError, match="E0770"):
        subject("f", numbers(70, np.float32), text=text)
