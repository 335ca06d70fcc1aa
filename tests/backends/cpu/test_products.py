"""Products of matrices through the library's calls: blocks, tails, every element type, views, and one answer for any team."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tridsl import stdlib

SIZES = [(64, 1024, 256), (61, 300, 83), (129, 517, 33), (97, 64, 400), (8, 600, 700), (1, 513, 300), (40, 2100, 70)]
"""Divisible and not by the tiles; few rows; a sum longer than one panel."""
BF16 = np.dtype(ml_dtypes.bfloat16)


def values(shape: tuple[int, int], dtype: np.dtype[Any], seed: int) -> np.ndarray[Any, Any]:
    """Small integers for floats, so that sums are exact in f32; the whole range for integers."""
    rng = np.random.default_rng(seed)
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        found = rng.integers(info.min, info.max, shape, endpoint=True)
        found[0], found[:, -1] = info.min, info.min  # whole rows and columns that saturate
        return found.astype(dtype)
    return rng.integers(-4, 5, shape).astype(dtype)


def product(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if a.dtype.kind in "iu":
        return (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)  # wraps
    return a.astype(np.float64) @ b.astype(np.float64)


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), np.dtype(np.float64), np.dtype(np.float16), BF16, np.dtype(np.int8), np.dtype(np.int16)], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=lambda s: "x".join(map(str, s)))
def test_sizes_and_types(size: tuple[int, int, int], dtype: np.dtype[Any]) -> None:
    m, k, n = size
    a, b = values((m, k), dtype, 0), values((k, n), dtype, 1)
    options: dict[str, Any] = {"U": "f32"} if dtype in (BF16, np.float16) else {}
    one, two = (stdlib.matmul(a, b, threads=count, **options) for count in (1, 2))
    np.testing.assert_array_equal(one, product(a, b))
    assert one.tobytes() == two.tobytes()


@pytest.mark.parametrize(("dtype", "turns"), [(np.dtype(np.float32), (0, 1)), (BF16, (0,)), (np.dtype(np.int8), (1,))], ids=str)
def test_views(dtype: np.dtype[Any], turns: tuple[int, ...]) -> None:
    """Transposed, strided, reversed and unaligned operands: every pair of them for f32, every second pair for each of the others."""
    m, k, n = 70, 300, 90
    big = values((2 * max(m, k), 2 * max(k, n) + 1), dtype, 2)
    options: dict[str, Any] = {"U": "f32"} if dtype == BF16 else {}
    for i, a in enumerate((big[:k, :m].T, big[:m, :k], big[: 2 * m : 2, 1 : k + 1], big[:m, : 2 * k : 2], big[m - 1 :: -1, :k])):
        for j, b in enumerate((big[:k, :n], big[:n, :k].T, big[: 2 * k : 2, 1 : n + 1], big[:k, : 2 * n : 2])):
            if (i + j) % 2 in turns:
                np.testing.assert_array_equal(stdlib.matmul(a, b, **options), product(a, b))


@pytest.mark.parametrize("dtype", [np.dtype(np.float32), BF16], ids=str)
def test_weights_stored_by_rows(dtype: np.dtype[Any]) -> None:
    x, w = values((75, 333), dtype, 3), values((130, 333), dtype, 4)
    np.testing.assert_array_equal(stdlib.linear(x, w).astype(np.float64), product(x, w.T.copy()).astype(dtype).astype(np.float64))


def test_values_that_are_no_numbers() -> None:
    """What stands in the padding of a panel (zeros) never meets an infinity: only the rows and columns that hold one have NaN."""
    a, b = np.ones((50, 270), np.float32), np.ones((270, 70), np.float32)
    a[7, 3], b[9, 11] = np.inf, np.nan
    got = stdlib.matmul(a, b)
    assert np.isinf(np.delete(got[7], 11)).all() and np.isnan(got[:, 11]).all()
    assert (np.delete(np.delete(got, 7, 0), 11, 1) == 270).all()


def test_denormals_of_bf16_count() -> None:
    """They are widened to f32, unless a chip's instruction for pairs, which takes them for zeros, is faster."""
    tiny = np.frombuffer(np.uint16(0x0040).tobytes(), BF16)[0]  # half of the smallest normal number
    a, b = np.full((48, 64), tiny, BF16), np.full((64, 64), 2.0**120, BF16)
    got = stdlib.matmul(a, b, U="f32")
    exact = 64 * float(tiny) * 2.0**120
    assert np.all((got == np.float32(exact)) | (got == 0)) and len(np.unique(got)) == 1
