"""Every library op against a formula written here in NumPy (f64 on the already rounded inputs), with the library's tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.stdlib.calling import Trits, call, call_kernel
from tridsl.diagnostics import TriError
from tridsl.stdlib import names, source

bf16 = ml_dtypes.bfloat16
FLOATS = (np.float32, np.float16, bf16)
WITH_F64 = (*FLOATS, np.float64)
TOLERANCE = {np.float64: (1e-12, 1e-12), np.float32: (1e-5, 1e-6), np.float16: (1e-3, 1e-4), bf16: (1.6e-2, 1e-3)}
LENGTHS = (1, 2, 7, 64, 97)
Array = np.ndarray[Any, Any]


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def close(got: Array, want: Array, dtype: Any, scale: float = 1) -> None:
    """`got` has the type and, within its tolerance, the values wanted."""
    assert got.dtype == dtype and got.shape == want.shape
    rtol, atol = TOLERANCE[dtype]
    np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=rtol * scale, atol=atol * scale)


def f64(*arrays: Array) -> list[Array]:
    return [a.astype(np.float64) for a in arrays]


# Linear algebra.

SHAPES = ((1, 1, 1), (0, 3, 2), (3, 0, 2), (7, 13, 5), (33, 64, 17))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", WITH_F64)
def test_matmul(dtype: Any, shape: tuple[int, int, int]) -> None:
    m, k, n = shape
    a, b = normal(m, k, dtype=dtype), normal(k, n, dtype=dtype, seed=1)
    close(call("matmul", a, b), f64(a)[0] @ f64(b)[0], dtype, scale=max(1, math.sqrt(k)))


def test_matmul_into_f32() -> None:
    a, b = normal(5, 300, dtype=bf16), normal(300, 4, dtype=bf16, seed=1)
    got = call("matmul", a, b, types={"U": "f32"})
    want = a.astype(np.float64) @ b.astype(np.float64)
    assert got.dtype == np.float32
    assert (
        np.abs(got - want) <= 2 * 300 * 2.0**-24 * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)))
    ).all()


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_integer_matmul_is_exact_and_wraps(dtype: Any) -> None:
    a, b = np.full((2, 70_000), np.iinfo(dtype).min, dtype), np.full((70_000, 3), np.iinfo(dtype).min, dtype)
    want = (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32)
    np.testing.assert_array_equal(call("matmul", a, b), want)


def test_matmul_maps_over_leading_axes_and_broadcasts() -> None:
    a, b = normal(2, 1, 4, 5), normal(3, 5, 6, seed=1)
    close(call("matmul", a, b), np.matmul(*f64(a, b)), np.float32, scale=4)
    close(call("matmul", a[0, 0], b), np.matmul(*f64(a[0, 0], b)), np.float32, scale=4)


@pytest.mark.parametrize("dtype", WITH_F64)
def test_linear(dtype: Any) -> None:
    x, w, b = normal(3, 20, dtype=dtype), normal(7, 20, dtype=dtype, seed=1), normal(7, dtype=dtype, seed=2)
    close(call("linear", x, w), f64(x)[0] @ f64(w)[0].T, dtype, scale=8)
    close(call("linear", x, w, b), f64(x)[0] @ f64(w)[0].T + f64(b)[0], dtype, scale=8)


@pytest.mark.parametrize("dtype", FLOATS)
def test_lora(dtype: Any) -> None:
    x, w, a, b = (normal(*s, dtype=dtype, seed=n) for n, s in enumerate([(3, 20), (7, 20), (4, 20), (7, 4)]))
    dx, dw, da, db = f64(x, w, a, b)
    close(call("lora", x, w, a, b, 0.5), dx @ dw.T + 0.5 * (dx @ da.T) @ db.T, dtype, scale=8)


def convolution(x: Array, f: Array, stride: int, p: int) -> Array:
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, f.shape[2:], axis=(2, 3))[:, :, ::stride, ::stride]
    return np.einsum("bcyxrs,ocrs->boyx", windows, f)


@pytest.mark.parametrize(
    ("size", "filters", "stride", "p"),
    [
        ((5, 7), (3, 3), 1, 0),
        ((5, 7), (3, 3), 2, 1),
        ((4, 4), (1, 1), 3, 0),
        ((6, 5), (2, 5), 1, 2),
        ((3, 3), (3, 3), 1, 0),
    ],
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_conv2d(dtype: Any, size: tuple[int, int], filters: tuple[int, int], stride: int, p: int) -> None:
    x, f = normal(2, 3, *size, dtype=dtype), normal(4, 3, *filters, dtype=dtype, seed=1)
    close(call("conv2d", x, f, stride=stride, p=p), convolution(*f64(x, f), stride, p), dtype, scale=8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, bf16])
@pytest.mark.parametrize(("size", "filters", "stride", "p"), [((5, 7), (3, 3), 1, 1), ((9, 33), (2, 5), 2, 0), ((3, 3), (3, 3), 1, 0)])
def test_depthwise(dtype: Any, size: tuple[int, int], filters: tuple[int, int], stride: int, p: int) -> None:
    x, f = normal(2, 3, *size, dtype=dtype), normal(3, *filters, dtype=dtype, seed=1)
    each = [convolution(*f64(x[:, c : c + 1], f[None, c : c + 1]), stride, p) for c in range(3)]
    close(call("depthwise", x, f, stride=stride, p=p), np.concatenate(each, axis=1), dtype, scale=8)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, bf16])
@pytest.mark.parametrize(("size", "patch"), [((8, 12), 4), ((9, 7), 3), ((6, 6), 1), ((34, 66), 16)])
def test_patch_embed(dtype: Any, size: tuple[int, int], patch: int) -> None:
    x, f, bias = normal(2, 3, *size, dtype=dtype), normal(5, 3, patch, patch, dtype=dtype, seed=1), normal(5, dtype=dtype, seed=2)
    whole = x[:, :, : size[0] // patch * patch, : size[1] // patch * patch]
    want = np.moveaxis(convolution(*f64(whole, f), patch, 0), 1, -1) + f64(bias)[0]
    close(call("patch_embed", x, f, bias), want, dtype, scale=32)


# Rows.


def softmax(x: Array) -> Array:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", WITH_F64)
def test_softmax(dtype: Any, length: int) -> None:
    x = normal(3, length, dtype=dtype) * dtype(10)
    got = call("softmax", x)
    close(got, softmax(f64(x)[0]), dtype)
    if dtype == np.float32:
        np.testing.assert_allclose(got, softmax(f64(x)[0]), rtol=5e-6)
        np.testing.assert_allclose(got.sum(axis=-1), 1, rtol=1e-6)


def test_softmax_of_infinities_and_of_nothing() -> None:
    x = np.array([[0, -np.inf, 0], [-np.inf] * 3, [np.nan, 0, 0]], np.float32)
    got = call("softmax", x)
    np.testing.assert_array_equal(got[0], [0.5, 0, 0.5])
    assert np.isnan(got[1:]).all()
    with pytest.raises(TriError, match="at least one element"):
        call("softmax", np.zeros(0, np.float32))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_layernorm(dtype: Any, length: int) -> None:
    x, g, b = normal(3, length, dtype=dtype), normal(length, dtype=dtype, seed=1), normal(length, dtype=dtype, seed=2)
    dx, dg, db = f64(x, g, b)
    mean, variance = dx.mean(axis=-1, keepdims=True), dx.var(axis=-1, keepdims=True)
    close(call("layernorm", x, g, b), (dx - mean) / np.sqrt(variance + 1e-5) * dg + db, dtype, scale=2)
    close(call("layernorm", x, g, b, 0.1), (dx - mean) / np.sqrt(variance + 0.1) * dg + db, dtype)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_rmsnorm(dtype: Any, length: int) -> None:
    x, g = normal(2, 2, length, dtype=dtype), normal(length, dtype=dtype, seed=1)
    dx, dg = f64(x, g)
    want = dx / np.sqrt((dx**2).mean(axis=-1, keepdims=True) + 1e-6) * dg
    close(call("rmsnorm", x, g, 1e-6), want, dtype)
    close(call("rmsnorm", x, g.astype(np.float32), 1e-6), want, dtype)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("dtype", FLOATS)
def test_rope(dtype: Any, interleaved: bool) -> None:
    heads, length, pairs = 2, 5, 4
    x = normal(heads, length, 2 * pairs, dtype=dtype)
    angle = (np.arange(length)[:, None] + 2**17) * 10_000.0 ** (-np.arange(pairs) / pairs)
    cos, sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    first, second = (slice(0, None, 2), slice(1, None, 2)) if interleaved else (slice(pairs), slice(pairs, None))
    dx = f64(x)[0]
    want = np.empty_like(dx)
    want[..., first] = dx[..., first] * np.cos(angle) - dx[..., second] * np.sin(angle)
    want[..., second] = dx[..., second] * np.cos(angle) + dx[..., first] * np.sin(angle)
    close(call("rope_interleaved" if interleaved else "rope", x, cos, sin), want, dtype)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


ELEMENTWISE: dict[str, tuple[int, Callable[..., Array]]] = {
    "silu": (1, lambda x: x * sigmoid(x)),
    "silu_mul": (2, lambda g, u: g * sigmoid(g) * u),
    "relu2_mul": (2, lambda g, u: np.maximum(g, 0) ** 2 * u),
    "gelu": (1, lambda x: x / 2 * (1 + np.vectorize(math.erf, otypes=[float])(x / math.sqrt(2)))),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
@pytest.mark.parametrize("dtype", WITH_F64)
def test_elementwise(dtype: Any, name: str) -> None:
    count, formula = ELEMENTWISE[name]
    for shape in ((0,), (1,), (97,), (3, 1, 5)):
        args = [normal(*shape, dtype=dtype, seed=n) * dtype(3) for n in range(count)]
        close(call(name, *args), formula(*f64(*args)), dtype)


def test_gated_units_at_the_ends_of_the_range() -> None:
    x = np.array([-1e4, -88.8, 88.8, 1e4, -np.inf, np.nan], np.float32)
    got = call("silu", x)
    np.testing.assert_allclose(got[:4], [0, -2.4e-37, 88.8, 1e4], rtol=1, atol=1e-37)
    assert np.isnan(got[4:]).all()


# Attention.


def attention(q: Array, k: Array, v: Array, scale: float, causal: bool) -> Array:
    heads, s, _ = q.shape
    group, length, _ = k.shape
    k, v = (np.repeat(a, heads // group, axis=0) for a in (k, v))
    score = np.einsum("hqd,htd->hqt", q, k) * scale
    if causal:
        score = np.where(np.arange(length)[None, :] > np.arange(s)[:, None] + length - s, -np.inf, score)
    peak = np.maximum(score.max(axis=-1, keepdims=True), np.finfo(np.float64).min)
    weight = np.exp(score - peak)
    total = weight.sum(axis=-1, keepdims=True)
    return np.einsum("hqt,hte->hqe", np.divide(weight, total, where=total != 0, out=np.zeros_like(weight)), v)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1, 1, 1), (4, 2, 5, 5, 8, 8), (6, 2, 1, 33, 16, 4), (2, 2, 7, 3, 4, 4), (3, 1, 17, 64, 8, 5)]
)
@pytest.mark.parametrize("dtype", FLOATS)
def test_attention(dtype: Any, shape: tuple[int, ...], causal: bool) -> None:
    heads, group, s, length, d, e = shape
    q, k, v = (
        normal(heads, s, d, dtype=dtype),
        normal(group, length, d, dtype=dtype, seed=1),
        normal(group, length, e, dtype=dtype, seed=2),
    )
    got = call("attention", q, k, v, 0.25, causal=causal)
    close(got, attention(*f64(q, k, v), 0.25, causal), dtype, scale=2)


def test_attention_maps_over_batches_and_rejects_a_wrong_grouping() -> None:
    q, k, v = normal(2, 4, 3, 8), normal(2, 2, 6, 8, seed=1), normal(2, 2, 6, 8, seed=2)
    want = np.stack([attention(*f64(q[b], k[b], v[b]), 0.5, False) for b in range(2)])
    close(call("attention", q, k, v, 0.5), want, np.float32, scale=2)
    with pytest.raises(TriError):
        call("attention", q[0, :3], k[0], v[0], 0.5)


def mla(qn: Array, qr: Array, c: Array, wk: Array, wv: Array, scale: float, causal: bool) -> Array:
    """Keys and values of every head from the cached rows, then attention."""
    heads, latent, _ = wk.shape
    k = np.concatenate([np.einsum("tc,hcn->htn", c[:, :latent], wk), np.repeat(c[None, :, latent:], heads, axis=0)], axis=-1)
    v = np.einsum("tc,hce->hte", c[:, :latent], wv)
    return attention(np.concatenate([qn, qr], axis=-1), k, v, scale, causal)


@pytest.mark.parametrize("name", ["mla", "mla_absorbed"])
@pytest.mark.parametrize(("shape", "causal"), [((1, 1, 1, 1, 1, 1, 1), False), ((3, 4, 7, 5, 2, 6, 4), True), ((2, 1, 9, 3, 1, 4, 8), False), ((2, 5, 3, 2, 2, 2, 2), True)])
@pytest.mark.parametrize("dtype", FLOATS)
def test_mla_made_or_absorbed(dtype: Any, shape: tuple[int, ...], causal: bool, name: str) -> None:
    h, s, length, n, r, m, e = shape
    sizes = ((h, s, n), (h, s, r), (length, m + r), (h, m, n), (h, m, e))
    given = [normal(*size, dtype=dtype, seed=seed) for seed, size in enumerate(sizes)]
    close(call(name, *given, 0.25, causal=causal), mla(*f64(*given), 0.25, causal), dtype, scale=2 * m)


# Ternary.


def trits(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).integers(-1, 2, shape, dtype=np.int8).view(Trits)


@pytest.mark.parametrize(("m", "k"), [(1, 1), (3, 0), (5, 7), (64, 129)])
def test_tgemv_is_exact(m: int, k: int) -> None:
    w, x = trits(m, k), np.random.default_rng(1).integers(-128, 128, k, dtype=np.int8)
    sw, sx = normal(m, seed=2), np.float32(0.0123)
    dot = np.asarray(w).astype(np.int64) @ x.astype(np.int64)
    np.testing.assert_array_equal(call("tgemv", w, x, sw, float(sx)), dot.astype(np.float32) * sw * sx)


def test_tgemm_is_tgemv_for_each_token() -> None:
    w, x = trits(5, 33), np.random.default_rng(1).integers(-128, 128, (4, 33), dtype=np.int8)
    sw, sx = normal(5, seed=2), np.abs(normal(4, seed=3))
    dot = x.astype(np.int64) @ np.asarray(w).astype(np.int64).T
    np.testing.assert_array_equal(call("tgemm", w, x, sw, sx), dot.astype(np.float32) * sw * sx[:, None])


@pytest.mark.parametrize("dtype", FLOATS)
def test_quantise_is_bitnets_rule(dtype: Any) -> None:
    x = np.concatenate([normal(4, 97, dtype=dtype), np.zeros((1, 97), dtype), np.full((1, 97), 3, dtype)])
    x[3, :3] = np.array([127, 0.5, 1.5], dtype)  # ties: 127 is the peak of the row, so its scale is 1
    x[3, 3:] = 0
    wide = x.astype(np.float32)
    peak = np.maximum(np.abs(wide).max(axis=-1), np.float32(1e-5))
    want = np.clip(np.rint(wide * (np.float32(127) / peak)[:, None]), -128, 127).astype(np.int8)
    q, sx = call("quantise", x)
    np.testing.assert_array_equal(q, want)
    np.testing.assert_array_equal(sx, peak / np.float32(127))
    assert q[3, :3].tolist() == [127, 0, 2] and not q[4].any()


def test_rmsnorm_quantise_is_both() -> None:
    x, g = normal(3, 50), normal(50, seed=1)
    q, sx = call("rmsnorm_quantise", x, g, 1e-6)
    want_q, want_sx = call("quantise", call("rmsnorm", x, g, 1e-6))
    np.testing.assert_array_equal(q, want_q)
    np.testing.assert_array_equal(sx, want_sx)


# Vision.


def gray(rgba: Array) -> Array:
    r, g, b = (rgba[..., n].astype(np.int64) for n in range(3))
    return (4899 * r + 9617 * g + 1868 * b + 8192) >> 14


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (2, 2), (13, 17)])
@pytest.mark.parametrize("threshold", [0, 100, 1020])
def test_edges_are_exact(shape: tuple[int, int], threshold: int) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
    p = np.pad(gray(rgba), 1, mode="edge")
    laplacian = p[:-2, 1:-1] + p[2:, 1:-1] + p[1:-1, :-2] + p[1:-1, 2:] - 4 * p[1:-1, 1:-1]
    np.testing.assert_array_equal(
        call("edges", rgba, threshold), np.where(np.abs(laplacian) > threshold, 255, 0).astype(np.uint8)
    )
    gx = (p[:-2, 2:] + 2 * p[1:-1, 2:] + p[2:, 2:]) - (p[:-2, :-2] + 2 * p[1:-1, :-2] + p[2:, :-2])
    gy = (p[2:, :-2] + 2 * p[2:, 1:-1] + p[2:, 2:]) - (p[:-2, :-2] + 2 * p[:-2, 1:-1] + p[:-2, 2:])
    np.testing.assert_array_equal(
        call("sobel_edges", rgba, threshold), np.where(np.abs(gx) + np.abs(gy) > threshold, 255, 0).astype(np.uint8)
    )


# Selection, scans, reductions.


@pytest.mark.parametrize("dtype", [*WITH_F64, np.int8, np.uint8, np.int16, np.int32])
@pytest.mark.parametrize("length", [0, 1, 17, 200])
def test_above(dtype: Any, length: int) -> None:
    x = (np.random.default_rng(0).normal(size=length) * 50).astype(np.int8).astype(dtype)
    y, pos = call("above", x, 5)
    np.testing.assert_array_equal(y, x[x >= dtype(5)])
    np.testing.assert_array_equal(pos, np.flatnonzero(x >= dtype(5)))
    assert y.dtype == dtype and pos.dtype == np.int32


def test_above_drops_nan() -> None:
    y, pos = call("above", np.array([np.nan, 2, np.inf, -np.inf], np.float32), 0.0)
    assert y.tolist() == [2, np.inf] and pos.tolist() == [1, 2]


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", FLOATS)
def test_collapse(dtype: Any, length: int) -> None:
    x = np.abs(normal(3, length, dtype=dtype))
    x[0] = x[0, 0]  # equals: all of them reach the greatest
    for frac in (0.0, 0.5, 1.0):
        level = np.float32(frac) * x.astype(np.float32).max(axis=-1, keepdims=True)
        np.testing.assert_array_equal(call("collapse", x, frac), np.where(x.astype(np.float32) >= level, x, dtype(0)))


def test_collapse_of_what_is_no_score() -> None:
    x = np.array([[-4, -2, -1], [np.nan, 1, 2], [np.inf, 1, -np.inf]], np.float32)
    np.testing.assert_array_equal(call("collapse", x, 0.5), [[0, 0, 0], [0, 0, 0], [np.inf, 0, 0]])
    np.testing.assert_array_equal(call("collapse", x[:1], 1.0), [[0, 0, -1]])


@pytest.mark.parametrize("dtype", [*WITH_F64, np.int8, np.int32])
def test_collapse_at(dtype: Any) -> None:
    x = (normal(3, 50) * 3).astype(dtype)
    np.testing.assert_array_equal(call("collapse_at", x, 1), np.where(x >= 1, x, dtype(0)))
    if np.issubdtype(dtype, np.floating):
        x[0, :2] = np.nan, np.inf
        assert call("collapse_at", x, -1e4)[0, :2].tolist() == [0, np.inf]


@pytest.mark.parametrize("q", [-64, 0, 128, 300])
@pytest.mark.parametrize("dtype", FLOATS)
def test_collapse_fixed(dtype: Any, q: int) -> None:
    x = normal(3, 50, dtype=dtype)
    np.testing.assert_array_equal(call("collapse_fixed", x, q=q), np.where(x.astype(np.float32) >= q / 256, x, dtype(0)))


@pytest.mark.parametrize("dtype", [*WITH_F64, np.uint8, np.int64])
def test_reverse(dtype: Any) -> None:
    x = normal(3, 41).astype(dtype)
    np.testing.assert_array_equal(call("reverse", x), x[:, ::-1])


def skewed(count: int, exponent: float, seed: int) -> Array:
    """Sizes that fall off as a power law, shuffled; their mean is 1."""
    sizes = np.arange(1, count + 1) ** -exponent
    sizes /= sizes.mean()
    np.random.default_rng(seed).shuffle(sizes)
    return sizes


def cosine(a: Array, b: Array) -> float:
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


@pytest.mark.parametrize("dtype", FLOATS)
def test_ffn_prune_keeps_the_most_important_units(dtype: Any) -> None:
    act, w = np.maximum(normal(7, 30, dtype=dtype), dtype(0)), normal(30, 5, dtype=dtype, seed=1)
    importance = np.linalg.norm(f64(act)[0], axis=0) * np.linalg.norm(f64(w)[0], axis=1)
    unit, some, rows = call("ffn_prune", act, w, keep=9)
    np.testing.assert_array_equal(unit, np.argsort(-importance, kind="stable")[:9])
    np.testing.assert_array_equal(some, act[:, unit])
    np.testing.assert_array_equal(rows, w[unit])
    assert call("ffn_prune", act, w, keep=0)[0].shape == (0,)


def test_ffn_prune_at_the_published_skew() -> None:
    """A quarter of 2048 units is left: the product's cosine stays above 0.9983 (0.99840 in f64)."""
    g = np.random.default_rng(0)
    x, up, down = g.standard_normal((512, 512)), g.standard_normal((512, 2048)), g.standard_normal((2048, 512))
    act = np.maximum(x @ up, 0).astype(np.float32)
    w = (down * skewed(2048, 0.9, 1)[:, None]).astype(np.float32)
    _, some, rows = call("ffn_prune", act, w, keep=512)
    assert cosine(some.astype(np.float64) @ rows, act.astype(np.float64) @ w) >= 0.9983


