"""Arguments of the kernels at three sizes: in the nearest cache, in the second, and beyond it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tridsl.structs import dataclass

Arguments = tuple[Any, ...]
Make = Callable[[np.random.Generator], Arguments]

SQUARES, VECTORS, ROWS, PICTURES = (16, 64, 300), (32, 170, 1500), (32, 170, 2000), (32, 256, 1200)
LONG = (1000, 30_000, 4_000_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One kernel at one size; `size` is what the table calls it."""

    kernel: str
    size: str
    make: Make


def _reals(*shape: int, dtype: Any = np.float64) -> Make:
    return lambda random: (random.standard_normal(shape).astype(dtype),)


def _floats(*shape: int) -> Make:
    return _reals(*shape, dtype=np.float32)


def _bytes(*shape: int) -> Make:
    return lambda random: (random.integers(0, 256, shape).astype(np.uint8),)


def _all(*makes: Make | float | np.generic) -> Make:
    """The arguments of all; a number is one argument."""
    return lambda random: tuple(a for m in makes for a in (m(random) if callable(m) else (m,)))


MAKERS: dict[str, tuple[tuple[Any, ...], Callable[[Any], Make]]] = {
    "gemm": (SQUARES, lambda n: _all(1.5, 1.2, *[_reals(n, n)] * 3)),
    "two_mm": (SQUARES, lambda n: _all(1.5, 1.2, *[_reals(n, n)] * 4)),
    "three_mm": (SQUARES, lambda n: _all(*[_reals(n, n)] * 4)),
    "syrk": (SQUARES, lambda n: _all(1.5, 1.2, *[_reals(n, n)] * 2)),
    "syr2k": (SQUARES, lambda n: _all(1.5, 1.2, *[_reals(n, n)] * 3)),
    "trmm": (SQUARES, lambda n: _all(1.5, *[_reals(n, n)] * 2)),
    "symm": (SQUARES, lambda n: _all(1.5, 1.2, *[_reals(n, n)] * 3)),
    "doitgen": (((6, 8, 10), (20, 25, 30), (60, 70, 80)), lambda n: _all(_reals(*n), _reals(n[2], n[2]))),
    "covariance": (SQUARES, lambda n: _reals(n + 20, n)),
    "correlation": (SQUARES, lambda n: _reals(n + 20, n)),
    "batched": (((4, 8, 8), (16, 24, 24), (64, 64, 64)), lambda n: _all(_floats(*n), _floats(n[0], n[2], n[1]))),
    "einsum_ade_dbe": ((8, 24, 64), lambda n: _all(_reals(n, n, n), _reals(n, n, n))),
    "einsum_ikj_lk": (((4, 16, 16), (16, 32, 32), (32, 96, 96)), lambda n: _all(_floats(*n), _floats(n[2], n[1]))),
    "bilinear": ((16, 64, 256), lambda n: _all(*[_floats(n, n)] * 3)),
    "distances": (((30, 3), (200, 8), (800, 64)), lambda n: _all(_floats(*n), _floats(*n))),
    "conv2d": (((1, 16, 4), (3, 34, 8), (16, 58, 32)), lambda n: _all(_floats(n[0], n[1], n[1]), _floats(n[2], n[0], 3, 3))),
    "atax": (VECTORS, lambda n: _all(_reals(n, n), _reals(n))),
    "bicg": (VECTORS, lambda n: _all(_reals(n, n), _reals(n), _reals(n))),
    "mvt": (VECTORS, lambda n: _all(_reals(n, n), *[_reals(n)] * 4)),
    "gesummv": (VECTORS, lambda n: _all(1.5, 1.2, _reals(n, n), _reals(n, n), _reals(n))),
    "gemver": (VECTORS, lambda n: _all(1.5, 1.2, _reals(n, n), *[_reals(n)] * 6)),
    "dot_i32": (LONG, lambda n: lambda random: tuple(random.integers(-99, 99, n).astype(np.int32) for _ in range(2))),
    "jacobi1d": (LONG, lambda n: _reals(n)),
    "jacobi2d": ((32, 200, 1500), lambda n: _reals(n, n)),
    "heat3d": ((12, 40, 160), lambda n: _reals(n, n, n)),
    "fdtd2d": ((32, 120, 1000), lambda n: _all(*[_reals(n, n)] * 3, 1.0)),
    "blur": ((32, 200, 2000), lambda n: _floats(n, n)),
    "largest_near": (PICTURES, lambda n: _bytes(n, n)),
    "gray": (PICTURES, lambda n: _bytes(n, n, 3)),
    "blend": (PICTURES, lambda n: _all(_bytes(n, n, 3), _bytes(n, n, 3), _bytes(n, n))),
    "threshold": (PICTURES, lambda n: _all(_bytes(n, n), np.uint8(100))),
    "histogram16": ((1000, 65_536, 1_440_000), lambda n: _bytes(n)),
    "clipped": (LONG, lambda n: _all(1.5, 0.5, _reals(n))),
    "axpy_chain": (LONG, lambda n: _all(np.float32(1.5), np.float32(0.5), _floats(n), _floats(n))),
    "dequantise": (ROWS, lambda n: _all(lambda random: (random.integers(-128, 128, (n, n)).astype(np.int8),), _floats(n))),
    "transposed_mean": ((30, 170, 1500), lambda n: _reals(n, n)),
    "standardise": (ROWS, lambda n: _floats(n, n)),
    "unit_rows": (ROWS, lambda n: _floats(n, n)),
    "softmax_columns": (ROWS, lambda n: _floats(n, n)),
    "logsumexp": (ROWS, lambda n: _floats(n, n)),
    "smallest_at": (ROWS, lambda n: _reals(n, n)),
    "any_above": (ROWS, lambda n: _all(_floats(n, n), np.float32(100))),
    "row_sums": (ROWS, lambda n: _floats(n, n)),
    "middle_sums": (((4, 16, 16), (20, 40, 40), (100, 200, 200)), lambda n: _reals(*n)),
    "cumsum_columns": (ROWS, lambda n: _reals(n, n)),
    "running_max": ((1000, 30_000, 1_000_000), lambda n: _floats(n)),
}
"""By name of the op: its sizes, and its arguments at one of them."""


def cases() -> list[Case]:
    found = []
    for kernel, (sizes, make) in MAKERS.items():
        found += [Case(kernel=kernel, size="x".join(map(str, n)) if isinstance(n, tuple) else str(n), make=make(n)) for n in sizes]
    return found
