"""Types of expressions: what adapts, what is rounded when, what the functions expand to."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from tests.check.harness import checked, computed
from tridsl.diagnostics import TriError
from tridsl.ir.expr import Cast, Const, Load, Var
from tridsl.ir.op import Map
from tridsl.ir.walk import walk


def elementwise(expression: str, kind: str = "f32", result: str | None = None):
    return checked(f"op f(x: {kind}[N]) -> y: {result or kind}[N] {{\n  y[i] = {expression}\n}}")


def code(text: str) -> str:
    with pytest.raises(TriError) as caught:
        checked(text)
    return caught.value.code


floats = hn.arrays(np.float32, st.integers(0, 8), elements=st.floats(-100, 100, width=32))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("relu(x[i])", lambda x: np.maximum(x, 0)),
        ("clamp(x[i], -1, 1)", lambda x: np.clip(x, -1, 1)),
        ("sqr(x[i])", lambda x: x * x),
        ("abs(x[i]) + floor(x[i])", lambda x: np.abs(x) + np.floor(x)),
        ("max(x[i], 0, 2*x[i])", lambda x: np.maximum(np.maximum(x, 0), 2 * x)),
        ("if x[i] > 0 and not (x[i] > 5) then x[i] else -x[i]", lambda x: np.where((x > 0) & ~(x > 5), x, -x)),
        ("x[i] * 2", lambda x: x * 2),
        ("round_even(x[i])", np.rint),
        ("if isnan(x[i]) or isinf(x[i]) then 0 else x[i]", lambda x: x),
        ("x[i] + i", lambda x: x + np.arange(len(x), dtype=np.float32)),
        ("x[i] / N", lambda x: x / np.float32(max(len(x), 1))),
        ("x[i] * (1 / 4)", lambda x: x / 4),
        ("x[i] + (2 - abs(i - 3))", lambda x: x + (2 - np.abs(np.arange(len(x), dtype=np.float32) - 3))),
        ("pow(x[i], 2.0)", lambda x: x**2),
        ("fma(x[i], 2, 1)", lambda x: x * 2 + 1),
        ("max(x[i], lowest)", lambda x: x),
        ("min(x[i], inf)", lambda x: x),
        ("wide(x[i])", lambda x: x),
    ],
)
@given(x=floats)
def test_expressions(expression: str, expected, x: np.ndarray) -> None:
    np.testing.assert_allclose(computed(elementwise(expression), x)["y"], expected(x), rtol=1e-6)


@given(x=hn.arrays(np.float32, 5, elements=st.floats(width=32)))
def test_sigmoid_is_sound_everywhere(x: np.ndarray) -> None:
    got = computed(elementwise("sigmoid(x[i])"), x)["y"]
    for a, b in zip(x.tolist(), got.tolist()):
        exact = math.nan if math.isnan(a) else 1 / (1 + math.exp(-a)) if a > -700 else 0.0
        assert math.isnan(b) if math.isnan(a) else math.isclose(b, exact, rel_tol=1e-5, abs_tol=1e-44)


@given(x=hn.arrays(np.int32, 6), n=st.integers(-3, 3))
def test_integers(x: np.ndarray, n: int) -> None:
    op = checked(
        "op f(x: i32[N], n: i32) -> y: i32[N] {\n  y[i] = (x[i] // 7 + x[i] % 5) ^ (x[i] & 255) | (~x[i] >> 3) << 1\n}"
    )
    with np.errstate(over="ignore"):
        expected = (x // 7 + x % 5) ^ (x & 255) | (~x >> 3) << 1
    np.testing.assert_array_equal(computed(op, x, n)["y"], expected)


class TestNarrowFloats:
    @pytest.mark.filterwarnings("ignore:overflow")
    def test_arithmetic_is_in_f32_and_rounded_once(self) -> None:
        op = elementwise("x[i] * x[i] - x[i]", "f16")
        assert isinstance(op.stages[0], Map)
        assert str(op.stages[0].value.dtype) == "f32"
        x = np.array([300.0], np.float16)
        assert computed(op, x)["y"][0] == np.float16(np.float32(300) * np.float32(300) - 300)  # inf, at the store only

    def test_no_arithmetic_node_has_a_storage_type(self) -> None:
        op = checked("op f(x: bf16[N], s: bf16) -> y: bf16[N] {\n  t[i] = exp(x[i]) * s\n  y[i] = t[i] + bf16(1.0)\n}")
        for stage in op.stages:
            for node in walk(stage):
                if getattr(node, "dtype", None) is not None and str(node.dtype) == "bf16":
                    assert isinstance(node, Load | Cast | Var | Map)

    def test_a_cast_in_the_middle_rounds(self) -> None:
        x = np.array([1.0009], np.float32)
        assert computed(elementwise("f32(f16(x[i])) * 2"), x)["y"][0] == np.float32(np.float16(x[0])) * 2

    def test_a_cast_at_the_store_is_the_stores_own_rounding(self) -> None:
        op = elementwise("f16(x[i])", "f32", "f16")
        assert isinstance(op.stages[0].value, Load)

    def test_bf16_scalar(self) -> None:
        op = checked("op f(x: bf16[N], s: bf16) -> y: bf16[N] {\n  y[i] = x[i] * s\n}")
        x = np.array([1.5, 2.5], ml_dtypes.bfloat16)
        np.testing.assert_array_equal(computed(op, x, 2.0)["y"].astype(np.float32), [3, 5])


class TestSmallIntegers:
    def test_trit_computes_in_i8(self) -> None:
        op = checked("op f(w: trit[N], x: i8[N]) -> y: i8[N] {\n  y[i] = w[i] * x[i]\n}")
        got = computed(op, np.array([-1, 0, 1], np.int8), np.array([5, 6, 7], np.int8))["y"]
        np.testing.assert_array_equal(got, [-5, 0, 7])

    def test_a_cast_to_trit_clamps(self) -> None:
        op = elementwise("trit(x[i])", "i32", "trit")
        np.testing.assert_array_equal(computed(op, np.array([-9, -1, 0, 1, 300], np.int32))["y"], [-1, -1, 0, 1, 1])

    def test_u4_and_i4(self) -> None:
        op = checked("op f(x: u4[N]) -> y: i32[N] {\n  y[i] = i32(x[i]) - 8\n}")
        np.testing.assert_array_equal(computed(op, np.array([0, 15], ml_dtypes.uint4))["y"], [-8, 7])
        copy = elementwise("x[i]", "i4")
        np.testing.assert_array_equal(computed(copy, np.array([-8, 7], ml_dtypes.int4))["y"].astype(int), [-8, 7])

    def test_storing_wider_needs_a_cast(self) -> None:
        assert code("op f(x: i8[N]) -> y: i4[N] {\n  y[i] = x[i] + 1\n}") == "E0221"


class TestAdapting:
    def test_a_literal_becomes_the_operands_type(self) -> None:
        op = elementwise("x[i] * 2 + 0.5", "f64")
        constants = [n for s in op.stages for n in walk(s) if isinstance(n, Const) and n.dtype.is_float]
        assert {str(c.dtype) for c in constants} == {"f64"}

    def test_an_index_that_may_not_fit_is_a_contract(self) -> None:
        op = checked("op f(x: f32[N]) -> y: i8[N] {\n  y[i] = i\n}")
        assert [str(c.message) for c in op.contracts] == ["'i' must fit i8"]
        np.testing.assert_array_equal(computed(op, np.zeros(128, np.float32))["y"], np.arange(128))
        with pytest.raises(TriError):
            computed(op, np.zeros(129, np.float32))

    def test_an_index_that_fits_is_none(self) -> None:
        op = checked("op f(x: f32[N]) -> y: i8[100] {\n  y[i] = i + N - N\n}")
        assert op.contracts == ()

    @pytest.mark.parametrize(("kind", "value"), [("i8", -128), ("i64", -(1 << 63)), ("u32", (1 << 32) - 1)])
    def test_the_ends_of_integer_types(self, kind: str, value: int) -> None:
        op = elementwise(f"if x[i] == 0 then {value} else x[i]", kind)
        x = np.zeros(1, {"i8": np.int8, "i64": np.int64, "u32": np.uint32}[kind])
        assert computed(op, x)["y"][0] == value

    def test_an_explicit_cast_of_an_index_wraps(self) -> None:
        op = checked("op f(x: f32[N]) -> y: u8[N] {\n  y[i] = u8(i)\n}")
        assert op.contracts == ()
        assert computed(op, np.zeros(258, np.float32))["y"][257] == 1

    def test_const_parameters_are_index_arithmetic(self) -> None:
        op = checked("op f(x: f32[N], const k: i32 = 1) -> y: f32[N] {\n  y[i] = x[i + k; pad=wrap] * k\n}")
        x = np.array([1, 2, 3], np.float32)
        np.testing.assert_array_equal(computed(op, x)["y"], [2, 3, 1])
        np.testing.assert_array_equal(computed(op, x, 2)["y"], [6, 2, 4])

    def test_const_bool_chooses(self) -> None:
        op = checked(
            "op f(x: f32[N], const flip: bool = false) -> y: f32[N] {\n  y[i] = if flip then -x[i] else x[i]\n}"
        )
        x = np.ones(2, np.float32)
        np.testing.assert_array_equal(computed(op, x, True)["y"], -x)

    def test_a_bool_cast_and_back(self) -> None:
        op = elementwise("f32(x[i] > 0) + f32(bool(x[i]))")
        np.testing.assert_array_equal(computed(op, np.array([-1, 0, 2], np.float32))["y"], [1, 0, 2])

    def test_where_over_float_scalars(self) -> None:
        op = checked("op f(x: f32[N], eps: f32) -> y: f32[N] where eps > 0.5 {\n  y[i] = x[i] + eps\n}")
        computed(op, np.ones(1, np.float32), 1.0)
        with pytest.raises(TriError):
            computed(op, np.ones(1, np.float32), 0.25)


def test_scalar_stages_are_read_by_name() -> None:
    op = checked("op f(x: f32[N]) -> y: f32[N] {\n  m = sum[i](x[i]) / N\n  y[i] = x[i] - m\n}")
    x = np.array([1, 2, 6], np.float32)
    np.testing.assert_allclose(computed(op, x)["y"], x - 3)


def test_all_mistakes_of_a_module_are_told_at_once() -> None:
    with pytest.raises(TriError) as caught:
        checked(
            """
            op f(x: f32[N]) -> (y: f32[N], z: f32[N]) {
              y[i] = x[i + 1]
              z[i] = x[i] + i32(x[i])
            }
            op g(x: i32[N]) -> y: i32[N] {
              y[i] = exp(x[i])
            }
            """
        )
    assert [d.code for d in caught.value.diagnostics] == ["E0303", "E0211", "E0214"]


def test_broken_stages_are_not_told_again() -> None:
    with pytest.raises(TriError) as caught:
        checked("op f(x: f32[N]) -> y: f32[N] {\n  t[i] = x[i] + nothing\n  y[i] = t[i]\n}")
    assert [d.code for d in caught.value.diagnostics] == ["E0201"]


def test_documentation_is_the_comment_above() -> None:
    assert (
        checked("# Twice x.\n# Really.\nop f(x: f32[N]) -> y: f32[N] {\n  y[i] = 2 * x[i]\n}").doc
        == "Twice x.\nReally."
    )


def test_each_arm_of_a_conditional_adapts() -> None:
    text = "op q(x: f32[N]) -> y: u8[N] {\n  y[i] = if x[i] > 1 then (if x[i] > 2 then 255 else 7) else i % 3\n}"
    assert checked(text).stages
