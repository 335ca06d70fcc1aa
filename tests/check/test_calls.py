"""Calls: choosing an overload, solving sizes, mapping over leading axes, ops as stages of ops."""

from __future__ import annotations

import numpy as np
import pytest

from tests.check.harness import bound_text, checked, computed
from tridsl.check.lift import lift
from tridsl.check.overloads import select
from tridsl.check.sizes import solve
from tridsl.diagnostics import TriError
from tridsl.dtypes import BF16, F16, F32, F64, I8, I16, I32, TRIT

RNG = np.random.default_rng(3)


def normal(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def code_of(function, *args, **keywords) -> str:
    with pytest.raises(TriError) as caught:
        function(*args, **keywords)
    return caught.value.code


SOFTMAX = "op softmax[T in {f32, f16}](x: T[N]) -> y: T[N] {\n  m = max[n](f32(x[n]))\n  e[n] = exp(f32(x[n]) - m)\n  y[n] = T(e[n] / sum[k](e[k]))\n}\n"
RMSNORM = "op rmsnorm(x: f32[D], g: f32[D], eps: f32) -> y: f32[D] {\n  r = rsqrt(sum[d](sqr(x[d])) / D + eps)\n  y[d] = x[d] * r * g[d]\n}\n"
MATMUL = """
op matmul[T in {f32, f64, f16, bf16}, U in {T, f32} = T](A: T[M, K], B: T[K, N]) -> C: U[M, N] {
  C[i, j] = U(sum[k; acc=wide(T)](A[i, k] * B[k, j]))
}
op matmul[T in {i8, i16}](A: T[M, K], B: T[K, N]) -> C: i32[M, N] {
  C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j])
}
op matmul(A: trit[M, K], B: i16[K, N]) -> C: i32[M, N] {
  C[i, j] = sum[k; acc=i32](A[i, k] * B[k, j])
}
"""


class TestSelect:
    bound = bound_text(MATMUL + SOFTMAX)

    def chosen(self, name, dtypes, ranks, types=None):
        overload, found = select(self.bound, name, dtypes, ranks, types)
        return self.bound.operations[name].index(overload), found

    def test_by_dtype(self) -> None:
        assert self.chosen("matmul", (F32, F32), (2, 2)) == (0, {"T": F32, "U": F32})
        assert self.chosen("matmul", (I16, I16), (2, 2)) == (1, {"T": I16})

    def test_type_parameter_by_keyword(self) -> None:
        assert self.chosen("matmul", (BF16, BF16), (2, 2), {"U": F32}) == (0, {"T": BF16, "U": F32})
        assert code_of(self.chosen, "matmul", (F16, F16), (2, 2), {"U": F64}) == "E0503"

    def test_int8_arrays_serve_trits_where_nothing_fits_better(self) -> None:
        assert self.chosen("matmul", (I8, I16), (2, 2)) == (2, {})
        assert self.chosen("matmul", (TRIT, I16), (2, 2)) == (2, {})
        assert self.chosen("matmul", (I8, I8), (2, 2))[0] == 1

    def test_extra_leading_axes(self) -> None:
        assert self.chosen("softmax", (F32,), (4,)) == (0, {"T": F32})
        assert code_of(self.chosen, "matmul", (F32, F32), (1, 2)) == "E0503"

    def test_the_overload_of_most_core_axes_wins(self) -> None:
        bound = bound_text(
            "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i]\n}\nop f(x: f32[M, N]) -> y: f32[N, M] {\n  y[i, j] = x[j, i]\n}"
        )
        for rank, expected in ((1, 0), (2, 1), (3, 1)):
            assert select(bound, "f", (F32,), (rank,))[0] is bound.operations["f"][expected]

    def test_no_match_lists_every_candidate_with_its_reason(self) -> None:
        with pytest.raises(TriError) as caught:
            select(self.bound, "matmul", (F32, F64), (2, 2))
        diagnostic = caught.value.diagnostics[0]
        assert diagnostic.code == "E0503"
        assert len(diagnostic.notes) == 3
        assert "'B' must be f32, got f64" in diagnostic.notes[0]
        assert diagnostic.notes[2].startswith("matmul(A: trit[M, K], B: i16[K, N]) -> C: i32[M, N]")

    def test_numbers_can_be_ambiguous(self) -> None:
        bound = bound_text(
            "op f(x: f32[N], s: f32) -> y: f32[N] {\n  y[i] = x[i] * s\n}\nop f(x: f32[N], s: i32) -> y: f32[N] {\n  y[i] = x[i] * f32(s)\n}"
        )
        assert code_of(select, bound, "f", (F32, None), (1, 0)) == "E0502"
        assert select(bound, "f", (F32, I32), (1, 0))[0] is bound.operations["f"][1]

    def test_unknown_op(self) -> None:
        with pytest.raises(TriError) as caught:
            select(self.bound, "matmull", (), ())
        assert "matmul" in caught.value.diagnostics[0].help

    def test_defaults_and_keywords(self) -> None:
        bound = bound_text("op f(x: f32[N], const k: i32 = 1) -> y: f32[N] {\n  y[i] = x[i] * k\n}")
        select(bound, "f", (F32,), (1,))
        select(bound, "f", (F32,), (1,), keywords={"k": (None, 0)})
        assert code_of(select, bound, "f", (F32,), (1,), keywords={"q": (None, 0)}) == "E0503"
        assert code_of(select, bound, "f", (), ()) == "E0503"


class TestSizes:
    op = checked(
        """
        op f(x: f32[N], w: f32[2*N + 1], c: f32[N, 3], const p: i32 = 2) -> y: f32[N - p] where N >= 1 {
          y[i] = x[i; pad=0] + w[i; pad=0] + c[i, 0; pad=0]
        }
        """
    )

    def test_solved(self) -> None:
        assert solve(self.op, {"x": (4,), "w": (9,), "c": (4, 3)}) == {"N": 4}

    def test_expression_alone_tells_a_size(self) -> None:
        op = checked("op f(w: f32[2*N + 1]) -> y: f32[N] {\n  y[i] = w[2*i] + w[2*i + 1]\n}")
        assert solve(op, {"w": (9,)}) == {"N": 4}
        assert code_of(solve, op, {"w": (8,)}) == "E0504"

    def test_a_mismatch_names_both_arguments_and_values(self) -> None:
        with pytest.raises(TriError) as caught:
            solve(self.op, {"x": (4,), "w": (9,), "c": (5, 3)})
        message = caught.value.diagnostics[0].message
        assert caught.value.code == "E0504"
        assert "'x'" in message and "'c'" in message and "4" in message and "5" in message

    def test_expression_mismatch(self) -> None:
        assert code_of(solve, self.op, {"x": (4,), "w": (8,), "c": (4, 3)}) == "E0504"
        assert code_of(solve, self.op, {"x": (4,), "w": (9,), "c": (4, 2)}) == "E0504"

    def test_contract(self) -> None:
        assert code_of(solve, self.op, {"x": (0,), "w": (1,), "c": (0, 3)}) == "E0505"

    def test_functions_in_shapes(self) -> None:
        op = checked("op f(x: f32[M], w: f32[N]) -> y: f32[max(M, N)] {\n  y[i] = x[i; pad=0] + w[i; pad=0]\n}")
        np.testing.assert_array_equal(computed(op, np.ones(2, np.float32), np.ones(3, np.float32))["y"], [2, 2, 1])

    def test_sizes_kept_at_run_time(self) -> None:
        assert checked("op f(dyn T, x: f32[T]) -> y: f32[T] {\n  y[i] = x[i]\n}").dynamic == ("T",)

    def test_negative_result(self) -> None:
        assert code_of(solve, self.op, {"x": (4,), "w": (9,), "c": (4, 3)}, {"p": 5}) == "E0506"

    def test_overflow(self) -> None:
        op = checked("op f(x: f32[M], y: f32[N]) -> z: f32[M, N] {\n  z[i, j] = x[i] * y[j]\n}")
        assert code_of(solve, op, {"x": (1 << 40,), "y": (1 << 40,)}) == "E0601"
        assert solve(op, {"x": (0,), "y": (1 << 40,)}) == {"M": 0, "N": 1 << 40}

    def test_a_divisor_of_a_contract_is_not_zero(self) -> None:
        op = checked("op f(x: f32[H], w: f32[G]) -> y: f32[H] where H % G == 0 {\n  y[h] = x[h] * w[h // (H // G)]\n}")
        assert solve(op, {"x": (6,), "w": (3,)}) == {"H": 6, "G": 3}
        assert code_of(solve, op, {"x": (6,), "w": (4,)}) == "E0505"
        assert code_of(solve, op, {"x": (6,), "w": (0,)}) == "E0505"


class TestLift:
    def test_rows(self) -> None:
        op = lift(checked(SOFTMAX, T="f32"), (2,))
        assert op.sizes == ("B0", "B1", "N")
        x = normal(2, 3, 5)
        e = np.exp(x - x.max(-1, keepdims=True))
        np.testing.assert_allclose(computed(op, x)["y"], e / e.sum(-1, keepdims=True), rtol=1e-5)

    def test_broadcasting_aligns_to_the_right(self) -> None:
        op = checked(MATMUL, overload=0, T="f32", U="f32")
        a, b = normal(4, 2, 3, 5), normal(2, 5, 6)
        np.testing.assert_allclose(computed(op, a, b, batch=(2, 1))["C"], a @ b, rtol=1e-4, atol=1e-5)

    def test_what_depends_on_no_batched_parameter_is_computed_once(self) -> None:
        op = checked(
            "op f(x: f32[N], w: f32[N]) -> (y: f32[N], s: f32) {\n  t[i] = w[i] * w[i]\n  s = sum[i](t[i])\n  y[i] = x[i] * t[i] / s\n}"
        )
        lifted = lift(op, (1, 0))
        assert [len(s.axes) for s in lifted.stages] == [1, 1, 2]  # t, s (a result: it has every batch axis), y
        x, w = normal(3, 4), normal(4)
        got = computed(lifted, x, w)
        np.testing.assert_allclose(got["y"], x * w * w / (w * w).sum(), rtol=1e-5)
        np.testing.assert_allclose(got["s"], np.full(3, (w * w).sum()), rtol=1e-6)

    def test_states_of_a_monoid_keep_to_their_own_axes(self) -> None:
        op = checked(WEIGHTED)
        lifted = lift(op, (0, 1))
        reduce = lifted.stages[0]
        assert {t.name: t.axes for t in reduce.targets} == {"y.n": (), "y.t": ("b0",)}
        w, x = normal(5) ** 2, normal(3, 5)
        np.testing.assert_allclose(computed(lifted, w, x)["y"], (x * w).sum(-1) / w.sum(), rtol=1e-4)

    def test_scan_and_topk(self) -> None:
        op = checked(
            "op f(x: f32[N]) -> (c: f32[N], v: f32[2], p: i64[2]) {\n  c[i] = scan sum[i](x[i])\n  v, p = topk[n; k=2](x[n])\n}"
        )
        x = normal(3, 6)
        got = computed(op, x, batch=(1,))
        np.testing.assert_allclose(got["c"], np.cumsum(x, axis=-1), rtol=1e-4, atol=1e-6)
        np.testing.assert_array_equal(got["p"], np.argsort(-x, axis=-1)[:, :2])

    def test_names_that_are_taken_already(self) -> None:
        op = lift(checked("op f(x: f32[B0], const b0: i32) -> y: f32[B0] {\n  y[i] = x[i] * b0\n}"), (1,))
        assert op.sizes == ("B0_", "B0")
        np.testing.assert_array_equal(computed(op, np.ones((2, 3), np.float32), 4)["y"], np.full((2, 3), 4))

    def test_twice(self) -> None:
        op = lift(lift(checked(SOFTMAX, T="f32"), (1,)), (1,))
        x = normal(2, 3, 4)
        np.testing.assert_allclose(computed(op, x)["y"].sum(-1), np.ones((2, 3)), rtol=1e-5)

    def test_nothing_to_do(self) -> None:
        op = checked(SOFTMAX, T="f32")
        assert lift(op, (0,)) is op

    def test_compaction_cannot(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32[..N] {\n  y = compact[i](x[i], x[i] > 0)\n}")
        assert code_of(lift, op, (1,)) == "E0510"

    def test_inout_needs_every_axis(self) -> None:
        op = checked("op f(inout c: f32[N], x: f32[N]) -> s: f32 {\n  c[i] = c[i] + x[i]\n  s = sum[i](c[i])\n}")
        assert code_of(lift, op, (0, 1)) == "E0511"
        c, x = normal(2, 3), normal(3)
        got = computed(op, c, x, batch=(1, 0))
        np.testing.assert_allclose(got["c"], c + x, rtol=1e-6)


WEIGHTED = """
monoid mean(w: f32, v: f32) -> f32 {
  state n: f32 = 0, t: f32 = 0
  lift {
    n = w
    t = w * v
  }
  merge a, b {
    n = a.n + b.n
    t = a.t + b.t
  }
  result t / n
}
op weighted(w: f32[N], x: f32[N]) -> y: f32 {
  y = mean[i](w[i], x[i])
}
"""


class TestInline:
    def test_stage_names_and_values(self) -> None:
        op = checked(SOFTMAX + "op f(x: f32[N]) -> y: f32[N] {\n  p = softmax(x)\n  y[i] = 2 * p[i]\n}")
        assert [s.name for s in op.stages] == ["p.m", "p.e", "p.y.sum", "p", "y"]
        x = normal(5)
        np.testing.assert_allclose(computed(op, x)["y"].sum(), 2, rtol=1e-5)

    def test_a_result_is_written_by_the_call_itself(self) -> None:
        op = checked(SOFTMAX + "op f(x: f32[N]) -> y: f32[N] {\n  y = softmax(x)\n}")
        assert op.stages[-1].name == "y"
        assert "y" not in {t.name for t in op.intermediates}

    def test_leading_axes_are_mapped(self) -> None:
        op = checked(
            RMSNORM
            + "op f(x: f32[S, D], g: f32[D]) -> y: f32[S, D] {\n  h = rmsnorm(x, g, 1e-6)\n  y[s, d] = h[s, d] + x[s, d]\n}"
        )
        x, g = normal(3, 4), normal(4)
        expected = x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * g + x
        np.testing.assert_allclose(computed(op, x, g)["y"], expected, rtol=1e-4, atol=1e-6)

    def test_calls_of_calls_and_overloads(self) -> None:
        op = checked(
            MATMUL
            + "op f(a: bf16[M, K], b: bf16[K, N]) -> y: f32[M, N] {\n  c = matmul(a, b, U=f32)\n  y[i, j] = relu(c[i, j])\n}\nop g(a: bf16[M, K], b: bf16[K, N]) -> y: f32[M, N] {\n  y = f(a, b)\n}"
        )
        assert [s.name for s in op.stages] == ["y.c", "y"]

    def test_two_results(self) -> None:
        op = checked(
            "op minmax(x: f32[N]) -> (a: f32, b: f32) {\n  a = min[i](x[i])\n  b = max[i](x[i])\n}\nop f(x: f32[N]) -> y: f32[N] {\n  lo, hi = minmax(x)\n  y[i] = (x[i] - lo) / (hi - lo)\n}"
        )
        np.testing.assert_allclose(computed(op, np.array([1, 3, 5], np.float32))["y"], [0, 0.5, 1])

    def test_contracts_come_along(self) -> None:
        op = checked(
            "op f(x: f32[N], w: f32[M]) -> (a: f32, b: f32) {\n  a = g(x, w)\n  b = g(x, x)\n}\nop g(x: f32[N], w: f32[N]) -> y: f32 {\n  y = sum[i](x[i] * w[i])\n}",
            "f",
        )
        assert [c.message for c in op.contracts] == ["'w' of 'g' needs N == M"]
        assert code_of(computed, op, normal(3), normal(4)) == "E0505"

    def test_an_axis_does_not_capture_a_name_of_the_caller(self) -> None:
        text = "op g(x: f32[N], const s: i32) -> y: f32[N] {\n  y[i] = x[i] * s\n}\nop f(x: f32[N], const i: i32) -> y: f32[N] {\n  y = g(x, i + 1)\n}"
        np.testing.assert_array_equal(computed(checked(text), np.ones(3, np.float32), 4)["y"], [5, 5, 5])

    def test_run_time_lengths_flow_through(self) -> None:
        text = "op double(x: f32[N]) -> y: f32[N] {\n  t[i] = 2 * x[i]\n  y[i] = t[i] + 1\n}\nop f(x: f32[N]) -> s: f32 {\n  p = compact[i](x[i], x[i] > 0)\n  d = double(p)\n  s = sum[i](d[i])\n}"
        op = checked(text)
        assert computed(op, np.array([1, -1, 2], np.float32))["s"] == 3 + 5
        assert all("len" not in repr(t.shape) for t in op.intermediates)

    def test_compaction_inside_a_call(self) -> None:
        text = "op pos(x: f32[N]) -> y: f32[..N] {\n  y = compact[i](x[i], x[i] > 0)\n}\nop f(x: f32[N]) -> (y: f32[..N], s: f32) {\n  y = pos(x)\n  s = sum[i](y[i])\n}"
        got = computed(checked(text), np.array([1, -1, 2], np.float32))
        assert (int(got["y.len"]), float(got["s"])) == (2, 3)

    def test_a_stage_as_scalar_argument(self) -> None:
        text = "op scale(x: f32[N], s: f32) -> y: f32[N] {\n  y[i] = x[i] * s\n}\nop f(x: f32[N]) -> y: f32[N] {\n  m = max[i](x[i])\n  y = scale(x, 1 / m)\n}"
        np.testing.assert_array_equal(computed(checked(text), np.array([1, 2, 4], np.float32))["y"], [0.25, 0.5, 1])

    def test_imports(self) -> None:
        op = checked("use lib: softmax\nop f(x: f32[N]) -> y: f32[N] {\n  y = softmax(x)\n}", imports={"lib": SOFTMAX})
        assert len(op.stages) == 4

    def test_an_op_named_like_a_reducer(self) -> None:
        text = "op max(x: f32[N]) -> y: f32 {\n  y = max[i](x[i])\n}\nop f(x: f32[N], z: f32) -> (y: f32, w: f32) {\n  y = max(x)\n  w = max(z, y)\n}"
        got = computed(checked(text), np.array([1, 2], np.float32), 3.0)
        assert (got["y"], got["w"]) == (2, 3)


class TestMonoids:
    def test_weighted_mean(self) -> None:
        w, x = normal(6) ** 2, normal(6)
        np.testing.assert_allclose(computed(checked(WEIGHTED), w, x)["y"], (w * x).sum() / w.sum(), rtol=1e-4)

    def test_scan(self) -> None:
        op = checked(WEIGHTED + "op f(w: f32[N], x: f32[N]) -> y: f32[N] {\n  y[i] = scan mean[i](w[i], x[i])\n}")
        w, x = normal(6) ** 2, normal(6)
        np.testing.assert_allclose(computed(op, w, x)["y"], np.cumsum(w * x) / np.cumsum(w), rtol=1e-4)

    def test_generic_types(self) -> None:
        text = "monoid total[T in {f32, f64}](v: T) -> T {\n  state t: T = 0\n  lift {\n    u = v * v\n    t = u\n  }\n  merge a, b {\n    t = a.t + b.t\n  }\n  result sqrt(t)\n}\nop norm(x: f64[N]) -> y: f64 {\n  y = total[i](x[i])\n}"
        np.testing.assert_allclose(computed(checked(text), np.array([3.0, 4.0]))["y"], 5)

    def test_two_uses_in_one_stage(self) -> None:
        op = checked(
            WEIGHTED + "op f(w: f32[N], x: f32[N]) -> y: f32 {\n  y = mean[i](w[i], x[i]) + mean[i](x[i], w[i])\n}"
        )
        assert len({t.name for t in op.intermediates}) == 4

    def test_inside_a_cast_with_adapting_arguments(self) -> None:
        op = checked(WEIGHTED + "op f(x: f16[N]) -> y: f16 {\n  y = f16(mean[i](1, f32(x[i])))\n}")
        assert computed(op, np.array([1, 2, 6], np.float16))["y"] == 3


class TestInout:
    CACHE = "op append(inout cache: f32[L, D], k: f32[S, D], const pos: i32) -> n: f32 where pos >= 0, pos + S <= L {\n  cache[t in pos..pos + S, d] = k[t - pos, d]\n  n = sum[t, d](cache[t, d])\n}"

    def test_a_part_is_written(self) -> None:
        op = checked(self.CACHE)
        cache, k = np.ones((4, 2), np.float32), np.full((2, 2), 3, np.float32)
        got = computed(op, cache, k, 1)
        np.testing.assert_array_equal(got["cache"], [[1, 1], [3, 3], [3, 3], [1, 1]])
        assert got["n"] == 16

    def test_the_contract_is_checked(self) -> None:
        assert (
            code_of(computed, checked(self.CACHE), np.ones((4, 2), np.float32), np.ones((2, 2), np.float32), 3)
            == "E0505"
        )

    def test_a_run_time_position(self) -> None:
        op = checked(self.CACHE.replace("const pos", "pos"))
        got = computed(op, np.zeros((3, 1), np.float32), np.ones((1, 1), np.float32), 2)
        np.testing.assert_array_equal(got["cache"], [[0], [0], [1]])

    def test_a_reduction_over_it_comes_first(self) -> None:
        op = checked("op f(inout x: f32[N]) -> s: f32 {\n  x[i] = x[i] / sum[k](x[k])\n  s = sum[k](x[k])\n}")
        np.testing.assert_allclose(computed(op, np.array([1, 3], np.float32))["x"], [0.25, 0.75])

    def test_a_whole_reducer_is_not_written_in_place(self) -> None:
        op = checked(
            "op f(inout x: f32[N], w: f32[N, N]) -> s: f32 {\n  x[i] = sum[k](w[i, k] * x[k])\n  s = sum[k](x[k])\n}"
        )
        x, w = normal(3), normal(3, 3)
        np.testing.assert_allclose(computed(op, x, w)["x"], w @ x, rtol=1e-5)


class TestBoundaries:
    @pytest.mark.parametrize(
        ("mode", "numpy"), [("edge", "edge"), ("reflect", "reflect"), ("symmetric", "symmetric"), ("wrap", "wrap")]
    )
    def test_words_are_numpys(self, mode: str, numpy: str) -> None:
        op = checked(f"op f(x: f32[N]) -> y: f32[N + 4] {{\n  y[i] = x[i - 2; pad={mode}]\n}}")
        x = normal(5)
        np.testing.assert_array_equal(computed(op, x)["y"], np.pad(x, 2, mode=numpy))

    def test_a_value_and_intermediates_with_a_range_of_their_own(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32[N] {\n  d[i in 1..N] = x[i] - x[i - 1]\n  y[i] = d[i; pad=-7]\n}")
        np.testing.assert_array_equal(computed(op, np.array([1, 4, 9], np.float32))["y"], [-7, 3, 5])

    def test_a_boundary_that_is_not_needed_is_dropped(self) -> None:
        op = checked("op f(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i; pad=0]\n}")
        assert "Boundary" not in repr(op.stages)

    def test_gathers_raise_or_pad(self) -> None:
        text = "op f(T: f32[V, D], ids: i32[N]) -> y: f32[N, D] {\n  y[n, d] = T[ids[n], d%s]\n}"
        table, bad = normal(3, 2), np.array([0, 5], np.int32)
        with pytest.raises(IndexError):
            computed(checked(text % ""), table, bad)
        np.testing.assert_array_equal(computed(checked(text % "; pad=0"), table, bad)["y"], [table[0], [0, 0]])
