"""Scalar semantics against Python's unbounded integers and against exact arithmetic."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest

from tridsl.dtypes import BF16, BOOL, F16, F32, F64, I4, I8, I16, I32, I64, TRIT, U4, U8, U16, U32, DType
from tridsl.ir import scalar

INTEGERS = (I8, U8, I16, U16, I32, U32, I64)


def wrap(value: int, dtype: DType) -> int:
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.low and value >= 1 << (dtype.bits - 1) else value


def interesting(dtype: DType) -> list[int]:
    assert dtype.low is not None and dtype.high is not None
    return sorted(
        {
            dtype.low,
            dtype.low + 1,
            max(dtype.low, -2),
            max(dtype.low, -1),
            0,
            1,
            2,
            3,
            7,
            dtype.bits - 1,
            dtype.bits,
            dtype.high - 1,
            dtype.high,
        }
    )


EXPECTED = {
    "add": lambda a, b, t: a + b,
    "sub": lambda a, b, t: a - b,
    "mul": lambda a, b, t: a * b,
    "floordiv": lambda a, b, t: a // b if b else 0,
    "mod": lambda a, b, t: a % b if b else 0,
    "min": lambda a, b, t: min(a, b),
    "max": lambda a, b, t: max(a, b),
    "and": lambda a, b, t: a & b,
    "or": lambda a, b, t: a | b,
    "xor": lambda a, b, t: a ^ b,
    "shl": lambda a, b, t: a << b if 0 <= b < t.bits else 0,
    "shr": lambda a, b, t: a >> b if 0 <= b < t.bits else (-1 if a < 0 else 0),
}


@pytest.mark.parametrize("op", EXPECTED)
@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_integers_wrap_and_nothing_traps(op: str, dtype: DType) -> None:
    values = interesting(dtype)
    a, b = (np.array(x, dtype=scalar.HELD[dtype]) for x in zip(*[(x, y) for x in values for y in values]))
    with np.errstate(all="ignore"):
        got = scalar.BINARY[op](a, b)
    assert got.dtype == a.dtype
    assert got.tolist() == [wrap(EXPECTED[op](int(x), int(y), dtype), dtype) for x, y in zip(a, b)]


@pytest.mark.parametrize("target", INTEGERS, ids=str)
@pytest.mark.parametrize("source", [F32, F64], ids=str)
def test_float_to_integer_truncates_and_saturates(source: DType, target: DType) -> None:
    assert target.low is not None and target.high is not None
    values = [
        0.0,
        -0.0,
        0.9,
        -0.9,
        1.5,
        -1.5,
        127.9,
        128.0,
        -128.9,
        -129.0,
        255.9,
        256.0,
        65535.5,
        2.0**31,
        2.0**31 - 128,
        -(2.0**31),
        2.0**63,
        -(2.0**63),
        1e30,
        -1e30,
    ]
    array = np.array([*values, np.inf, -np.inf, np.nan], scalar.HELD[source])
    with np.errstate(all="ignore"):
        got = scalar.cast(array, source, target)
    want = [min(max(math.trunc(float(v)), target.low), target.high) for v in array[:-3]]
    assert got.tolist() == [*want, target.high, target.low, 0]


@pytest.mark.parametrize("target", [*INTEGERS, I4, U4, TRIT], ids=str)
@pytest.mark.parametrize("source", INTEGERS, ids=str)
def test_integer_casts_wrap(source: DType, target: DType) -> None:
    values = interesting(source)
    got = scalar.cast(np.array(values, scalar.HELD[source]), source, target)
    assert got.tolist() == [wrap(v, target) for v in values]


def test_integer_to_f32_rounds_once() -> None:
    values = [2**53 + 2**29 + 1, -(2**62) - 1, 2**24 + 1, 2**24 + 3]
    got = scalar.cast(np.array(values), I64, F32)
    assert got.tolist() == [
        float(np.float32(v)) if abs(v) < 2**53 else float(np.int64(v).astype(np.float32)) for v in values
    ]
    assert got[0] == 2.0**53 + 2.0**30, "just above the tie, so up; through f64 it would be down to even"


def test_half_types_round_to_nearest_even() -> None:
    x = np.array([1 + 2.0**-11, 1 + 3 * 2.0**-11, 65519.99, 65520.0, 2.0**-25, 2.0**-24, np.nan], np.float32)
    np.testing.assert_array_equal(scalar.round_to(x, F16), x.astype(np.float16).astype(np.float32))
    np.testing.assert_array_equal(scalar.round_to(x, BF16), x.astype(ml_dtypes.bfloat16).astype(np.float32))


def test_minimum_and_maximum_propagate_nan() -> None:
    a, b = np.array([np.nan, 1.0, np.nan], np.float32), np.array([1.0, np.nan, np.nan], np.float32)
    assert np.isnan(scalar.BINARY["max"](a, b)).all() and np.isnan(scalar.BINARY["min"](a, b)).all()


def test_bool_logic_and_casts() -> None:
    a, b = np.array([True, True, False]), np.array([True, False, False])
    assert scalar.BINARY["xor"](a, b).tolist() == [False, True, False]
    assert scalar.cast(np.array([0.0, np.nan, -0.0, 2.0]), F64, BOOL).tolist() == [False, True, False, True]
    assert scalar.cast(a, BOOL, I32).tolist() == [1, 1, 0]


@pytest.mark.parametrize(
    ("name", "x", "want"),
    [
        ("round_even", [0.5, 1.5, -0.5, 2.5], [0, 2, -0.0, 2]),
        ("round_away", [0.5, 1.5, -0.5, 2.5, 0.49999997], [1, 2, -1, 3, 0]),
        ("rsqrt", [4.0, 0.0, np.inf], [0.5, np.inf, 0]),
        ("erf", [0.0, np.inf, 0.5], [0, 1, math.erf(0.5)]),
        ("trunc", [-1.5, 1.5], [-1, 1]),
        ("exp", [0.0, -np.inf, 1000.0], [1, 0, np.inf]),
    ],
)
def test_functions(name: str, x: list[float], want: list[float]) -> None:
    with np.errstate(all="ignore"):
        got = scalar.call(name, (np.array(x, np.float32),), F32)
    np.testing.assert_array_equal(got, np.array(want, np.float64).astype(np.float32))


def test_float_division_follows_ieee() -> None:
    with np.errstate(all="ignore"):
        got = scalar.BINARY["div"](np.array([1, -1, 0], np.float32), np.zeros(3, np.float32))
        np.testing.assert_array_equal(scalar.BINARY["mod"](np.array([-7.5, 7.5]), np.array([2.0, -2.0])), [0.5, -0.5])
    np.testing.assert_array_equal(got, [np.inf, -np.inf, np.nan])
