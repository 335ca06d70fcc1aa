"""Every operator, cast and element type against the oracle's scalar semantics, at the values where they are hard."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from tests.backends.vulkan.conftest import Run
from tests.backends.vulkan.kernels import elementwise, load, var
from tridsl.dtypes import (
    BF16,
    BOOL,
    DTYPES,
    F16,
    F32,
    F64,
    I4,
    I8,
    I16,
    I32,
    I64,
    NUMPY_TYPES,
    TRIT,
    U4,
    U8,
    U16,
    U32,
    DType,
    compute_type,
)  # fmt: skip
from tridsl.ir import scalar
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.expr import COMPARE, Binary, BinaryOp, Cast, Expr, Load, Select, Unary, UnaryOp, add, index, mul

INTEGERS = (I8, U8, I16, U16, I32, U32, I64)
FLOATS = (F32, F64)
ALL = tuple(DTYPES.values())
INTEGER_OPS: tuple[BinaryOp, ...] = (
    "add",
    "sub",
    "mul",
    "floordiv",
    "mod",
    "min",
    "max",
    "and",
    "or",
    "xor",
    "shl",
    "shr",
)
FLOAT_OPS: tuple[BinaryOp, ...] = ("add", "sub", "mul", "div", "min", "max")
FLOAT_VALUES = (
    0.0, -0.0, 1.0, -1.0, 1.5, -2.5, 0.3, np.inf, -np.inf, np.nan, 3e38, -3e38, 1e-30, 127.5, 128.0, -128.9, 255.9, 256.0, -0.9,
    32767.5, 65535.0, 65536.0, 2147483520.0, 2147483648.0, -2147483648.0, 4294967040.0, 4294967296.0, 9.2e18, 9.3e18, -9.3e18,
)  # fmt: skip


def values(dtype: DType) -> np.ndarray:
    """Edges of the type's range, neighbours of 0, and what lies between, as an array of the type."""
    if dtype.is_float:
        with np.errstate(all="ignore"):
            return np.array(FLOAT_VALUES).astype(NUMPY_TYPES[dtype])
    if dtype == BOOL:
        return np.array([False, True])
    assert dtype.low is not None and dtype.high is not None
    edges = {
        dtype.low,
        dtype.low + 1,
        dtype.high,
        dtype.high - 1,
        dtype.high // 3,
        0,
        1,
        2,
        3,
        5,
        7,
        8,
        31,
        33,
        -1,
        -2,
        -7,
    }
    inside = sorted(v for v in edges if dtype.low <= v <= dtype.high)
    return np.array(inside, np.int64 if dtype.low < 0 else np.uint64).astype(NUMPY_TYPES[dtype])


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    both = list(itertools.product(values(dtype), repeat=2))
    return tuple(np.array([pair[i] for pair in both]).astype(NUMPY_TYPES[dtype]) for i in (0, 1))  # type: ignore[return-value]


def held(array: np.ndarray, dtype: DType) -> np.ndarray:
    """An array as the oracle holds its values."""
    return array.astype(scalar.HELD[dtype])


def assert_same(found: np.ndarray, wanted: np.ndarray) -> None:
    """Equal bit for bit, but for the payload of NaN; the sign of zero counts."""
    assert found.dtype == wanted.dtype
    if found.dtype.kind in "biu":
        np.testing.assert_array_equal(found, wanted)
        return
    found, wanted = found.astype(np.float64), wanted.astype(np.float64)
    np.testing.assert_array_equal(found, wanted)
    number = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found)[number], np.signbit(wanted)[number])


