"""Products of matrices as a user of Numba writes them: loops over the elements, in the order that suits memory; results last."""

from __future__ import annotations

import math
from typing import Any

import numpy as np


def gemm(alpha: Any, beta: Any, A: Any, B: Any, C: Any, D: Any) -> None:
    for i in range(D.shape[0]):
        for j in range(D.shape[1]):
            D[i, j] = beta * C[i, j]
        for k in range(A.shape[1]):
            for j in range(D.shape[1]):
                D[i, j] += alpha * A[i, k] * B[k, j]


def two_mm(alpha: Any, beta: Any, A: Any, B: Any, C: Any, D: Any, E: Any) -> None:
    t = np.zeros((A.shape[0], B.shape[1]))
    for i in range(t.shape[0]):
        for k in range(A.shape[1]):
            for j in range(t.shape[1]):
                t[i, j] += alpha * A[i, k] * B[k, j]
    for i in range(E.shape[0]):
        for j in range(E.shape[1]):
            E[i, j] = beta * D[i, j]
        for k in range(t.shape[1]):
            for j in range(E.shape[1]):
                E[i, j] += t[i, k] * C[k, j]


def three_mm(A: Any, B: Any, C: Any, D: Any, G: Any) -> None:
    E, F = np.zeros((A.shape[0], B.shape[1])), np.zeros((C.shape[0], D.shape[1]))
    for i in range(E.shape[0]):
        for k in range(A.shape[1]):
            for j in range(E.shape[1]):
                E[i, j] += A[i, k] * B[k, j]
    for i in range(F.shape[0]):
        for k in range(C.shape[1]):
            for j in range(F.shape[1]):
                F[i, j] += C[i, k] * D[k, j]
    for i in range(G.shape[0]):
        for j in range(G.shape[1]):
            G[i, j] = 0.0
        for k in range(E.shape[1]):
            for j in range(G.shape[1]):
                G[i, j] += E[i, k] * F[k, j]


def syrk(alpha: Any, beta: Any, A: Any, C: Any, D: Any) -> None:
    for i in range(D.shape[0]):
        for j in range(D.shape[1]):
            D[i, j] = beta * C[i, j] if j <= i else C[i, j]
        for k in range(A.shape[1]):
            for j in range(i + 1):
                D[i, j] += alpha * A[i, k] * A[j, k]


def syr2k(alpha: Any, beta: Any, A: Any, B: Any, C: Any, D: Any) -> None:
    for i in range(D.shape[0]):
        for j in range(D.shape[1]):
            D[i, j] = beta * C[i, j] if j <= i else C[i, j]
        for k in range(A.shape[1]):
            for j in range(i + 1):
                D[i, j] += alpha * (A[j, k] * B[i, k] + B[j, k] * A[i, k])


def trmm(alpha: Any, A: Any, B: Any, D: Any) -> None:
    for i in range(D.shape[0]):
        for j in range(D.shape[1]):
            D[i, j] = B[i, j]
        for k in range(i + 1, A.shape[0]):
            for j in range(D.shape[1]):
                D[i, j] += A[k, i] * B[k, j]
        for j in range(D.shape[1]):
            D[i, j] *= alpha


def symm(alpha: Any, beta: Any, A: Any, B: Any, C: Any, D: Any) -> None:
    t = np.empty(D.shape[1])
    for i in range(D.shape[0]):
        for j in range(D.shape[1]):
            t[j] = 0.0
        for k in range(i):
            for j in range(D.shape[1]):
                D[k, j] += alpha * B[i, j] * A[i, k]
                t[j] += B[k, j] * A[i, k]
        for j in range(D.shape[1]):
            D[i, j] = beta * C[i, j] + alpha * B[i, j] * A[i, i] + alpha * t[j]


def doitgen(A: Any, C: Any, B: Any) -> None:
    for r in range(A.shape[0]):
        for q in range(A.shape[1]):
            for p in range(A.shape[2]):
                B[r, q, p] = 0.0
            for s in range(A.shape[2]):
                for p in range(A.shape[2]):
                    B[r, q, p] += A[r, q, s] * C[s, p]


def covariance(x: Any, c: Any) -> None:
    M, N = x.shape
    m, d = np.zeros(N), np.empty_like(x)
    for i in range(M):
        for j in range(N):
            m[j] += x[i, j]
    for i in range(M):
        for j in range(N):
            d[i, j] = x[i, j] - m[j] / M
    c[:] = 0.0
    for i in range(M):
        for p in range(N):
            for q in range(p, N):
                c[p, q] += d[i, p] * d[i, q]
    for p in range(N):
        for q in range(p, N):
            c[p, q] /= M - 1.0
            c[q, p] = c[p, q]


def correlation(x: Any, c: Any) -> None:
    M, N = x.shape
    m, s, d = np.zeros(N), np.zeros(N), np.empty_like(x)
    for i in range(M):
        for j in range(N):
            m[j] += x[i, j]
    for j in range(N):
        m[j] /= M
    for i in range(M):
        for j in range(N):
            s[j] += (x[i, j] - m[j]) ** 2
    for j in range(N):
        s[j] = math.sqrt(s[j] / M) * math.sqrt(M)
    for i in range(M):
        for j in range(N):
            d[i, j] = (x[i, j] - m[j]) / s[j]
    c[:] = 0.0
    for i in range(M):
        for p in range(N):
            for q in range(p, N):
                c[p, q] += d[i, p] * d[i, q]
    for p in range(N):
        for q in range(p, N):
            c[q, p] = c[p, q]


def batched(A: Any, C: Any, D: Any) -> None:
    for b in range(A.shape[0]):
        for i in range(A.shape[1]):
            for j in range(D.shape[2]):
                D[b, i, j] = 0.0
            for k in range(A.shape[2]):
                for j in range(D.shape[2]):
                    D[b, i, j] += A[b, i, k] * C[b, k, j]


def einsum_ade_dbe(A: Any, B: Any, C: Any) -> None:
    C[:] = 0.0
    for a in range(A.shape[0]):
        for d in range(A.shape[1]):
            for b in range(B.shape[1]):
                s = 0.0
                for e in range(A.shape[2]):
                    s += A[a, d, e] * B[d, b, e]
                C[a, b] += s


def einsum_ikj_lk(A: Any, B: Any, C: Any) -> None:
    C[:] = 0.0
    for i in range(A.shape[0]):
        for l in range(B.shape[0]):
            for k in range(A.shape[1]):
                for j in range(A.shape[2]):
                    C[i, l, j] += A[i, k, j] * B[l, k]


def bilinear(x: Any, W: Any, y: Any, z: Any) -> None:
    for b in range(x.shape[0]):
        s = np.float32(0)
        for i in range(x.shape[1]):
            t = np.float32(0)
            for j in range(y.shape[1]):
                t += W[i, j] * y[b, j]
            s += x[b, i] * t
        z[b] = s


def distances(x: Any, y: Any, z: Any) -> None:
    for i in range(x.shape[0]):
        for j in range(y.shape[0]):
            s = np.float32(0)
            for d in range(x.shape[1]):
                s += (x[i, d] - y[j, d]) ** 2
            z[i, j] = math.sqrt(s)


def conv2d(x: Any, F: Any, y: Any) -> None:
    for o in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                y[o, i, j] = 0.0
            for c in range(F.shape[1]):
                for r in range(F.shape[2]):
                    for s in range(F.shape[3]):
                        for j in range(y.shape[2]):
                            y[o, i, j] += x[c, i + r, j + s] * F[o, c, r, s]
