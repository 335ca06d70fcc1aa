"""Tiles whose lanes lie apart in the result go through registers."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tests.passes.golden import body
from tests.schedule.programs import SMALL, check_same, op_of, steps_of
from tridsl.devices.spec import DeviceSpec

TURNED = "op f(A: {T}[M, K], B: {T}[K, N]) -> C: {T}[N, M] {{ C[j, i] = sum[k{acc}](A[i, k] * B[k, j]) }}"
TILE = "C.tile(i={rows}, j={width}).order(i.o, j.o, k, i.i, j.i).unroll(i.i).vector(j.i)"
CONVOLUTION = """op f(x: {T}[C, H, W], w: {T}[O, C, 3, 3]) -> y: {T}[O, H - 2, W - 2] {{
  y[o, i, j] = {T}(sum[c, r, s; acc=f32](x[c, i + r, j + s] * w[o, c, r, s]))
}}
"""


def after(rows: int, width: int, dtype: str = "f32", **sizes: int) -> str:
    return body("transpose_tiles", TURNED.format(T=dtype, acc=""), TILE.format(rows=rows, width=width), sizes=sizes)


def test_a_tile() -> None:
    text = after(8, 32, M=8, K=4, N=32)
    assert "\n".join(text.splitlines()[-2:]) == """\
copy C:acc.sum[i.i.out.t, j.i.out.t] -> C[j.i.out.t, i.i.out.t] for i.i.out.t < 8, j.i.out.t < 16, transposed
copy C:acc.sum[i.i.out.t16, j.i.out.t16 + 16] -> C[j.i.out.t16 + 16, i.i.out.t16] for i.i.out.t16 < 8, j.i.out.t16 < 16, transposed"""


@pytest.mark.parametrize(
    ("rows", "width", "dtype", "copies"),
    [(16, 16, "f32", 1), (5, 16, "f32", 1), (3, 16, "f32", 0), (17, 16, "f32", 0), (8, 8, "f32", 0), (8, 16, "f64", 2)],
)
def test_whole_tiles_of_some_rows(rows: int, width: int, dtype: str, copies: int) -> None:
    assert after(rows, width, dtype, M=rows, K=4, N=width).count("transposed") == copies


def test_lanes_side_by_side_stay() -> None:
    text = "op f(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] { C[i, j] = sum[k](A[i, k] * B[k, j]) }"
    assert "transposed" not in body("transpose_tiles", text, TILE.format(rows=8, width=16), sizes={"M": 8, "K": 3, "N": 16})


@pytest.mark.parametrize("spec", [None, SMALL])
def test_keeps_meaning(spec: DeviceSpec | None) -> None:
    op = op_of(TURNED.format(T="i32", acc="; acc=i32"))
    for rows, width in ((4, 16), (7, 32)):
        for sizes in ({"M": 14, "K": 3, "N": 64}, {"M": 9, "K": 2, "N": 40}):
            check_same(op, steps_of(op, TILE.format(rows=rows, width=width)), sizes, *([spec] if spec else []))


@pytest.mark.parametrize(("name", "dtype"), [("f32", np.float32), ("bf16", ml_dtypes.bfloat16), ("f16", np.float16)])
@pytest.mark.parametrize(("filters", "height", "width"), [(32, 4, 10), (16, 5, 16), (40, 3, 9)])
def test_convolutions_run(name: str, dtype: type, filters: int, height: int, width: int) -> None:
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-2, 3, shape).astype(dtype) for shape in ((2, height, width), (filters, 2, 3, 3)))
    windows = np.lib.stride_tricks.sliding_window_view(x.astype(np.float32), (3, 3), axis=(1, 2))
    want = np.einsum("cijrs,ocrs->oij", windows, w.astype(np.float32))
    np.testing.assert_array_equal(tridsl.compile(CONVOLUTION.format(T=name)).f(x, w).astype(np.float32), want)
