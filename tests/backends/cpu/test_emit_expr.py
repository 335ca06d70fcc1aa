"""Every expression node in every dtype, scalar and in lanes, against the kernel oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.backends.cpu.kernels import agrees, const, kernel, load, loop, op, run, scalar, store, tensor, values
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
)
from tridsl.ir.expr import Binary, Cast, Const, Expr, Select, Unary, Var
from tridsl.ir.loop import For, Kernel

ARITHMETIC = (BOOL, I8, U8, I16, U16, I32, U32, I64, F32, F64)
INTEGERS = tuple(t for t in ARITHMETIC if t.is_integer)
LENGTH = 83


def elementwise(value: Expr, inputs: dict[str, DType], result: DType, *, lanes: int) -> Kernel:
    """`y[i] = value`, one iteration at a time (`lanes` 0) or in vectors with a tail."""
    params = [*(tensor(n, t, LENGTH) for n, t in inputs.items()), tensor("y", result, LENGTH, role="output")]
    if not lanes:
        return kernel("elementwise", params, loop("i", LENGTH, store("y", "i", value=value)))
    from tridsl.ir.expr import minimum, mul, sub
    from tridsl.ir.walk import substitute

    position = Binary(op="add", a=mul(Var(name="o"), const(lanes)), b=Var(name="v"), dtype=I64)
    inner = For(
        var="v", extent=minimum(const(lanes), sub(const(LENGTH), mul(Var(name="o"), const(lanes)))), kind="vector", bound=lanes,
        body=(substitute(store("y", "i", value=value), {"i": position}),),
    )  # fmt: skip
    return kernel("elementwise", params, loop("o", -(-LENGTH // lanes), inner))


def edge_values(dtype: DType, seed: int) -> np.ndarray:
    """Random elements with the awkward ones in front."""
    found = values(dtype, LENGTH, seed)
    if dtype.is_float:
        special = [0.0, -0.0, math.inf, -math.inf, math.nan, 1e-40, 65504.0, 65520.0, 3e38, -3e9, 1e19, 0.5, 1.5, -2.5]
        with np.errstate(all="ignore"):
            found[: len(special)] = np.array(special).astype(found.dtype)
    elif dtype != BOOL:
        special = [dtype.low, dtype.high, 0, -1 if dtype.low else 1, 1, 1 if dtype == TRIT else 3]
        found[: len(special)] = np.array(special).astype(found.dtype)
    return found


@pytest.mark.parametrize("lanes", [0, 16, 5])
@pytest.mark.parametrize("dtype", ARITHMETIC, ids=str)
def test_binary_operators(dtype: DType, lanes: int) -> None:
    names = {
        "bool": ("and", "or", "xor", "eq", "ne"),
        "int": ("add", "sub", "mul", "floordiv", "mod", "min", "max", "and", "or", "xor", "shl", "shr", "lt", "le", "eq", "ne", "gt", "ge"),
        "float": ("add", "sub", "mul", "div", "min", "max", "lt", "le", "eq", "ne", "gt", "ge"),
    }
    a, b = edge_values(dtype, 1), edge_values(dtype, 2)[::-1].copy()
    for name in names["int" if dtype.is_integer else dtype.kind]:
        value = op(name, load("a", dtype, "i"), load("b", dtype, "i"))
        agrees(elementwise(value, {"a": dtype, "b": dtype}, value.dtype, lanes=lanes), {"a": a, "b": b})


@pytest.mark.parametrize("dtype", INTEGERS, ids=str)
def test_division_and_shift_by_constants(dtype: DType) -> None:
    a = edge_values(dtype, 3)
    assert dtype.low is not None
    for divisor in (1, 2, 3, 7, 8, 0, *((-1, -3, dtype.low) if dtype.low else ())):
        for name in ("floordiv", "mod"):
            value = op(name, load("a", dtype, "i"), const(divisor, dtype))
            agrees(elementwise(value, {"a": dtype}, dtype, lanes=16), {"a": a})
    for amount in (0, 1, dtype.bits - 1, dtype.bits, 100):
        for name in ("shl", "shr"):
            value = op(name, load("a", dtype, "i"), const(amount, dtype))
            agrees(elementwise(value, {"a": dtype}, dtype, lanes=16), {"a": a})


def test_division_edges_are_total() -> None:
    a = np.array([-(2**31), -(2**31), 7, -7, 7, -7, 0] + [1] * (LENGTH - 7), np.int32)
    b = np.array([-1, 0, 2, 2, -2, -2, 0] + [1] * (LENGTH - 7), np.int32)
    for name, want in (("floordiv", [-(2**31), 0, 3, -4, -4, 3, 0]), ("mod", [0, 0, 1, 1, -1, -1, 0])):
        value = op(name, load("a", I32, "i"), load("b", I32, "i"))
        got = run(elementwise(value, {"a": I32, "b": I32}, I32, lanes=16), {"a": a, "b": b})["y"]
        assert got[:7].tolist() == want


@pytest.mark.parametrize("target", DTYPES.values(), ids=str)
@pytest.mark.parametrize("source", DTYPES.values(), ids=str)
def test_casts(source: DType, target: DType) -> None:
    """Compute type to compute type, and from and to memory: f16 and bf16 round once, ints wrap, floats saturate."""
    a = edge_values(source, 4)
    value = Cast(a=load("a", source, "i"), dtype=compute_type(target))
    for lanes in (0, 16):
        agrees(elementwise(value, {"a": source}, target, lanes=lanes), {"a": a}, rtol=0)


@pytest.mark.parametrize("narrow", [F16, BF16], ids=str)
def test_double_rounds_once(narrow: DType) -> None:
    """f64 just above the middle between two narrow numbers rounds up; through a plain f32 it would fall on the middle."""
    step = 2.0**-10 if narrow == F16 else 2.0**-7
    a = np.full(LENGTH, 1 + step / 2 + 2.0**-40)
    a[1], a[2], a[3] = 1 + step / 2, 1 + 3 * step / 2 - 2.0**-40, -(1 + step / 2 + 2.0**-40)
    value = Cast(a=Cast(a=load("a", F64, "i"), dtype=narrow), dtype=F32)
    for lanes in (0, 16):
        got = run(elementwise(value, {"a": F64}, F32, lanes=lanes), {"a": a})["y"]
        assert got[:5].tolist() == [1 + step, 1.0, 1 + step, -(1 + step), 1 + step]


@pytest.mark.parametrize("dtype", ARITHMETIC, ids=str)
def test_unary_and_select(dtype: DType) -> None:
    a, b = edge_values(dtype, 5), edge_values(dtype, 6)
    names = {"bool": ("not",), "float": ("neg", "abs")}.get(dtype.kind, ("neg", "abs", "invert"))
    for name in names:
        value: Expr = Unary(op=name, a=load("a", dtype, "i"), dtype=dtype)  # type: ignore[arg-type]
        for lanes in (0, 16):
            agrees(elementwise(value, {"a": dtype}, dtype, lanes=lanes), {"a": a})
    value = Select(condition=op("lt", load("a", dtype, "i"), load("b", dtype, "i")), a=load("b", dtype, "i"), b=load("a", dtype, "i"), dtype=dtype)
    for lanes in (0, 16):
        agrees(elementwise(value, {"a": dtype, "b": dtype}, dtype, lanes=lanes), {"a": a, "b": b})


def test_constants_of_every_type() -> None:
    for dtype, number in ((F16, 1.5), (BF16, -2.5), (I4, -8), (U4, 15), (TRIT, -1), (U32, 2**32 - 1), (I64, -(2**63)), (F64, math.inf)):
        value = Cast(a=Const(value=number, dtype=dtype), dtype=compute_type(dtype))
        agrees(elementwise(value, {}, dtype, lanes=16), {})


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=str)
def test_scalar_parameters(dtype: DType) -> None:
    value = Cast(a=Var(name="s", dtype=dtype), dtype=compute_type(dtype))
    params = [scalar("s", dtype), tensor("y", dtype, 20, role="output")]
    what = kernel("fill", params, loop("i", 20, store("y", "i", value=value), kind="vector"))
    number = True if dtype == BOOL else 1.5 if dtype.is_float else dtype.low if dtype.low else 3
    assert run(what, {"s": number})["y"].tolist() == np.full(20, number).astype(NUMPY_TYPES[dtype]).tolist()