@pytest.mark.parametrize("dtype", FLOATS)
def test_kv_prune_keeps_the_keys_that_are_looked_at(dtype: Any) -> None:
    q, k, v = (normal(*s, dtype=dtype, seed=n) for n, s in enumerate([(7, 8), (20, 8), (20, 3)]))
    weights = softmax(f64(q)[0] @ f64(k)[0].T * 0.35).sum(axis=0)
    key, some, values = call("kv_prune", q, k, v, 0.35, keep=6)
    np.testing.assert_array_equal(key, np.argsort(-weights, kind="stable")[:6])
    np.testing.assert_array_equal(some, k[key])
    np.testing.assert_array_equal(values, v[key])


def test_kv_prune_at_the_published_skew() -> None:
    """A quarter of 512 keys is left: the cosine of what attention gives stays above 0.9753, with one more above 0.9755 (0.97535, 0.97559 in f64)."""
    g = np.random.default_rng(0)
    q, k, v = (g.standard_normal((512, 64)).astype(np.float32) for _ in range(3))
    k = (k * skewed(512, 0.35, 2)[:, None]).astype(np.float32)
    full = softmax(f64(q)[0] @ f64(k)[0].T / 8) @ v
    for keep, gate in ((128, 0.9753), (129, 0.9755)):
        _, some, values = call("kv_prune", q, k, v, 0.125, keep=keep)
        assert cosine(softmax(f64(q)[0] @ f64(some)[0].T / 8) @ values, full) >= gate


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_cumsum(dtype: Any) -> None:
    x = (normal(3, 100) * 5e8).astype(dtype)
    got = call("cumsum", x)
    want = np.cumsum(x, axis=-1, dtype=dtype if np.issubdtype(dtype, np.integer) else np.float64)
    np.testing.assert_allclose(
        got, want, rtol=0 if dtype in (np.int32, np.int64) else 1e-5, atol=0 if dtype in (np.int32, np.int64) else 1e4
    )


