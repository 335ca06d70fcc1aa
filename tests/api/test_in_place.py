"""Stages that read an `inout` parameter before another stage updates it, under the automatic schedule."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl

ROWS = np.random.default_rng(1).integers(1, 9, (33, 20)).astype(np.float32)

OPS = {
    "rows": "m[r] = max[n](K[r, n])\n e[r, n] = exp(K[r, n] - m[r])\n K[r, n] = e[r, n] / sum[k](e[r, k])",
    "own element": "t[i, j] = K[i, j] + 1\n K[i, j] = t[i, j] * 2",
    "mirrored": "t[i, j in 0..N] = K[i, N - 1 - j]\n K[i, j] = t[i, j] * 2",
    "columns": "u[j] = sum[i](K[i, j])\n d[i, j] = K[i, j] - u[j]\n w[i] = sum[j](abs(d[i, j]))\n K[i, j] = d[i, j] / w[i]",
    "neighbours": "g[i, j] = K[i, j] * 0.5 + 1\n K[i, j] = g[i - 1, j; pad=edge] + g[i + 1, j; pad=edge]",
}


@pytest.mark.parametrize("body", OPS.values(), ids=OPS)
def test_reads_come_before_the_update(body: str) -> None:
    op = tridsl.compile(f"op f(inout K: f32[R, N]) {{\n {body}\n}}").f
    updated = ROWS.copy()
    op(updated, device="cpu")
    np.testing.assert_allclose(updated, op.reference(ROWS), rtol=1e-5)


@pytest.mark.parametrize("value", ["K[i] + 1", "exp(K[i])"])
def test_a_result_of_what_was_there_before(value: str) -> None:
    op = tridsl.compile(
        f"op f(inout K: f32[N], x: f32[N]) -> y: f32[N] {{\n t[i] = {value}\n K[i] = x[i]\n y[i] = t[i] * 2\n}}"
    ).f
    updated, new = ROWS[0].copy(), ROWS[1]
    result = op(updated, new, device="cpu")
    expected = op.reference(ROWS[0], new)
    np.testing.assert_allclose(result, expected[0], rtol=1e-5)
    np.testing.assert_array_equal(updated, expected[1])
