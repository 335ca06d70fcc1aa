"""Hand-scheduled kernels, as schedules will make them, against NumPy: shapes that fit and shapes that do not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.vulkan.conftest import Run
from tests.backends.vulkan.kernels import (
    call,
    elementwise,
    group,
    kernel,
    lane,
    load,
    matmul,
    shared,
    softmax,
    store,
    tensor,
    var,
)  # fmt: skip
from tridsl.dtypes import BF16, F16, F32, I8, I16, I32, NUMPY_TYPES, DType
from tridsl.ir.expr import Binary, Expr, add, index, sub
from tridsl.ir.loop import For


@pytest.mark.parametrize("dynamic", [False, True])
def test_more_workgroups_than_a_device_starts_at_once(run: Run, dynamic: bool) -> None:
    size = 70001
    x, y = np.arange(size, dtype=np.float32), np.zeros(size, np.float32)
    n: Expr = var("N") if dynamic else index(size)
    run(elementwise(n, (F32,), F32, lambda p: p, lanes=1), x, y, *((size,) if dynamic else ()))
    np.testing.assert_array_equal(y, x)


SHAPES = [(128, 128, 64), (1, 1, 1), (67, 131, 37), (0, 5, 3), (5, 4, 0), (65, 64, 17), (3, 200, 33), (130, 2, 129)]


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 1009])
@pytest.mark.parametrize("dynamic", [False, True])
def test_elementwise_at_every_tail(run: Run, size: int, dynamic: bool) -> None:
    rng = np.random.default_rng(size)
    x, b = rng.normal(size=size).astype(np.float32), rng.normal(size=size).astype(np.float32)
    guarded = np.full(size + 32, 7, np.float32)
    y = guarded[:size]

    def scaled(p: Expr, q: Expr) -> Expr:
        return Binary(op="add", a=call("tanh", p), b=q, dtype=F32)

    n: Expr = var("N") if dynamic else index(size)
    run(elementwise(n, (F32, F32), F32, scaled), x, b, y, *((size,) if dynamic else ()))
    np.testing.assert_allclose(y, np.tanh(x.astype(np.float64)) + b, rtol=1e-6, atol=2e-7)
    assert (guarded[size:] == 7).all()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dynamic", [False, True])
def test_matmul_staged_in_shared_memory(run: Run, shape: tuple[int, int, int], dynamic: bool) -> None:
    m, n, k = shape
    rng = np.random.default_rng(0)
    a, b, c = (
        rng.normal(size=(m, k)).astype(np.float32),
        rng.normal(size=(k, n)).astype(np.float32),
        np.zeros((m, n), np.float32),
    )
    sizes: list[Expr] = [var(name) if dynamic else index(size) for name, size in zip("MNK", shape)]
    run(matmul(*sizes), a, b, c, *(shape if dynamic else ()))
    exact = a.astype(np.float64) @ b.astype(np.float64)
    bound = 2 * k * 2.0**-24 * (np.abs(a.astype(np.float64)) @ np.abs(b.astype(np.float64)))
    assert (np.abs(c - exact) <= bound).all()


@pytest.mark.parametrize(("dtype", "acc"), [(I8, I32), (I16, I32), (I32, I32)], ids=str)
def test_integer_matmul_is_exact(run: Run, dtype: DType, acc: DType) -> None:
    assert dtype.low is not None and dtype.high is not None
    rng = np.random.default_rng(1)
    a, b = (
        rng.integers(dtype.low, dtype.high, shape, endpoint=True).astype(NUMPY_TYPES[dtype])
        for shape in ((67, 37), (37, 70))
    )
    c = np.zeros((67, 70), np.int32)
    run(matmul(index(67), index(70), index(37), dtype, acc), a, b, c)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(c, (a.astype(np.int64) @ b.astype(np.int64)).astype(np.int32))


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
def test_narrow_float_matmul_accumulates_in_f32(run: Run, dtype: DType) -> None:
    rng = np.random.default_rng(2)
    a, b = (rng.normal(size=shape).astype(NUMPY_TYPES[dtype]) for shape in ((65, 40), (40, 66)))
    c = np.zeros((65, 66), np.float32)
    run(matmul(index(65), index(66), index(40), dtype, F32), a, b, c)
    a, b = a.astype(np.float64), b.astype(np.float64)
    assert (np.abs(c - a @ b) <= 2 * 40 * 2.0**-24 * (np.abs(a) @ np.abs(b))).all()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 1000), (0, 4), (2, 128), (2, 129), (3, 127)], ids=str)
@pytest.mark.parametrize("chunked", [False, True])
def test_softmax_combines_lanes(run: Run, shape: tuple[int, int], chunked: bool) -> None:
    x = np.random.default_rng(3).normal(size=shape).astype(np.float32)
    y = np.zeros_like(x)
    run(softmax(index(shape[0]), index(shape[1]), chunked=chunked), x, y)
    e = np.exp(x.astype(np.float64) - x.astype(np.float64).max(axis=1, initial=-np.inf, keepdims=True))
    np.testing.assert_allclose(y, e / e.sum(axis=1, keepdims=True), rtol=2e-6)


def test_softmax_of_special_rows(run: Run) -> None:
    x = np.zeros((4, 200), np.float32)
    x[0, 3], x[1, 150], x[2, :] = np.inf, np.nan, -3e38
    y = np.zeros_like(x)
    run(softmax(index(4), index(200)), x, y)
    assert np.isnan(y[:2]).all()  # inf - inf in the sum; NaN is the greatest
    np.testing.assert_allclose(y[2:], 1 / 200, rtol=1e-6)


def test_results_repeat_bit_for_bit(load, run: Run) -> None:  # type: ignore[no-untyped-def]
    x = np.random.default_rng(4).normal(size=(8, 777)).astype(np.float32)
    executable = load(softmax(index(8), index(777)))
    results = []
    for _ in range(3):
        y = np.zeros_like(x)
        executable((x, y), 1)
        results.append(y.tobytes())
    assert len(set(results)) == 1


def test_parts_of_a_split_loop_take_turns_in_one_shared_buffer(run: Run) -> None:
    """What `partition_loops` leaves: the same body twice, with its allocation."""

    def part(first: int, name: str) -> For:
        into, out_of = var(f"{name}:l"), var(f"{name}:m")
        write = lane(into.name, index(32), store("e", load("x", F32, add(index(first), into)), into))
        value = load("e", F32, sub(index(31), out_of))
        read = lane(out_of.name, index(32), store("y", value, add(index(first), out_of)))
        return group(f"{name}:g", index(1), shared("e", F32, 32), write, read)

    params = (tensor("x", F32, 64), tensor("y", F32, 64, role="output"))
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    run(kernel("halves", params, part(0, "a"), part(32, "b")), x, y)
    np.testing.assert_array_equal(y, np.concatenate([x[:32][::-1], x[32:][::-1]]))