def run_binary(run: Run, dtype: DType, ops: tuple[BinaryOp, ...]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Each operator with its results and the oracle's, from one kernel with an output for each."""
    a, b = pairs(dtype)
    outs = tuple(BOOL if op in COMPARE else dtype for op in ops)
    ys = [np.zeros(len(a), NUMPY_TYPES[out]) for out in outs]

    def every(p: Expr, q: Expr) -> tuple[Expr, ...]:
        return tuple(Binary(op=op, a=p, b=q, dtype=out) for op, out in zip(ops, outs))

    run(elementwise(index(len(a)), (dtype, dtype), outs, every), a, b, *ys)
    for op, y in zip(ops, ys):
        with np.errstate(all="ignore"):
            yield op, y, scalar.BINARY[op](a, b)


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integer_operators_are_total_and_exact(run: Run, dtype: DType) -> None:
    for op, found, wanted in run_binary(run, dtype, (*INTEGER_OPS, *COMPARE)):
        np.testing.assert_array_equal(found, wanted, err_msg=op)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_float_operators_follow_ieee_and_propagate_nan(run: Run, dtype: DType) -> None:
    for op, found, wanted in run_binary(run, dtype, (*FLOAT_OPS, *COMPARE)):
        if op in ("min", "max"):  # of two zeros either may come
            found, wanted = found + 0, wanted + 0
        assert_same(found, wanted)


def test_bool_operators(run: Run) -> None:
    for op, found, wanted in run_binary(run, BOOL, ("and", "or", "xor", "eq", "ne")):
        np.testing.assert_array_equal(found, wanted, err_msg=op)


@pytest.mark.parametrize("dtype", (*INTEGERS, *FLOATS), ids=str)
def test_unary_operators(run: Run, dtype: DType) -> None:
    a = values(dtype)
    ops: tuple[UnaryOp, ...] = ("neg", "abs") if dtype.is_float else ("neg", "abs", "invert")
    ys = [np.zeros_like(a) for _ in ops]
    every = lambda p: tuple(Unary(op=op, a=p, dtype=dtype) for op in ops)
    run(elementwise(index(len(a)), (dtype,), (dtype,) * len(ops), every), a, *ys)
    for op, y in zip(ops, ys):
        with np.errstate(all="ignore"):
            assert_same(y, scalar.UNARY[op](a))


@pytest.mark.parametrize("source", ALL, ids=str)
def test_casts_to_all_types(run: Run, source: DType) -> None:
    a = values(source)
    ys = [np.zeros(len(a), NUMPY_TYPES[target]) for target in ALL]

    def cast(value: Expr, target: DType) -> Expr:
        narrow = Cast(a=value, dtype=target)
        return narrow if compute_type(target) == target else Cast(a=narrow, dtype=compute_type(target))

    run(elementwise(index(len(a)), (source,), ALL, lambda p: tuple(cast(p, target) for target in ALL)), a, *ys)
    for target, y in zip(ALL, ys):
        with np.errstate(all="ignore"):
            assert_same(held(y, target), scalar.cast(held(a, source), source, target))


@pytest.mark.parametrize("dtype", (F16, BF16), ids=str)
def test_narrow_floats_round_to_nearest_even(run: Run, dtype: DType) -> None:
    rng = np.random.default_rng(0)
    x = np.concatenate(
        [
            rng.normal(size=5000) * np.exp(rng.uniform(-22, 12, 5000)),
            [65519.0, 65520.0, 5.96e-8, 2.98e-8, 3e-8, 0.0, -0.0, 6.1e-5, np.inf, -np.inf, np.nan, 3.4e38, 1e-45],
        ]
    ).astype(np.float32)
    y = np.zeros(len(x), NUMPY_TYPES[dtype])
    run(elementwise(index(len(x)), (F32,), dtype, lambda p: p), x, y)
    with np.errstate(all="ignore"):
        assert_same(y, x.astype(NUMPY_TYPES[dtype]))


@pytest.mark.parametrize("dtype", (F16, BF16), ids=str)
def test_every_value_of_a_narrow_float_is_read_exactly(run: Run, dtype: DType) -> None:
    x = np.arange(1 << 16, dtype=np.uint32).astype(np.uint16).view(NUMPY_TYPES[dtype])
    y = np.zeros(len(x), np.float32)
    run(elementwise(index(len(x)), (dtype,), F32, lambda p: p), x, y)
    with np.errstate(all="ignore"):
        assert_same(y, x.astype(np.float32))


@pytest.mark.parametrize("dtype", (TRIT, I4, U4), ids=str)
def test_packed_values_pass_through(run: Run, dtype: DType) -> None:
    low, high = dtype.low or 0, dtype.high or 0
    x = np.arange(low, high + 1).astype(NUMPY_TYPES[dtype])
    y = np.zeros_like(x)
    run(elementwise(index(len(x)), (dtype,), dtype, lambda p: p), x, y)
    np.testing.assert_array_equal(y.astype(np.int8), x.astype(np.int8))


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_select_and_masked_loads(run: Run, dtype: DType) -> None:
    """`x[-i]` masked to the one place that exists: elsewhere memory is not touched and `other` comes."""
    x = values(dtype)
    n = len(x)
    inside = Binary(op="lt", a=load("x1", I64, *_position()), b=index(n), dtype=BOOL)
    compute = compute_type(dtype)

    def gather(_: Expr, at: Expr) -> Expr:
        element = Load(tensor="x0", index=(at,), dtype=dtype, mask=inside, other=None)
        value: Expr = element if compute == dtype else Cast(a=element, dtype=compute)
        return Select(condition=inside, a=value, b=Cast(a=index(1), dtype=compute), dtype=compute)

    at = np.array([0, n, 1 << 40, n - 1] * n, np.int64)[:n]
    y = np.zeros(n, NUMPY_TYPES[dtype])
    run(elementwise(index(n), (dtype, I64), dtype, gather), x, at, y)
    wanted = np.where(at < n, x[np.where(at < n, at, 0)], np.ones((), NUMPY_TYPES[dtype]))
    assert_same(held(y, dtype), held(wanted, dtype))


def _position() -> tuple[Expr, ...]:
    return (add(mul(var("y:i.o"), index(64)), var("y:i.i")),)


def random_index(rng: np.random.Generator, depth: int) -> Expr:
    """Index arithmetic over the position, a size that is known only at run time, and constants of every magnitude."""
    if depth == 0:
        leaf = rng.integers(0, 4)
        if leaf == 0:
            return var("N")
        return (
            _position()[0]
            if leaf < 3
            else index(int(rng.choice([0, 1, 2, 7, 64, -3, -1, 2**31 - 1, 2**31, 2**33, -(2**40)])))
        )
    a, b = random_index(rng, depth - 1), random_index(rng, depth - int(rng.integers(1, depth + 1)))
    op: BinaryOp = rng.choice(["add", "sub", "mul", "floordiv", "mod", "min", "max"])
    return Binary(op=op, a=a, b=b, dtype=I64)


@pytest.mark.parametrize("seed", range(4))
def test_index_arithmetic_is_exact_whatever_its_width(run: Run, seed: int) -> None:
    """32 bits are used where ranges allow; the oracle counts in 64."""
    rng = np.random.default_rng(seed)
    expressions = tuple(random_index(rng, int(rng.integers(1, 5))) for _ in range(12))
    made = replace(elementwise(index(100), (), (I64,) * 12, lambda: expressions), sizes=("N",))
    wanted = evaluate_kernel(made, {}, {"N": 12345})
    found = [np.zeros(100, np.int64) for _ in expressions]
    run(made, *found, 12345)
    for position, array in enumerate(found):
        np.testing.assert_array_equal(array, wanted[f"y{position}"], err_msg=str(expressions[position]))
