"""Products of a few rows with a large matrix, as machine code against NumPy: every row count around the tiles, sizes that divide by nothing."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.schedule.programs import CPU, MATMUL, op_of
from tridsl import stdlib
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Pack, Split

TYPES = {"f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16, "i8": np.int8, "i16": np.int16}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 3, 4, 7, 13, 31])
def test_products_of_few_rows(dtype: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    a, b = (rng.integers(-9, 9, shape).astype(TYPES[dtype]) for shape in ((rows, 523), (523, 389)))
    keywords: dict[str, Any] = {"U": "f32"} if dtype == "bf16" else {}
    found = stdlib.matmul(a, b, **keywords)
    assert np.array_equal(np.asarray(found), a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("rows", [9, 40])
def test_a_matrix_beyond_the_second_cache(rows: int) -> None:
    """As large as needed for any chip: its rows are fetched ahead, also beyond the last of them."""
    rng = np.random.default_rng(rows)
    a, b = rng.integers(-9, 9, (rows, 1031)).astype(np.float32), rng.integers(-9, 9, (1031, 2063)).astype(np.float32)
    assert np.array_equal(stdlib.matmul(a, b), a.astype(np.int64) @ b.astype(np.int64))


def swept(rows: int, columns: int) -> tuple[bool, int]:
    """Whether no panel of B is made, and the columns of a stretch."""
    steps = automatic(op_of(MATMUL), CPU, {"M": rows, "K": 1024, "N": columns})
    stretch = next((s.factor for s in steps if isinstance(s, Split) and s.axis == "j"), 0)
    return not any(isinstance(s, Pack) and s.stage == "B" for s in steps), stretch


def test_what_is_swept_and_how_wide() -> None:
    assert swept(8, 16384) == (True, 8192)  # a quarter of 1 MiB holds 8 rows of 8192 results; each of two threads has one stretch
    assert swept(8, 4096) == (True, 2048)  # one for each thread
    assert swept(64, 4096) == (True, 1024)  # 64 rows: a quarter of the cache holds 1024 columns of results
    assert not swept(96, 4096)[0]  # panels pay
    assert not swept(64, 256)[0]  # the matrix is near: so do they
