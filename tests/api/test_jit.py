"""Traced programs: the same answers as op by op, fewer launches, planned memory, clear refusals."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import tridsl
from tridsl.api import decorator
from tridsl.api.engine import Services
from tridsl.api.ops import Namespace
from tridsl.diagnostics import TriError

TEXT = """
op add(a: f32[N], b: f32[N]) -> c: f32[N] { c[i] = a[i] + b[i] }
op mul(a: f32[N], s: f32) -> c: f32[N] { c[i] = a[i] * s }
op norm(x: f32[N]) -> y: f32[N] {
  m = sum[n](x[n] * x[n])
  y[n] = x[n] / sqrt(m + 1.0)
}
op matmul(A: f32[M, K], B: f32[K, N]) -> C: f32[M, N] { C[i, j] = sum[k](A[i, k] * B[k, j]) }
op bump(inout x: f32[N], by: f32) { x[i] = x[i] + by }
op above(x: f32[N], t: f32) -> y: f32[..N] { y = compact[i](x[i], x[i] >= t) }
op dots(W: trit[M, K], x: i8[K]) -> y: i32[M] { y[m] = sum[k; acc=i32](W[m, k] * x[k]) }
"""


@pytest.fixture(scope="module")
def ops(compile_text: Callable[[str], Namespace]) -> Namespace:
    return compile_text(TEXT)


@pytest.fixture(scope="module")
def jit(services: Services, compile_text: Callable[[str], Namespace]) -> Callable[..., Any]:
    return lambda function, **options: decorator.jit(
        function, compile_text, services, options.get("device", "auto"), options.get("threads")
    )


@pytest.fixture
def x(random: np.random.Generator) -> np.ndarray:
    return random.standard_normal((6, 32)).astype(np.float32)


def normed(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1)


def test_elementwise_work_joins_the_reduction_on_both_sides(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    @jit
    def f(x, b):  # type: ignore[no-untyped-def]
        return ops.mul(ops.norm(ops.add(ops.mul(x, 2.0), b)), 3.0)

    b = x[0].copy()
    for _ in range(2):
        assert np.allclose(f(x, b), 3 * normed(2 * x + b), atol=1e-5)
    plan = f.plan(x, b)
    assert [launch.label for launch in plan.launches] == ["mul + add + norm + mul"]
    assert plan.arena_bytes == 0 and plan.moved_bytes == 0 and not plan.fences
    assert "launch  mul + add + norm + mul -> cpu" in str(plan)


def test_two_reductions_stay_two_launches(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    f = jit(lambda x: ops.norm(ops.norm(x)))
    assert np.allclose(f(x), normed(normed(x)), atol=1e-6)
    assert len(f.plan(x).launches) == 2


def test_contractions_stay_alone_and_temporaries_share_memory(
    ops: Namespace, jit: Any, random: np.random.Generator
) -> None:
    weights = [random.standard_normal((32, 32)).astype(np.float32) / 8 for _ in range(4)]

    @jit
    def chain(x, weights):  # type: ignore[no-untyped-def]
        for w in weights:
            x = ops.matmul(x, w)
        return x

    x = random.standard_normal((32, 32)).astype(np.float32)
    want = x
    for w in weights:
        want = want @ w
    assert np.allclose(chain(x, weights), want, atol=1e-4)
    plan = chain.plan(x, weights)
    assert len(plan.launches) == 4 and plan.unshared_bytes == 3 * 4096 and plan.arena_bytes == 2 * 4096


def test_an_intermediate_that_is_returned_is_kept(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    def f(x):  # type: ignore[no-untyped-def]
        a = ops.mul(x, 2.0)
        return {"twice": a, "sum": [ops.add(a, x), x]}

    found = jit(f)(x)
    assert np.allclose(found["twice"], 2 * x) and np.allclose(found["sum"][0], 3 * x) and found["sum"][1] is x


def test_diamonds_and_repeated_inputs(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    def f(x):  # type: ignore[no-untyped-def]
        a = ops.mul(x, 2.0)
        return ops.add(ops.norm(a), ops.add(a, a))

    assert np.allclose(jit(f)(x), normed(2 * x) + 4 * x, atol=1e-5)


def test_broadcast_operands_of_joined_calls(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    f = jit(lambda x, b: ops.add(ops.mul(x, 2.0), ops.mul(b, 3.0)))
    for a, b in ((x, x[0]), (x[0], x), (x[:, None], x[None]), (x[:1], x)):
        assert np.allclose(f(a, b), 2 * a + 3 * b, atol=1e-5)


def test_views_constants_numbers_and_shapes_specialise(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    captured = np.ascontiguousarray(x[:, ::-1]).T  # not contiguous

    @jit
    def f(x, scale=1.0):  # type: ignore[no-untyped-def]
        return ops.add(ops.mul(x, scale), captured)

    for view in (x.T, x.T[:, ::-1], np.asfortranarray(x.T)):
        assert np.allclose(f(view), view + captured) and np.allclose(f(view, scale=2.0), 2 * view + captured)
    twice = jit(lambda x: ops.add(ops.add(x, captured), captured))
    assert [p.home for p in twice.plan(x.T).places].count("constant") == 1
    captured[0, 0] = 100  # read at each call
    assert np.isclose(f(x.T)[0, 0], x[0, 0] + 100)


def test_updates_in_place_keep_their_order(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    @jit
    def f(cache, x):  # type: ignore[no-untyped-def]
        before = ops.add(cache, x)
        ops.bump(cache, 1.0)
        return before, ops.add(cache, x)

    cache = np.zeros_like(x)
    before, after = f(cache, x)
    assert np.allclose(before, x) and np.allclose(after, x + 1) and (cache == 1).all()
    cache.flags.writeable = False
    with pytest.raises(TriError, match="E0529"):
        f(cache, x)
    with pytest.raises(TriError, match="E0530"):
        f(x, x)


def test_trits_are_checked_at_each_call(ops: Namespace, jit: Any, random: np.random.Generator) -> None:
    f = jit(lambda w, v: ops.dots(w, v))
    w, v = random.integers(-1, 2, (5, 7)).astype(np.int8), np.arange(7, dtype=np.int8)
    assert np.array_equal(f(w, v), w.astype(np.int32) @ v)
    packed = f(tridsl.pack(w, "t16"), v)
    assert isinstance(packed, np.ndarray) and np.array_equal(packed, w.astype(np.int32) @ v)
    w[0, 0] = 5
    with pytest.raises(TriError, match="E0531"):
        f(w, v)


def test_a_traced_function_inside_another(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    inner = jit(lambda x: ops.mul(x, 2.0))
    outer = jit(lambda x: ops.add(inner(x), x))
    assert np.allclose(outer(x), 3 * x) and len(outer.plan(x).launches) == 1


def test_unused_calls_are_left_out(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    def f(x):  # type: ignore[no-untyped-def]
        ops.norm(x)
        return ops.mul(x, 2.0)

    assert [launch.label for launch in jit(f).plan(x).launches] == ["mul"]


def test_concurrent_and_nested_calls(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    f = jit(lambda x, w: ops.norm(ops.matmul(ops.matmul(x, w), w)))
    w = np.eye(32, dtype=np.float32) * 2
    inputs = [x + i for i in range(16)]
    with ThreadPoolExecutor(4) as pool:
        for given, found in zip(inputs, pool.map(lambda a: f(a, w), inputs)):
            assert np.allclose(found, normed(4 * given), atol=1e-5)


def test_results_have_the_type_of_the_first_array(ops: Namespace, jit: Any) -> None:
    buffer = tridsl.buffer((4, 8), "f32")
    assert isinstance(jit(lambda x: ops.mul(x, 2.0))(buffer), tridsl.Buffer)


def test_other_devices_are_fenced(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    f = jit(lambda x: ops.norm(ops.matmul(x, x, device="reference")))
    square = np.ascontiguousarray(x[:, :6])
    assert np.allclose(f(square), normed(square @ square), atol=1e-5)
    plan = f.plan(square)
    assert [launch.device for launch in plan.launches] == ["reference", "cpu"]
    assert [(fence.finishing, fence.waiting) for fence in plan.fences] == [("reference", "cpu")]


def test_a_docstring_of_tri_text(jit: Any, x: np.ndarray) -> None:
    def twice(x):  # type: ignore[no-untyped-def]
        """
        op twice(x: f32[N]) -> y: f32[N] {
          y[i] = 2 * x[i]
        }
        """

    assert np.allclose(jit(twice)(x), 2 * x)

    def prose(x):  # type: ignore[no-untyped-def]
        """Not an op: (just words)."""
        return x

    assert jit(prose)(x) is x


def keep(store: list[Any], value: Any) -> Any:
    store.append(value)
    return value


@pytest.mark.parametrize(
    ("function", "code", "words"),
    [
        (lambda ops, x: x if x else None, "E0535", "condition"),
        (lambda ops, x: np.exp(x), "E0536", "np.exp"),
        (lambda ops, x: np.concatenate([x, x]), "E0536", "np.concatenate"),
        (lambda ops, x: x + 1, "E0536", "operator +"),
        (lambda ops, x: 2 * x, "E0536", "operator *"),
        (lambda ops, x: x[0], "E0536", "indexing"),
        (lambda ops, x: float(x), "E0536", "float()"),
        (lambda ops, x: x == 1, "E0536", "=="),
        (lambda ops, x: list(x), "E0536", "iteration"),
        (lambda ops, x: 3.0, "E0537", "float"),
        (lambda ops, x: ops.above(x, 0.0), "E0510", "compaction"),
        (lambda ops, x: ops.mul(x, 2.0, out=np.empty(3, np.float32)), "E0536", "out="),
        (lambda ops, x: ops.add(x, np.zeros(5, np.float32)), "E0504", "N"),
    ],
)
def test_what_tracing_cannot_do(ops: Namespace, jit: Any, x: np.ndarray, function: Any, code: str, words: str) -> None:
    with pytest.raises(TriError) as caught:
        jit(lambda x: function(ops, x))(x)
    assert caught.value.code == code and words in str(caught.value)


def test_run_time_lengths_and_escaped_tensors_are_refused(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    with pytest.raises(TriError, match="E0537"):
        jit(lambda x: ops.above(x, 0.0))(x[0])
    kept: list[Any] = []
    jit(lambda x: keep(kept, ops.mul(x, 2.0)))(x)
    with pytest.raises(TriError, match="E0536"):
        ops.mul(kept[0], 2.0)


def test_wrong_arguments_of_the_function(ops: Namespace, jit: Any, x: np.ndarray) -> None:
    f = jit(lambda x: ops.mul(x, 2.0))
    with pytest.raises(TriError, match="E0521"):
        f()
    with pytest.raises(TriError, match="E0532"):
        f(object())
