"""What the kernels of `polybench.tri` compute, as whole-array formulas of NumPy (`P` numpy: the judge, in f64) and JAX (`P` jax.numpy)."""

from __future__ import annotations

from typing import Any


def gemm(P: Any, alpha: Any, beta: Any, A: Any, B: Any, C: Any) -> Any:
    return alpha * A @ B + beta * C


def two_mm(P: Any, alpha: Any, beta: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    return alpha * A @ B @ C + beta * D


def three_mm(P: Any, A: Any, B: Any, C: Any, D: Any) -> Any:
    return (A @ B) @ (C @ D)


def _lower(P: Any, n: int) -> Any:
    return P.tri(n, dtype=bool)


def syrk(P: Any, alpha: Any, beta: Any, A: Any, C: Any) -> Any:
    return P.where(_lower(P, len(C)), alpha * A @ A.T + beta * C, C)


def syr2k(P: Any, alpha: Any, beta: Any, A: Any, B: Any, C: Any) -> Any:
    return P.where(_lower(P, len(C)), alpha * (B @ A.T + A @ B.T) + beta * C, C)


def trmm(P: Any, alpha: Any, A: Any, B: Any) -> Any:
    return alpha * (B + P.tril(A, -1).T @ B)


def symm(P: Any, alpha: Any, beta: Any, A: Any, B: Any, C: Any) -> Any:
    return alpha * (P.tril(A) + P.tril(A, -1).T) @ B + beta * C


def doitgen(P: Any, A: Any, C: Any) -> Any:
    return A @ C


def covariance(P: Any, x: Any) -> Any:
    d = x - x.mean(0)
    return d.T @ d / (len(x) - 1)


def correlation(P: Any, x: Any) -> Any:
    d = (x - x.mean(0)) / (P.sqrt(len(x)) * x.std(0))
    return d.T @ d


def batched(P: Any, A: Any, C: Any) -> Any:
    return A @ C


def einsum_ade_dbe(P: Any, A: Any, B: Any) -> Any:
    return P.einsum("ade,dbe->ab", A, B, optimize=True)


def einsum_ikj_lk(P: Any, A: Any, B: Any) -> Any:
    return P.einsum("ikj,lk->ilj", A, B, optimize=True)


def bilinear(P: Any, x: Any, W: Any, y: Any) -> Any:
    return ((x @ W) * y).sum(1)


def distances(P: Any, x: Any, y: Any) -> Any:
    return P.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))


def conv2d(P: Any, x: Any, F: Any) -> Any:
    rows, columns = x.shape[1] - F.shape[2] + 1, x.shape[2] - F.shape[3] + 1
    places = [(r, s) for r in range(F.shape[2]) for s in range(F.shape[3])]
    return sum(P.einsum("chw,oc->ohw", x[:, r : r + rows, s : s + columns], F[:, :, r, s]) for r, s in places)


def atax(P: Any, A: Any, x: Any) -> Any:
    return (A @ x) @ A


def bicg(P: Any, A: Any, p: Any, r: Any) -> Any:
    return A @ p, r @ A


def mvt(P: Any, A: Any, x1: Any, x2: Any, y1: Any, y2: Any) -> Any:
    return x1 + A @ y1, x2 + y2 @ A


def gesummv(P: Any, alpha: Any, beta: Any, A: Any, B: Any, x: Any) -> Any:
    return alpha * (A @ x) + beta * (B @ x)


def gemver(P: Any, alpha: Any, beta: Any, A: Any, u1: Any, v1: Any, u2: Any, v2: Any, y: Any, z: Any) -> Any:
    B = A + P.outer(u1, v1) + P.outer(u2, v2)
    x = beta * (y @ B) + z
    return B, x, alpha * (B @ x)


def dot_i32(P: Any, x: Any, y: Any) -> Any:
    return (x * y).sum(dtype=P.int32)


def jacobi1d(P: Any, x: Any) -> Any:
    return 0.33333 * (x[:-2] + x[1:-1] + x[2:])


def jacobi2d(P: Any, x: Any) -> Any:
    return 0.2 * (x[1:-1, 1:-1] + x[1:-1, :-2] + x[1:-1, 2:] + x[2:, 1:-1] + x[:-2, 1:-1])


