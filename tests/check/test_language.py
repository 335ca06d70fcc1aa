"""Every example of the language's description, computed and compared with NumPy."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from tests.check.harness import bound_text, computed
from tridsl.check.resolve import BoundModule
from tridsl.check.signature import type_choices
from tridsl.check.types import check_module, check_op
from tridsl.dtypes import DTYPES
from tridsl.ir.op import Map, Op, Reduce

RMSNORM = """
op rmsnorm(x: f32[D], g: f32[D], eps: f32) -> y: f32[D] {
  r = rsqrt(sum[d](sqr(x[d])) / D + eps)
  y[d] = x[d] * r * g[d]
}
"""
EDGES = "op edges(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\n"
TEXT = (Path(__file__).parent / "language.tri").read_text(encoding="utf-8") + EDGES
RNG = np.random.default_rng(7)


@pytest.fixture
def language() -> BoundModule:
    return bound_text(TEXT, {"stdlib": RMSNORM})


@pytest.fixture
def op(language):
    def get(name: str, overload: int = 0, **types: str) -> Op:
        return check_op(language, language.operations[name][overload], {k: DTYPES[v] for k, v in types.items()})

    return get


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def test_every_example_checks_for_every_type(language) -> None:
    check_module(language)
    for _, overloads in language.own():
        for overload in overloads:
            for types in type_choices(overload.operation):
                assert check_op(language, overload, types).stages


def test_what_a_module_holds(language) -> None:
    assert len(language.operations["matmul"]) == 2
    assert len(language.schedules["matmul"]) == 2
    assert list(language.monoids) == ["softmax_wsum"]
    assert [b.op for b in language.benches["matmul"]] == ["matmul"]
    assert language.operations["rmsnorm"][0].home is not None


def test_f32_matmul_is_one_reduction_into_the_result(op) -> None:
    matmul = op("matmul", T="f32", U="f32")
    assert [type(s) for s in matmul.stages] == [Reduce]
    assert matmul.stages[0].targets[0].name == "C"
    assert matmul.intermediates == ()
    assert matmul.sizes == ("M", "K", "N")


def test_f16_matmul_accumulates_in_f32_and_rounds_at_the_store(op) -> None:
    matmul = op("matmul", T="f16", U="f16")
    assert [(type(s), s.name) for s in matmul.stages] == [(Reduce, "C.sum"), (Map, "C")]
    assert [str(t.dtype) for t in matmul.intermediates] == ["f32"]


def test_matmul(op) -> None:
    a, b = normal(3, 5), normal(5, 4)
    np.testing.assert_allclose(computed(op("matmul", T="f32", U="f32"), a, b)["C"], a @ b, rtol=1e-6)
    c, d = (RNG.integers(-128, 128, s).astype(np.int8) for s in ((3, 70), (70, 2)))
    np.testing.assert_array_equal(computed(op("matmul", 1, T="i8"), c, d)["C"], c.astype(np.int32) @ d.astype(np.int32))


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
def test_softmax(op, dtype: str) -> None:
    kind = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}[dtype]
    x = normal(9).astype(kind)
    e = np.exp(x.astype(np.float64) - x.astype(np.float64).max())
    got = computed(op("softmax", T=dtype), x)["y"]
    assert got.dtype == kind
    np.testing.assert_allclose(got.astype(np.float64), e / e.sum(), rtol=1e-2 if dtype != "f32" else 1e-6)


def test_softmax_sums_once(op) -> None:
    """The reducer inside `y[n] = …` mentions no n, so it is a stage without axes."""
    stages = {s.name: s for s in op("softmax", T="f32").stages}
    assert stages["y.sum"].axes == ()
    assert stages["m"].targets[0].axes == ()


@pytest.mark.parametrize(("stride", "p"), [(1, 0), (2, 1), (3, 2)])
def test_conv2d(op, stride: int, p: int) -> None:
    x, f = normal(2, 3, 7, 8), normal(4, 3, 3, 2)
    padded = np.pad(x, ((0, 0), (0, 0), (p, p), (p, p)))
    height, width = (7 + 2 * p - 3) // stride + 1, (8 + 2 * p - 2) // stride + 1
    expected = np.zeros((2, 4, height, width))
    for i in range(height):
        for j in range(width):
            window = padded[:, :, i * stride : i * stride + 3, j * stride : j * stride + 2]
            expected[:, :, i, j] = np.einsum("bcrs,ocrs->bo", window, f)
    np.testing.assert_allclose(computed(op("conv2d"), x, f, stride, p)["Y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
def test_attention(op, causal: bool) -> None:
    q, k, v = normal(4, 3, 5), normal(2, 6, 5), normal(2, 6, 7)
    kk, vv = np.repeat(k, 2, axis=0), np.repeat(v, 2, axis=0)
    s = np.einsum("hqd,htd->hqt", q, kk) * 0.3
    if causal:
        s = np.where(np.arange(6) > np.arange(3)[:, None] + 3, -np.inf, s)
    w = np.exp(s - s.max(-1, keepdims=True))
    expected = np.einsum("hqt,hte->hqe", w / w.sum(-1, keepdims=True), vv)
    np.testing.assert_allclose(
        computed(op("attention", T="f32"), q, k, v, 0.3, causal)["O"], expected, rtol=1e-4, atol=1e-5
    )


def test_attention_with_every_score_masked_is_zero(op) -> None:
    q = normal(1, 3, 2)
    k, v = normal(1, 1, 2), normal(1, 1, 2)
    got = computed(op("attention", T="f32"), q, k, v, 1.0, True)["O"]  # L - S = -2: the first rows see nothing
    np.testing.assert_array_equal(got[0, :2], np.zeros((2, 2)))
    np.testing.assert_allclose(got[0, 2], v[0, 0], rtol=1e-6)


def test_attention_hoists_the_scalar_states(op) -> None:
    """m and l do not depend on e, so they are computed once per row."""
    reduce = next(s for s in op("attention", T="f32").stages if s.name == "O.softmax_wsum")
    assert {t.name: t.axes for t in reduce.targets} == {"O.m": ("h", "q"), "O.l": ("h", "q"), "O.o": ("h", "q", "e")}
    assert not reduce.reducer.commutative


def test_tgemv(op) -> None:
    w = RNG.integers(-1, 2, (3, 50)).astype(np.int8)
    x = RNG.integers(-128, 128, 50).astype(np.int8)
    sw = normal(3)
    expected = (w.astype(np.int32) @ x.astype(np.int32)).astype(np.float32) * sw * np.float32(0.5)
    np.testing.assert_array_equal(computed(op("tgemv"), w, x, sw, 0.5)["y"], expected)


def test_above(op) -> None:
    x = normal(20)
    got = computed(op("above"), x, 0.25)
    count = int(got["y.len"])
    assert count == int(got["pos.len"]) == int((x >= 0.25).sum())
    np.testing.assert_array_equal(got["y"][:count], x[x >= 0.25])
    np.testing.assert_array_equal(got["pos"][:count], np.flatnonzero(x >= 0.25))


def test_best(op) -> None:
    x = np.array([1, 3, 3, 2], np.float32)
    got = computed(op("best"), x, 3)
    np.testing.assert_array_equal(got["v"], [3, 3, 2])
    np.testing.assert_array_equal(got["i"], [1, 2, 3])


def test_block(op) -> None:
    block = op("block")
    assert [s.name for s in block.stages] == ["h.r.sum", "h.r", "h", "y"]
    x, g, w = normal(6), normal(6), normal(6, 4)
    h = x / np.sqrt((x * x).mean() + 1e-6) * g
    np.testing.assert_allclose(computed(block, x, g, w)["y"], h @ w, rtol=1e-5)
