"""Every builtin reducer, plain and scanned, against NumPy; accumulators, names, sharing, hoisting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from tests.check.harness import checked, computed
from tridsl.diagnostics import TriError
from tridsl.ir.op import Map, Op, Reduce, Scan, TopK
from tridsl.ir.walk import walk


def stage(op: Op, name: str):
    return next(s for s in op.stages if s.name == name)


NUMPY = {"sum": np.sum, "prod": np.prod, "max": np.max, "min": np.min}
ints = hn.arrays(np.int32, st.tuples(st.integers(1, 4), st.integers(1, 6)), elements=st.integers(-1000, 1000))
awkward = st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, 2.0, 2.0])
floats = hn.arrays(np.float32, st.integers(1, 8), elements=awkward)


@pytest.mark.parametrize("name", NUMPY)
@given(x=ints)
def test_integer_reductions(name: str, x: np.ndarray) -> None:
    op = checked(f"op f(x: i32[M, N]) -> y: i32[M] {{\n  y[i] = {name}[j](x[i, j])\n}}")
    with np.errstate(over="ignore"):
        expected = NUMPY[name](x, axis=1, **({"dtype": np.int32} if name in ("sum", "prod") else {}))
    np.testing.assert_array_equal(computed(op, x)["y"], expected)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
@given(x=floats)
def test_nan_and_ties_follow_numpy(name: str, x: np.ndarray) -> None:
    kind = "i64" if name.startswith("arg") else "f32"
    op = checked(f"op f(x: f32[N]) -> y: {kind} {{\n  y = {name}[j](x[j])\n}}")
    np.testing.assert_array_equal(computed(op, x)["y"], getattr(np, name)(x))


@pytest.mark.parametrize("kind", ["i32", "i64"])
def test_argmax_takes_the_declared_integer(kind: str) -> None:
    op = checked(f"op f(x: f16[M, N]) -> y: {kind}[M] {{\n  y[i] = argmax[j](x[i, j])\n}}")
    x = np.array([[1, 5, 5], [7, 0, 7]], np.float16)
    got = computed(op, x)["y"]
    assert got.dtype == np.dtype(f"int{kind[1:]}")
    np.testing.assert_array_equal(got, [1, 0])
    assert [t.name for t in stage(op, "y.argmax").targets] == ["y.argmax.value", "y.argmax.index"]


def test_argmax_proves_an_index() -> None:
    """Where an argmax points is inside, so no boundary is needed."""
    op = checked("op f(x: f32[N]) -> y: f32 {\n  y = x[argmax[i](x[i])]\n}")
    assert computed(op, np.array([3, 9, 4], np.float32))["y"] == 9
    assert "boundary=Boundary" not in repr(op.stages)


@given(x=hn.arrays(np.float32, st.integers(0, 9), elements=st.sampled_from([-1.0, 0.0, 1.0])))
def test_bool_reducers(x: np.ndarray) -> None:
    op = checked(
        """
        op f(x: f32[N]) -> (a: bool, b: bool, c: i64, d: i32) {
          a = any[i](x[i] > 0)
          b = all[i](x[i] > 0)
          c = count[i](x[i] > 0)
          d = count[i; acc=i32](x[i] > 0)
        }
        """
    )
    got = computed(op, x)
    assert (bool(got["a"]), bool(got["b"]), int(got["c"])) == ((x > 0).any(), (x > 0).all(), (x > 0).sum())
    assert int(got["d"]) == int(got["c"])
    assert [type(s) for s in op.stages] == [Reduce] * 4


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin"])
def test_empty_extremes_are_refused_by_a_contract(name: str) -> None:
    op = checked(f"op f(x: f32[M, N]) -> y: f32[M] {{\n  y[i] = f32({name}[j](x[i, j]))\n}}")
    with pytest.raises(TriError) as caught:
        computed(op, np.zeros((2, 0), np.float32))
    assert caught.value.code == "E0505"


def test_other_empty_reductions_give_the_identity() -> None:
    op = checked("op f(x: f32[N]) -> (s: f32, p: f32) {\n  s = sum[i](x[i])\n  p = prod[i](x[i])\n}")
    got = computed(op, np.zeros(0, np.float32))
    assert (got["s"], got["p"]) == (0, 1)


class TestAccumulator:
    def test_operands_are_widened_before_the_product(self) -> None:
        op = checked("op f(a: i8[N], b: u8[N]) -> y: i32 {\n  y = sum[k; acc=i32](a[k] * b[k])\n}")
        a, b = np.full(3, -128, np.int8), np.full(3, 255, np.uint8)
        assert computed(op, a, b)["y"] == -128 * 255 * 3

    def test_widening_reaches_into_choices_but_not_into_casts(self) -> None:
        op = checked(
            "op f(a: i8[N], b: i8[N]) -> y: i32 {\n  y = sum[k; acc=i32](if a[k] > 0 then a[k] * b[k] else i8(a[k] * b[k]))\n}"
        )
        assert computed(op, np.array([100], np.int8), np.array([100], np.int8))["y"] == 10000
        assert computed(op, np.array([-100], np.int8), np.array([100], np.int8))["y"] == np.int64(-10000).astype(
            np.int8
        )

    def test_f16_accumulates_in_f32(self) -> None:
        op = checked("op f(x: f16[N]) -> y: f16 {\n  y = sum[k](x[k])\n}")
        assert str(stage(op, "y.sum").reducer.dtypes[0]) == "f32"
        assert computed(op, np.full(4096, 1, np.float16))["y"] == 4096  # an f16 accumulator stops at 2048

    @pytest.mark.parametrize("kind", ["i8", "u8", "i16", "u16", "trit", "i4", "u4"])
    def test_narrow_integers_must_say_it(self, kind: str) -> None:
        with pytest.raises(TriError) as caught:
            checked(f"op f(x: {kind}[N]) -> y: i32 {{\n  y = i32(sum[k](x[k]))\n}}")
        assert caught.value.code == "E0225"
        checked(f"op f(x: {kind}[N]) -> y: i32 {{\n  y = sum[k; acc=i32](x[k])\n}}")

    def test_narrow_extremes_need_none(self) -> None:
        op = checked("op f(x: i8[N]) -> y: i8 {\n  y = max[k](x[k])\n}")
        assert computed(op, np.array([-5, -3], np.int8))["y"] == -3

    def test_order_can_be_fixed(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32 {\n  y = sum[k; order=seq](x[k])\n}")
        assert op.stages[0].ordered


class TestStages:
    def test_names_of_anonymous_reducers(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32 {\n  y = sum[k](x[k]) + sum[k](x[k] * x[k]) + max[k](x[k])\n}")
        assert [s.name for s in op.stages] == ["y.sum", "y.sum2", "y.max", "y"]

    def test_equal_reducers_share_a_stage(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32 {\n  y = sum[k](x[k]) * sum[k](x[k])\n}")
        assert [s.name for s in op.stages] == ["y.sum", "y"]

    def test_a_reducer_runs_over_the_fewest_indices(self) -> None:
        op = checked("op f(x: f32[M, N]) -> y: f32[M, N] {\n  y[i, j] = x[i, j] / sum[k](x[i, k])\n}")
        assert stage(op, "y.sum").targets[0].axes == ("i",)

    def test_a_broadcast_reduction_is_not_written_directly(self) -> None:
        op = checked("op f(x: f32[M]) -> y: f32[M, 3] {\n  y[i, j] = sum[k](x[k])\n}")
        assert [(s.name, type(s)) for s in op.stages] == [("y.sum", Reduce), ("y", Map)]

    def test_nested_reducers(self) -> None:
        op = checked("op f(x: f32[M, N]) -> y: f32 {\n  y = sum[i](max[j](x[i, j]))\n}")
        assert [s.name for s in op.stages] == ["y.max", "y"]
        x = np.arange(6, dtype=np.float32).reshape(2, 3)
        assert computed(op, x)["y"] == x.max(axis=1).sum()

    def test_several_indices(self) -> None:
        op = checked("op f(x: f32[M, N]) -> y: f32 {\n  y = sum[i, j](x[i, j])\n}")
        assert computed(op, np.ones((3, 4), np.float32))["y"] == 12

    def test_explicit_range(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = sum[d in -1..2](x[i + d; pad=edge])\n}")
        x = np.array([1, 2, 4], np.float32)
        np.testing.assert_array_equal(computed(op, x)["y"], [1 + 1 + 2, 7, 2 + 4 + 4])


class TestScan:
    @given(x=ints)
    def test_running_sum(self, x: np.ndarray) -> None:
        op = checked("op f(x: i32[M, N]) -> y: i32[M, N] {\n  y[i, j] = scan sum[j](x[i, j])\n}")
        assert [type(s) for s in op.stages] == [Scan]
        np.testing.assert_array_equal(computed(op, x)["y"], np.cumsum(x, axis=1, dtype=np.int32))

    def test_exclusive(self) -> None:
        op = checked("op f(x: i32[N]) -> y: i32[N] {\n  y[i] = scan sum[i; exclusive](x[i])\n}")
        np.testing.assert_array_equal(computed(op, np.array([1, 2, 3], np.int32))["y"], [0, 1, 3])

    def test_inside_an_expression_and_along_the_first_axis(self) -> None:
        op = checked("op f(x: f32[M, N]) -> y: f32[M, N] {\n  y[i, j] = x[i, j] - scan max[i](x[i, j])\n}")
        assert stage(op, "y.max").targets[0].axes == ("i", "j")
        x = np.array([[1, 5], [3, 2]], np.float32)
        np.testing.assert_array_equal(computed(op, x)["y"], x - np.maximum.accumulate(x, axis=0))

    def test_over_a_reducers_index(self) -> None:
        op = checked("op f(x: i32[N]) -> y: i32 {\n  y = max[i](scan sum[i](x[i]))\n}")
        assert computed(op, np.array([3, -5, 4], np.int32))["y"] == 3


class TestTopK:
    def test_values_alone_and_outer_axes(self) -> None:
        op = checked("op f(x: f32[M, N]) -> v: f32[M, 2] {\n  v[i] = topk[n; k=2](x[i, n])\n}")
        assert isinstance(op.stages[0], TopK)
        x = np.array([[1, 3, 2], [6, 5, 9]], np.float32)
        np.testing.assert_array_equal(computed(op, x)["v"], [[3, 2], [9, 6]])

    def test_too_few_elements(self) -> None:
        op = checked("op f(x: f32[N]) -> v: f32[4] {\n  v = topk[n; k=4](x[n])\n}")
        with pytest.raises(TriError) as caught:
            computed(op, np.zeros(3, np.float32))
        assert caught.value.code == "E0505"

    def test_positions_index_without_a_boundary(self) -> None:
        op = checked(
            "op f(x: f32[N], w: f32[N]) -> y: f32[3] {\n  v, p = topk[n; k=3](x[n])\n  y[k] = v[k] * w[p[k]]\n}"
        )
        assert not any(n.boundary for s in op.stages for n in walk(s) if hasattr(n, "boundary"))


class TestRunTimeLengths:
    TEXT = """
    op f(x: f32[N]) -> (y: f32[..N], s: f32, n: i64) {
      p    = compact[i](x[i], x[i] > 0)
      y[i] = 2 * p[i]
      s    = sum[i](p[i])
      n    = count[i](p[i] > 1)
    }
    """

    @given(x=hn.arrays(np.float32, st.integers(0, 9), elements=st.sampled_from([-1.0, 0.5, 1.0, 3.0])))
    def test_later_stages_run_to_the_length(self, x: np.ndarray) -> None:
        got = computed(checked(self.TEXT), x)
        kept = x[x > 0]
        length = int(got["y.len"])
        assert length == len(kept)
        np.testing.assert_array_equal(got["y"][:length], 2 * kept)
        assert got["s"] == kept.sum()
        assert got["n"] == (kept > 1).sum()

    def test_storage_has_the_capacity(self) -> None:
        op = checked(self.TEXT)
        assert {t.name: len(t.shape) for t in op.intermediates} == {"p": 1, "p.len": 0}
        assert "len" not in repr(next(t for t in op.intermediates if t.name == "p").shape)
        assert next(p for p in op.outputs if p.name == "y").length == "y.len"

    def test_a_shorter_range_wins_over_the_capacity(self) -> None:
        op = checked("op f(x: f32[N]) -> s: f32 {\n  p = compact[i](x[i], x[i] > 0)\n  s = sum[i](p[i] * x[i])\n}")
        x = np.array([-1, 2, 3], np.float32)
        assert computed(op, x)["s"] == 2 * -1 + 3 * 2
