"""All but products of matrices as a user of Numba writes them: loops over the elements, in the order that suits memory; results last."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

ONE, QUARTER = np.float32(1), np.float32(0.25)


def atax(A: Any, x: Any, y: Any) -> None:
    y[:] = 0.0
    for i in range(A.shape[0]):
        t = 0.0
        for j in range(A.shape[1]):
            t += A[i, j] * x[j]
        for j in range(A.shape[1]):
            y[j] += A[i, j] * t


def bicg(A: Any, p: Any, r: Any, q: Any, s: Any) -> None:
    s[:] = 0.0
    for i in range(A.shape[0]):
        t = 0.0
        for j in range(A.shape[1]):
            s[j] += r[i] * A[i, j]
            t += A[i, j] * p[j]
        q[i] = t


def mvt(A: Any, x1: Any, x2: Any, y1: Any, y2: Any, a: Any, b: Any) -> None:
    for i in range(A.shape[0]):
        s = x1[i]
        for j in range(A.shape[1]):
            s += A[i, j] * y1[j]
        a[i] = s
    for i in range(A.shape[0]):
        b[i] = x2[i]
    for j in range(A.shape[0]):
        for i in range(A.shape[1]):
            b[i] += A[j, i] * y2[j]


def gesummv(alpha: Any, beta: Any, A: Any, B: Any, x: Any, y: Any) -> None:
    for i in range(A.shape[0]):
        s, t = 0.0, 0.0
        for j in range(A.shape[1]):
            s += A[i, j] * x[j]
            t += B[i, j] * x[j]
        y[i] = alpha * s + beta * t


def gemver(alpha: Any, beta: Any, A: Any, u1: Any, v1: Any, u2: Any, v2: Any, y: Any, z: Any, B: Any, x: Any, w: Any) -> None:
    N = A.shape[0]
    for i in range(N):
        for j in range(N):
            B[i, j] = A[i, j] + u1[i] * v1[j] + u2[i] * v2[j]
    x[:] = 0.0
    for j in range(N):
        for i in range(N):
            x[i] += beta * B[j, i] * y[j]
    for i in range(N):
        x[i] += z[i]
    for i in range(N):
        s = 0.0
        for j in range(N):
            s += B[i, j] * x[j]
        w[i] = alpha * s


def dot_i32(x: Any, y: Any, z: Any) -> None:
    s = np.int32(0)
    for i in range(x.shape[0]):
        s += x[i] * y[i]
    z[()] = s


def jacobi1d(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        y[i] = 0.33333 * (x[i] + x[i + 1] + x[i + 2])


def jacobi2d(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = 0.2 * (x[i + 1, j + 1] + x[i + 1, j] + x[i + 1, j + 2] + x[i + 2, j + 1] + x[i, j + 1])


def heat3d(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            for k in range(y.shape[2]):
                m = x[i + 1, j + 1, k + 1]
                y[i, j, k] = (
                    0.125 * (x[i + 2, j + 1, k + 1] - 2 * m + x[i, j + 1, k + 1])
                    + 0.125 * (x[i + 1, j + 2, k + 1] - 2 * m + x[i + 1, j, k + 1])
                    + 0.125 * (x[i + 1, j + 1, k + 2] - 2 * m + x[i + 1, j + 1, k])
                    + m
                )


def fdtd2d(ex: Any, ey: Any, hz: Any, t: Any, ey2: Any, ex2: Any, hz2: Any) -> None:
    M, N = ex.shape
    for j in range(N):
        ey2[0, j] = t
    for i in range(1, M):
        for j in range(N):
            ey2[i, j] = ey[i, j] - 0.5 * (hz[i, j] - hz[i - 1, j])
    for i in range(M):
        ex2[i, 0] = ex[i, 0]
        for j in range(1, N):
            ex2[i, j] = ex[i, j] - 0.5 * (hz[i, j] - hz[i, j - 1])
    for i in range(M - 1):
        for j in range(N - 1):
            hz2[i, j] = hz[i, j] - 0.7 * (ex2[i, j + 1] - ex2[i, j] + ey2[i + 1, j] - ey2[i, j])


def blur(x: Any, y: Any) -> None:
    h = np.empty((x.shape[0], x.shape[1] - 2), np.float32)
    for i in range(h.shape[0]):
        for j in range(h.shape[1]):
            h[i, j] = (x[i, j] + 2 * x[i, j + 1] + x[i, j + 2]) * QUARTER
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = (h[i, j] + 2 * h[i + 1, j] + h[i + 2, j]) * QUARTER


def largest_near(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            m = x[i, j]
            for a in range(3):
                for b in range(3):
                    m = max(m, x[i + a, j + b])
            y[i, j] = m


def gray(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = np.uint8((77 * np.int32(x[i, j, 0]) + 150 * np.int32(x[i, j, 1]) + 29 * np.int32(x[i, j, 2])) // 256)


def blend(a: Any, b: Any, m: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            w = np.int32(m[i, j])
            for c in range(3):
                y[i, j, c] = np.uint8((np.int32(a[i, j, c]) * w + np.int32(b[i, j, c]) * (255 - w) + 127) // 255)


def threshold(x: Any, t: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = 255 if x[i, j] > t else 0


def histogram16(x: Any, h: Any) -> None:
    h[:] = 0
    for i in range(x.shape[0]):
        h[x[i] // 16] += 1


def clipped(a: Any, b: Any, x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        v = x[i] * a if x[i] > 0 else x[i] * b
        y[i] = min(max(v, -1.0), 2.0)


def axpy_chain(a: Any, b: Any, x: Any, y: Any, z: Any) -> None:
    for i in range(z.shape[0]):
        z[i] = a * x[i] + b * x[i] * x[i] - y[i]


def dequantise(x: Any, s: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = np.float32(x[i, j]) * s[j]


def transposed_mean(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        for j in range(y.shape[1]):
            y[i, j] = 0.5 * (x[i, j] + x[j, i])


def standardise(x: Any, y: Any) -> None:
    M, N = x.shape
    m, v = np.zeros(N, np.float32), np.zeros(N, np.float32)
    for i in range(M):
        for j in range(N):
            m[j] += x[i, j]
    for j in range(N):
        m[j] /= np.float32(M)
    for i in range(M):
        for j in range(N):
            v[j] += (x[i, j] - m[j]) ** 2
    for j in range(N):
        v[j] = ONE / np.float32(math.sqrt(v[j] / np.float32(M) + np.float32(1e-5)))
    for i in range(M):
        for j in range(N):
            y[i, j] = (x[i, j] - m[j]) * v[j]


def unit_rows(x: Any, y: Any) -> None:
    for i in range(y.shape[0]):
        s = np.float32(0)
        for j in range(y.shape[1]):
            s += x[i, j] * x[i, j]
        s = max(np.float32(math.sqrt(s)), np.float32(1e-6))
        for j in range(y.shape[1]):
            y[i, j] = x[i, j] / s


def softmax_columns(x: Any, y: Any) -> None:
    M, N = x.shape
    m, s = x[0].copy(), np.zeros(N, np.float32)
    for i in range(M):
        for j in range(N):
            m[j] = max(m[j], x[i, j])
    for i in range(M):
        for j in range(N):
            y[i, j] = math.exp(x[i, j] - m[j])
            s[j] += y[i, j]
    for i in range(M):
        for j in range(N):
            y[i, j] /= s[j]


def logsumexp(x: Any, y: Any) -> None:
    for i in range(x.shape[0]):
        m = x[i, 0]
        for j in range(x.shape[1]):
            m = max(m, x[i, j])
        s = np.float32(0)
        for j in range(x.shape[1]):
            s += math.exp(x[i, j] - m)
        y[i] = math.log(s) + m


def smallest_at(x: Any, y: Any) -> None:
    for i in range(x.shape[0]):
        best, at = x[i, 0], 0
        for j in range(x.shape[1]):
            if x[i, j] < best:
                best, at = x[i, j], j
        y[i] = at


def any_above(x: Any, t: Any, y: Any) -> None:
    for i in range(x.shape[0]):
        found = False
        for j in range(x.shape[1]):
            found = found | (x[i, j] > t)
        y[i] = found


def row_sums(x: Any, y: Any) -> None:
    for i in range(x.shape[0]):
        s = np.float32(0)
        for j in range(x.shape[1]):
            s += x[i, j]
        y[i] = s


def middle_sums(x: Any, y: Any) -> None:
    y[:] = 0.0
    for a in range(x.shape[0]):
        for b in range(x.shape[1]):
            s = 0.0
            for c in range(x.shape[2]):
                s += x[a, b, c]
            y[b] += s


def cumsum_columns(x: Any, y: Any) -> None:
    for j in range(x.shape[1]):
        y[0, j] = x[0, j]
    for i in range(1, x.shape[0]):
        for j in range(x.shape[1]):
            y[i, j] = y[i - 1, j] + x[i, j]


def running_max(x: Any, y: Any) -> None:
    m = x[0]
    for i in range(x.shape[0]):
        m = max(m, x[i])
        y[i] = m
