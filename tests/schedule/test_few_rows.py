"""Products of a few rows with a large matrix, as machine code against NumPy: every row count around the tiles, sizes that divide by nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tests.schedule.programs import CPU, MATMUL, op_of
from tridsl import stdlib
from tridsl.schedule.automatic import automatic
from tridsl.schedule.steps import Pack, Split, Vector

TYPES = {"f32": np.float32, "f64": np.float64, "bf16": ml_dtypes.bfloat16, "i8": np.int8, "i16": np.int16}


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rows", [1, 3, 4, 7, 13, 31])
def test_products_of_few_rows(dtype: str, rows: int) -> None:
    rng = np.random.default_rng(rows)
    a, b = (rng.integers(-9, 9, shape).astype(TYPES[dtype]) for shape in ((rows, 523), (523, 389)))
    keywords: dict[str, Any] = {"U": "f32"} if dtype == "bf16" else {}
    found = stdlib.matmul(a, b, **keywords)
    assert np.array_equal(np.asarray(found), a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("columns", [1, 2, 5, 15])
def test_products_with_few_columns(dtype: str, columns: int) -> None:
    rng = np.random.default_rng(columns)
    a, b = (rng.integers(-9, 9, shape).astype(TYPES[dtype]) for shape in ((389, 523), (523, columns)))
    keywords: dict[str, Any] = {"U": "f32"} if dtype == "bf16" else {}
    assert np.array_equal(np.asarray(stdlib.matmul(a, b, **keywords)), a.astype(np.int64) @ b.astype(np.int64))


@pytest.mark.parametrize("rows", [1, 2, 9, 64])
def test_rows_by_a_transposed_matrix_of_bytes(rows: int) -> None:
    """Saturating values: the instruction's signed operand and its correction."""
    ops = tridsl.compile("op f(A: i8[M, K], B: i8[N, K]) -> C: i32[M, N] { C[i, j] = sum[k; acc=i32](A[i, k] * B[j, k]) }")
    a, b = np.full((rows, 523), -128, np.int8), np.full((389, 523), 127, np.int8)
    b[::3] = -128
    assert np.array_equal(ops.f(a, b), a.astype(np.int64) @ b.T.astype(np.int64))


def test_long_axes_have_the_lanes() -> None:
    """A matrix of bytes by few columns is turned round; of floats, or by a register of columns, it is not."""
    spec = replace(CPU, features=frozenset({"avx512vnni"}))

    def vector(dtype: str, acc: str, columns: int) -> str:
        op = op_of(f"op f(A: {dtype}[M, K], B: {dtype}[K, N]) -> C: {acc}[M, N] {{ C[i, j] = sum[k; acc={acc}](A[i, k] * B[k, j]) }}")
        steps = automatic(op, spec, {"M": 600, "K": 600, "N": columns})
        return next(s.axis for s in steps if isinstance(s, Vector))

    assert [vector("i8", "i32", n)[0] for n in (2, 15, 16)] == ["i", "i", "j"]
    assert vector("f32", "f32", 8)[0] == "j"


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