@pytest.mark.parametrize("dtype", [*WITH_F64, np.int32])
@pytest.mark.parametrize("k", [0, 1, 5, 20])
def test_topk(dtype: Any, k: int) -> None:
    x = np.random.default_rng(0).integers(-4, 5, (3, 20)).astype(dtype)
    v, i = call("topk", x, k)
    order = np.argsort(-x.astype(np.float64), axis=-1, kind="stable")[:, :k]
    np.testing.assert_array_equal(i, order)
    np.testing.assert_array_equal(v, np.take_along_axis(x, order, axis=-1))


@pytest.mark.parametrize("dtype", [*WITH_F64, np.int8, np.uint8, np.int16, np.int32, np.int64])
def test_argmax_and_max(dtype: Any) -> None:
    for shape in ((1,), (17,), (4, 33)):
        x = (np.random.default_rng(0).normal(size=shape) * 30).astype(np.int8).astype(dtype)
        np.testing.assert_array_equal(call("argmax", x), np.argmax(x, axis=-1))
        np.testing.assert_array_equal(call("max", x), np.max(x, axis=-1))
    with pytest.raises(TriError, match="at least one element"):
        call("max", np.zeros(0, dtype))


def test_argmax_and_max_of_nan() -> None:
    x = np.array([1, np.nan, 3, np.nan, np.inf], np.float32)
    assert call("argmax", x) == np.argmax(x) == 1
    assert np.isnan(call("max", x))
    assert call("argmax", np.full(3, -np.inf, np.float32)) == 0


