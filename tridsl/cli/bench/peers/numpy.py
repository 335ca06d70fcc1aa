"""Formulas in NumPy. Given f64 arrays they are also the reference for sizes at which the interpreter would take minutes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tridsl.cli.bench.peers.contract import Arguments, Table, is_brain


def _matmul(a: Arguments, out: Sequence[Any]) -> Callable[[], Any] | None:
    """BLAS has no integers: f64 products of 8 and 16 bits are exact, and far faster than NumPy's loops over integers."""
    left, right, result = a["A"], a["B"], out[0]
    if is_brain(left):
        return None
    if left.dtype.kind != "i":
        return lambda: np.matmul(left, right, out=result)

    def call() -> Any:
        np.copyto(result, (left.astype(np.float64) @ right.astype(np.float64)).astype(np.int64), casting="unsafe")  # wraps
        return result

    return call


def _softmax(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y = a["x"], out[0]

    def call() -> Any:
        np.subtract(x, x.max(axis=-1, keepdims=True), out=y)
        np.exp(y, out=y)
        return np.divide(y, y.sum(axis=-1, keepdims=True), out=y)

    return call


def _layernorm(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y, eps = a["x"], out[0], a.get("eps", 1e-5)

    def call() -> Any:
        np.subtract(x, x.mean(axis=-1, keepdims=True), out=y)
        variance = np.einsum("...n,...n->...", y, y) / x.shape[-1]
        np.divide(y, np.sqrt(variance + eps, dtype=y.dtype)[..., None], out=y)
        np.multiply(y, a["gamma"], out=y)
        return np.add(y, a["beta"], out=y)

    return call


def _rmsnorm(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y, eps = a["x"], out[0], a.get("eps", 1e-5)

    def call() -> Any:
        square = np.einsum("...n,...n->...", x, x) / x.shape[-1]
        np.divide(x, np.sqrt(square + eps, dtype=y.dtype)[..., None], out=y)
        return np.multiply(y, a["gamma"], out=y)

    return call


def _attention(a: Arguments, out: Sequence[Any]) -> Callable[[], Any] | None:
    q, k, v, scale = a["Q"], a["K"], a["V"], a["scale"]
    if is_brain(q):
        return None
    group = q.shape[0] // k.shape[0]
    hidden = np.triu(np.ones((q.shape[1], k.shape[1]), bool), 1 + k.shape[1] - q.shape[1]) if a.get("causal") else None

    def call() -> Any:
        for head in range(q.shape[0]):
            scores = (q[head] @ k[head // group].T) * q.dtype.type(scale)
            if hidden is not None:
                scores[hidden] = -np.inf
            scores -= scores.max(axis=-1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=-1, keepdims=True)
            np.matmul(scores, v[head // group], out=out[0][head])
        return out[0]

    return call


def _tgemm(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    """BLAS has no integers: f32 products of small integers are exact while sums stay below 2^24, which 6912 * 128 does."""
    w, x = a["W"].astype(np.float32), a["X" if "X" in a else "x"].astype(np.float32)
    scale = (a["sw"] * a["sx"][:, None]) if "X" in a else a["sw"] * np.float32(a["sx"])
    return lambda: np.multiply(np.matmul(x, w.T, out=out[0]) if out[0].dtype == np.float32 else x @ w.T, scale, out=out[0])


def _gray(a: Arguments) -> Any:
    rgba = a["rgba"].astype(np.int32)
    return (4899 * rgba[..., 0] + 9617 * rgba[..., 1] + 1868 * rgba[..., 2] + 8192) >> 14


def _edges(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    def call() -> Any:
        g = np.pad(_gray(a), 1, mode="edge")
        laplacian = g[:-2, 1:-1] + g[2:, 1:-1] + g[1:-1, :-2] + g[1:-1, 2:] - 4 * g[1:-1, 1:-1]
        out[0][...] = np.where(np.abs(laplacian) > a["threshold"], 255, 0)
        return out[0]

    return call


def _sobel(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    def call() -> Any:
        g = np.pad(_gray(a), 1, mode="edge")
        x, y = g[:, 2:] - g[:, :-2], g[2:] - g[:-2]
        total = np.abs(x[:-2] + 2 * x[1:-1] + x[2:]) + np.abs(y[:, :-2] + 2 * y[:, 1:-1] + y[:, 2:])
        out[0][...] = np.where(total > a["threshold"], 255, 0)
        return out[0]

    return call


def _above(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, t = a["x"], a["t"]

    def call() -> Any:
        keep = x >= t
        return x[keep], np.flatnonzero(keep)

    return call


def _saxpy(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    scale = a["x"].dtype.type(a["a"])
    return lambda: np.add(np.multiply(a["x"], scale, out=out[0]), a["y"], out=out[0])


def _waves(a: Arguments, out: Sequence[Any]) -> Callable[[], Any]:
    x, y, scratch = a["x"], out[0], np.empty_like(a["x"])
    first, second = (x.dtype.type(a[name]) for name in ("a", "b"))

    def call() -> Any:
        np.multiply(x, x, out=y)
        np.negative(y, out=y)
        np.exp(y, out=y)
        np.multiply(y, first, out=y)
        np.multiply(x, second, out=scratch)
        np.tanh(scratch, out=scratch)
        return np.add(y, scratch, out=y)

    return call


NUMPY: Table = {
    "matmul": _matmul, "softmax": _softmax, "layernorm": _layernorm, "rmsnorm": _rmsnorm, "attention": _attention,
    "tgemm": _tgemm, "tgemv": _tgemm, "edges": _edges, "sobel_edges": _sobel, "above": _above, "saxpy": _saxpy, "waves": _waves,
    "cumsum": lambda a, out: lambda: np.cumsum(a["x"], axis=-1, out=out[0]),
    "add": lambda a, out: lambda: np.add(a["x"], a["y"], out=out[0]),
}  # fmt: skip
