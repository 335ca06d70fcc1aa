"""Ops that are several designs, one launched after the other: through the ordinary calls, against the interpreter."""

from __future__ import annotations

from math import erf
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import tridsl
from tests.backends.npu.test_kernels import normal
from tridsl import stdlib

DEVICES = ("npu:sim:aie2", "npu:sim:aie2p")
BF16 = ml_dtypes.bfloat16
OPS = tridsl.compile("""
op residual[T in {f32, bf16}](A: T[M, K], B: T[K, N], R: T[M, N]) -> C: T[M, N] {
  C[i, j] = T(sum[k; acc=f32](A[i, k] * B[k, j]) + wide(R[i, j]))
}
op centred(x: f32[M, N]) -> (y: f32[M, N], total: f32[M]) {
  total[i] = sum[j](x[i, j])
  y[i, j]  = x[i, j] - total[i] / N
}
op rounded(x: f32[N]) -> (even: f32[N], low: f32[N], high: f32[N], word: i32[N], byte: i8[N], positive: u8[N], half: i16[N]) {
  even[i] = round_even(x[i])
  low[i] = floor(x[i])
  high[i] = ceil(x[i])
  word[i] = i32(x[i])
  byte[i] = i8(x[i])
  positive[i] = u8(x[i])
  half[i] = i16(x[i])
}
""")


def same(op: Any, *arguments: Any, device: str, tolerance: float = 1e-5) -> None:
    got, want = op(*arguments, device=device), op.reference(*arguments)
    for g, w in zip(got if isinstance(got, tuple) else (got,), want if isinstance(want, tuple) else (want,)):
        g, w = np.asarray(g), np.asarray(w)
        if w.dtype.kind in "iu":
            np.testing.assert_array_equal(g, w)
        else:
            scale = float(np.abs(w.astype(np.float64)).max())
            np.testing.assert_allclose(g.astype(np.float64), w.astype(np.float64), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize("device", DEVICES)
def test_rows_are_quantised(device: str) -> None:
    """The largest of a row, then the row, then the factor that leads back: integers exactly."""
    same(stdlib.quantise, 3 * normal(21, 70), device=device)
    same(stdlib.rmsnorm_quantise, normal(9, 64), normal(64), device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_product_of_products(device: str) -> None:
    same(stdlib.lora, normal(10, 64), normal(48, 64), normal(4, 64), normal(48, 4), 0.5, device=device)


@pytest.mark.parametrize("device", DEVICES)
def test_a_residual_is_added_by_a_launch_of_its_own(device: str) -> None:
    """A third stream to each core has no channel, and nobody to ride with."""
    same(OPS.residual, normal(40, 60, dtype=BF16), normal(60, 70, dtype=BF16), normal(40, 70, dtype=BF16), device=device, tolerance=8e-3)
    text = OPS.residual.lower(normal(40, 60), normal(60, 70), normal(40, 70), device=device, until="emit")
    assert "// ---- 0/kernels.cc" in text and "// ---- 1/design.mlir" in text and "2/" not in text


@pytest.mark.parametrize("device", DEVICES)
def test_a_result_that_the_next_launch_reads(device: str) -> None:
    same(OPS.centred, normal(30, 50), device=device)


def test_every_float_becomes_the_oracles_integer() -> None:
    x = np.concatenate(
        [np.arange(-4, 4, 0.25), [0.49999997, -0.49999997, 8388607.5, -8388609.0, 2.0**31, -(2.0**31), 2147483520.0, 3e9, -3e9, 1e38, np.inf, -np.inf, np.nan],
         [127.5, -128.5, 255.9, 256.0, 32767.9, -32769.0, 1e-40, -0.0], normal(500) * 1000]
    ).astype(np.float32)  # fmt: skip
    with np.errstate(all="ignore"):
        want = OPS.rounded.reference(x)
    for g, w in zip(OPS.rounded(x, device="npu:sim"), want):
        np.testing.assert_array_equal(np.asarray(g), np.asarray(w))


@pytest.mark.parametrize("device", DEVICES)
def test_a_two_layer_perceptron_is_a_program(device: str) -> None:
    @tridsl.jit(device=device)
    def perceptron(x: Any, first: Any, a: Any, second: Any, b: Any) -> Any:
        return stdlib.linear(stdlib.gelu(stdlib.linear(x, first, a)), second, b)

    random = np.random.default_rng(11)
    for _ in range(2):
        m, k, h, n = (int(v) for v in random.integers(3, 90, 4))
        given = [normal(*s, dtype=BF16) for s in ((m, k), (h, k), (h,), (n, h), (n,))]
        x, first, a, second, b = (v.astype(np.float64) for v in given)
        hidden = (x @ first.T + a).astype(BF16).astype(np.float64)
        active = (0.5 * hidden * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))).astype(BF16).astype(np.float64)
        want = active @ second.T + b
        np.testing.assert_allclose(perceptron(*given).astype(np.float64), want, rtol=2e-2, atol=2e-2 * np.abs(want).max())


@pytest.mark.parametrize("device", DEVICES)
def test_small_attention_is_a_chain_of_launches(device: str) -> None:
    @tridsl.jit(device=device)
    def attend(q: Any, k: Any, v: Any) -> Any:
        return stdlib.matmul(stdlib.softmax(stdlib.linear(q, k)), v)

    q, k, v = (normal(*s) for s in ((24, 32), (40, 32), (40, 16)))
    scores = q.astype(np.float64) @ k.T
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    np.testing.assert_allclose(attend(q, k, v), weights / weights.sum(-1, keepdims=True) @ v, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [40, 8500, 33333])
def test_one_number_of_all_cores_parts(count: int, device: str) -> None:
    """Each core reduces its parts, one core what they made."""
    x = normal(count)
    want = float(x.astype(np.float64).sum())
    assert abs(float(stdlib.sum(x, device=device)) - want) <= 1e-6 * float(np.abs(x).sum())
    assert float(stdlib.max(x - 9, device=device)) == float((x - 9).max())


def test_parts_that_are_never_equal_end_where_the_tensor_does() -> None:
    """Beyond it lie zeros, which would be greater."""
    x = normal(100003) - 9
    assert float(stdlib.max(x, device="npu:sim")) == float(x.max())


def test_quotients_are_the_oracles_to_the_last_bit() -> None:
    """Whole numbers that are made of quotients (`quantise`) depend on it."""
    ops = tridsl.compile("op ratio(a: f32[N], b: f32[N]) -> c: f32[N] { c[i] = a[i] / b[i] }\n")
    a, b = normal(50000), normal(50000)
    a[:9], b[:9] = [0, 1, np.inf, -np.inf, np.nan, 1e38, 1e-38, 5, 1e-45], [3, 0, 2, np.inf, 1, 1e-3, 1e10, np.inf, 2]
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(np.asarray(ops.ratio(a, b, device="npu:sim")), a / b)
    for _ in range(3):
        same(stdlib.quantise, normal(40, 64, dtype=BF16), device="npu:sim:aie2")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [70, 30001, pytest.param(1000003, marks=pytest.mark.full)])
def test_what_becomes_of_one_number_is_a_launch_of_its_own(count: int, device: str) -> None:
    """The mean divides the sum; results of 16 bits are made of sums of 32."""
    x = normal(count) + 1
    assert abs(float(stdlib.mean(x, device=device)) - float(x.astype(np.float64).mean())) <= 1e-6
    narrow = x.astype(BF16)
    for op in (stdlib.mean, stdlib.sum, stdlib.max):
        got, want = float(op(narrow, device=device)), float(op.reference(narrow))
        assert abs(got - want) <= 4e-3 * abs(want), op
