"""Traced programs whose launches run on the GPU as one: the same answers as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest

import tridsl
from tridsl import stdlib

OPS = """
op bump(inout x: f32[N], by: f32) { x[i] = x[i] + by }
op pick(T: f32[N], ids: i32[M]) -> y: f32[M] { y[m] = T[ids[m]] }
op mul(a: f32[N], s: f32) -> c: f32[N] { c[i] = a[i] * s }
op turn(a: f32[N]) -> c: f32[N] { c[i] = a[N - 1 - i] }
op lift(a: f32[N], b: f32[N]) -> c: f32[N] { c[i] = sum[k](a[k] * b[i]) }
op peaks(a: f32[M, N]) -> c: f32[N] { c[j] = max[i](a[i, j]) }
"""


@pytest.fixture
def ops():  # type: ignore[no-untyped-def]
    return tridsl.compile(OPS)


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((6, 32)).astype(np.float32)


def both(gpu: str, function, *arguments: np.ndarray):  # type: ignore[no-untyped-def]
    """What the program gives on the GPU, twice, and on the CPU."""
    gpu, cpu = (tridsl.jit(device=name)(function) for name in (gpu, "cpu"))
    want = cpu(*(a.copy() for a in arguments))
    for _ in range(2):
        np.testing.assert_allclose(gpu(*(a.copy() for a in arguments)), want, rtol=2e-5, atol=1e-6)
    return gpu.plan(*arguments)


def test_temporaries_never_leave_the_device(gpu: str, x: np.ndarray) -> None:
    gate, up, down = (np.random.default_rng(n).standard_normal(s).astype(np.float32) / 6 for n, s in enumerate(((32, 40), (32, 40), (40, 32))))

    def ffn(x, gate, up, down):  # type: ignore[no-untyped-def]
        return stdlib.softmax(stdlib.matmul(stdlib.silu_mul(stdlib.matmul(x, gate), stdlib.matmul(x, up)), down))

    plan = both(gpu, ffn, x, gate, up, down)
    assert len(plan.launches) == 5 and plan.moved_bytes == 2 * x.nbytes + gate.nbytes + up.nbytes + down.nbytes


def test_a_value_that_is_updated_in_place(gpu: str, ops, x: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    def f(x):  # type: ignore[no-untyped-def]
        ops.bump(x, 2.0)
        return ops.turn(ops.turn(x))

    mine, theirs = x[0].copy(), x[0].copy()
    found = tridsl.jit(device=gpu)(f)(mine)
    want = tridsl.jit(device="cpu")(f)(theirs)
    np.testing.assert_array_equal(found, want)
    np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_array_equal(mine, x[0] + 2)


def test_a_call_elsewhere_in_the_middle(gpu: str, x: np.ndarray) -> None:
    w = np.eye(32, dtype=np.float32)[::-1].copy()

    def f(x, w):  # type: ignore[no-untyped-def]
        return stdlib.matmul(stdlib.matmul(stdlib.matmul(stdlib.matmul(x, w), w, device="cpu"), w), w)

    plan = both(gpu, f, x, w)
    assert {launch.device for launch in plan.launches} == {gpu, "cpu"} and len(plan.fences) == 2


def test_a_value_that_is_repeated(gpu: str, ops, x: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    def f(x):  # type: ignore[no-untyped-def]
        return ops.lift(x, ops.peaks(x))

    plan = both(gpu, f, x)
    assert len(plan.launches) == 2


def test_a_check_that_fails_inside_a_program(gpu: str, ops, x: np.ndarray) -> None:  # type: ignore[no-untyped-def]
    @tridsl.jit(device=gpu)
    def f(x, ids):  # type: ignore[no-untyped-def]
        return ops.turn(ops.pick(ops.turn(x), ids))

    ids = np.array([3, 1, 31, 0], np.int32)
    np.testing.assert_array_equal(f(x[0], ids), x[0, ::-1][ids][::-1])
    with pytest.raises(IndexError):
        f(x[0], np.array([3, 1, 32, 0], np.int32))
    np.testing.assert_array_equal(f(x[0], ids), x[0, ::-1][ids][::-1])