@pytest.mark.parametrize("dtype", WITH_F64)
@pytest.mark.parametrize("shape", [(1,), (100,), (3, 17)])
def test_sum_and_mean(dtype: Any, shape: tuple[int, ...]) -> None:
    x = normal(*shape, dtype=dtype)
    close(call("sum", x), f64(x)[0].sum(axis=-1), dtype, scale=10)
    close(call("mean", x), f64(x)[0].mean(axis=-1), dtype)


@pytest.mark.parametrize(
    ("dtype", "out"),
    [(np.int8, np.int32), (np.uint8, np.int32), (np.int16, np.int32), (np.int32, np.int32), (np.int64, np.int64)],
)
def test_integer_sum(dtype: Any, out: Any) -> None:
    x = np.full((2, 1000), np.iinfo(dtype).max, dtype)
    np.testing.assert_array_equal(call("sum", x), np.sum(x, axis=-1, dtype=out))
    assert call("sum", x).dtype == out


def test_empty_reductions() -> None:
    assert call("sum", np.zeros(0, np.float32)) == 0
    assert np.isnan(call("mean", np.zeros(0, np.float32)))


@pytest.mark.parametrize("dtype", WITH_F64)
def test_saxpy(dtype: Any) -> None:
    x, y = normal(50, dtype=dtype), normal(50, dtype=dtype, seed=1)
    close(call("saxpy", 2.0, x, y), 2 * f64(x)[0] + f64(y)[0], dtype)