def heat3d(P: Any, x: Any) -> Any:
    middle = x[1:-1, 1:-1, 1:-1]
    along = (
        (x[2:, 1:-1, 1:-1], x[:-2, 1:-1, 1:-1]), (x[1:-1, 2:, 1:-1], x[1:-1, :-2, 1:-1]), (x[1:-1, 1:-1, 2:], x[1:-1, 1:-1, :-2]),
    )  # fmt: skip
    return sum(0.125 * (a - 2 * middle + b) for a, b in along) + middle


def fdtd2d(P: Any, ex: Any, ey: Any, hz: Any, t: Any) -> Any:
    ey2 = P.concatenate([P.full((1, ey.shape[1]), t), ey[1:] - 0.5 * (hz[1:] - hz[:-1])])
    ex2 = P.concatenate([ex[:, :1], ex[:, 1:] - 0.5 * (hz[:, 1:] - hz[:, :-1])], axis=1)
    return ey2, ex2, hz[:-1, :-1] - 0.7 * (ex2[:-1, 1:] - ex2[:-1, :-1] + ey2[1:, :-1] - ey2[:-1, :-1])


def blur(P: Any, x: Any) -> Any:
    h = (x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]) * 0.25
    return (h[:-2] + 2 * h[1:-1] + h[2:]) * 0.25


def largest_near(P: Any, x: Any) -> Any:
    m, n = x.shape[0] - 2, x.shape[1] - 2
    return P.stack([x[a : a + m, b : b + n] for a in range(3) for b in range(3)]).max(0)


def gray(P: Any, x: Any) -> Any:
    x = x.astype("int32")
    return ((77 * x[..., 0] + 150 * x[..., 1] + 29 * x[..., 2]) // 256).astype("uint8")


def blend(P: Any, a: Any, b: Any, m: Any) -> Any:
    a, b, m = a.astype("int32"), b.astype("int32"), m.astype("int32")[..., None]
    return ((a * m + b * (255 - m) + 127) // 255).astype("uint8")


def threshold(P: Any, x: Any, t: Any) -> Any:
    return P.where(x > t, 255, 0).astype("uint8")


def histogram16(P: Any, x: Any) -> Any:
    return P.bincount(x // 16, **({"minlength": 16} if P.__name__ == "numpy" else {"length": 16}))


def clipped(P: Any, a: Any, b: Any, x: Any) -> Any:
    return P.clip(P.where(x > 0, x * a, x * b), -1, 2)


def axpy_chain(P: Any, a: Any, b: Any, x: Any, y: Any) -> Any:
    return a * x + b * x * x - y


def dequantise(P: Any, x: Any, s: Any) -> Any:
    return x.astype("float32") * s


def transposed_mean(P: Any, x: Any) -> Any:
    return 0.5 * (x + x.T)


def standardise(P: Any, x: Any) -> Any:
    return (x - x.mean(0)) / P.sqrt(x.var(0) + 1e-5)


def unit_rows(P: Any, x: Any) -> Any:
    return x / P.maximum(P.sqrt((x * x).sum(1, keepdims=True)), 1e-6)


def softmax_columns(P: Any, x: Any) -> Any:
    e = P.exp(x - x.max(0))
    return e / e.sum(0)


def logsumexp(P: Any, x: Any) -> Any:
    m = x.max(1)
    return P.log(P.exp(x - m[:, None]).sum(1)) + m


def smallest_at(P: Any, x: Any) -> Any:
    return x.argmin(1)


def any_above(P: Any, x: Any, t: Any) -> Any:
    return (x > t).any(1)


def row_sums(P: Any, x: Any) -> Any:
    return x.sum(1)


def middle_sums(P: Any, x: Any) -> Any:
    return x.sum((0, 2))


def cumsum_columns(P: Any, x: Any) -> Any:
    return x.cumsum(0)


def running_max(P: Any, x: Any) -> Any:
    if P.__name__ == "numpy":
        return P.maximum.accumulate(x)
    from jax.lax import cummax

    return cummax(x)