@pytest.mark.parametrize("dtype", [np.bool_, np.uint8, np.int64, bf16, np.float64])
def test_transpose(dtype: Any) -> None:
    x = normal(2, 3, 5).astype(dtype)
    np.testing.assert_array_equal(call("transpose", x), np.swapaxes(x, -1, -2))


# The whole library.

EXAMPLES: dict[str, tuple[Any, ...]] = {
    "matmul": (normal(3, 4), normal(4, 5)), "linear": (normal(4), normal(3, 4), normal(3)), "lora": (normal(4), normal(3, 4), normal(2, 4), normal(3, 2), 0.5),
    "conv2d": (normal(1, 2, 4, 4), normal(3, 2, 3, 3), 2, 1), "depthwise": (normal(1, 2, 4, 4), normal(2, 3, 3), 2, 1),
    "patch_embed": (normal(1, 2, 4, 6), normal(3, 2, 2, 2), normal(3)), "softmax": (normal(2, 5),), "layernorm": (normal(2, 5), normal(5), normal(5)),
    "rmsnorm": (normal(2, 5, dtype=bf16), normal(5, dtype=bf16)), "rope": (normal(3, 8), normal(3, 4), normal(3, 4)), "rope_interleaved": (normal(3, 8), normal(3, 4), normal(3, 4)),
    "silu": (normal(5),), "silu_mul": (normal(5), normal(5)), "relu2_mul": (normal(5), normal(5)), "gelu": (normal(5, dtype=np.float16),),
    "attention": (normal(4, 3, 4), normal(2, 5, 4), normal(2, 5, 2), 0.5, True),
    "mla": (normal(2, 3, 4), normal(2, 3, 2), normal(5, 8), normal(2, 6, 4), normal(2, 6, 3), 0.5, True),
    "mla_absorbed": (normal(2, 1, 4), normal(2, 1, 2), normal(5, 8), normal(2, 6, 4), normal(2, 6, 3), 0.5, True), "tgemv": (trits(3, 5), np.arange(5, dtype=np.int8), normal(3), 0.5),
    "tgemm": (trits(3, 5), np.arange(10, dtype=np.int8).reshape(2, 5), normal(3), normal(2)), "quantise": (normal(2, 7),), "rmsnorm_quantise": (normal(2, 7), normal(7)),
    "edges": (np.arange(96, dtype=np.uint8).reshape(4, 6, 4) * 37, 40), "sobel_edges": (np.arange(96, dtype=np.uint8).reshape(4, 6, 4) * 37, 40),
    "above": (normal(9), 0.0), "cumsum": (normal(2, 9),), "topk": (normal(2, 9), 3), "argmax": (normal(2, 9),), "saxpy": (2.0, normal(5), normal(5)),
    "collapse": (normal(2, 9), 0.5), "collapse_at": (normal(2, 9), 0.5), "collapse_fixed": (normal(2, 9), 64), "reverse": (normal(2, 9),),
    "ffn_prune": (normal(3, 9), normal(9, 4), 5), "kv_prune": (normal(3, 4), normal(7, 4), normal(7, 2), 0.5, 3),
    "transpose": (normal(3, 4),), "sum": (normal(2, 5),), "max": (normal(2, 5),), "mean": (normal(2, 5),),
}  # fmt: skip


def test_there_is_an_example_of_every_op() -> None:
    assert set(EXAMPLES) == set(names())


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_naive_kernels_agree(name: str) -> None:
    got, want = call_kernel(name, *EXAMPLES[name]), call(name, *EXAMPLES[name])
    for g, w in zip(*(r if isinstance(r, tuple) else (r,) for r in (got, want)), strict=True):
        assert g.dtype == w.dtype
        exact = not np.issubdtype(g.dtype, np.inexact) and g.dtype != bf16
        np.testing.assert_allclose(
            g.astype(np.float64),
            w.astype(np.float64),
            rtol=0 if exact else 1e-2 if g.dtype.itemsize == 2 else 1e-5,
            atol=0 if exact else 1e-6,
        )


@pytest.mark.parametrize("name", names())
def test_every_text_says_what_it_is(name: str) -> None:
    text = source(name).text
    assert text.startswith("# ") and f"op {name}" in text and f"bench {name} {{" in text


def test_an_unknown_name_is_the_users_mistake() -> None:
    with pytest.raises(TriError, match="its ops: above"):
        source("sotfmax")
