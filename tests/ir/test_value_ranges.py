"""Ranges of integer expressions hold for every value of what they read, and a cast that they call exact is."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tridsl.dtypes import I8, I16, I32, NUMPY_TYPES, U8, U16, DType
from tridsl.ir.evaluate import evaluate_kernel
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Unary, Var, binary, index
from tridsl.ir.loop import For, Kernel, Phase, Ref, Store
from tridsl.ir.op import Tensor
from tridsl.ir.value_ranges import fits, value_range

INTEGERS = (I8, U8, I16, U16, I32)
LENGTH = 24
SOURCES = {dtype: f"x.{dtype}" for dtype in INTEGERS}


def leaf(dtype: DType) -> st.SearchStrategy[Expr]:
    assert dtype.low is not None and dtype.high is not None
    near = st.integers(max(dtype.low, -300), min(dtype.high, 300))
    read = Load(tensor=SOURCES[dtype], index=(Var(name="k:i"),), dtype=dtype)
    return st.one_of(st.just(read), near.map(lambda v: Const(value=v, dtype=dtype)))


def expressions(dtype: DType, depth: int) -> st.SearchStrategy[Expr]:
    if not depth:
        return leaf(dtype)
    same = expressions(dtype, depth - 1)
    other = st.sampled_from(INTEGERS).flatmap(lambda d: expressions(d, depth - 1))
    shifts = st.integers(-1, 9).map(lambda v: Const(value=v if dtype.low else max(v, 0), dtype=dtype))
    return st.one_of(
        same,
        st.builds(lambda o, a, b: Binary(op=o, a=a, b=b, dtype=dtype), st.sampled_from(("add", "sub", "mul", "min", "max", "and")), same, same),
        st.builds(lambda o, a, b: Binary(op=o, a=a, b=b, dtype=dtype), st.sampled_from(("shl", "shr")), same, shifts),
        st.builds(lambda o, a: Unary(op=o, a=a, dtype=dtype), st.sampled_from(("neg", "abs", "invert")), same),
        st.builds(lambda a: Cast(a=a, dtype=dtype), other),
        st.builds(lambda a, b, c: Select(condition=binary("lt", a, b), a=c, b=a, dtype=dtype), same, same, same),
    )


def evaluated(value: Expr, seed: int) -> np.ndarray:
    arrays = {}
    for dtype, name in SOURCES.items():
        kind = np.iinfo(NUMPY_TYPES[dtype])
        random = np.random.default_rng(seed).integers(kind.min, kind.max, LENGTH, dtype=NUMPY_TYPES[dtype], endpoint=True)
        random[:4] = (kind.min, kind.max, 0, 1)
        arrays[name] = random
    params = tuple(Tensor(name=n, dtype=d, shape=(index(LENGTH),)) for d, n in SOURCES.items())
    out = Tensor(name="y", dtype=value.dtype, shape=(index(LENGTH),), role="output")
    body = Store(target=Ref(tensor="y", index=(Var(name="k:i"),)), value=value)
    loop = For(var="k:i", extent=index(LENGTH), body=(body,))
    return evaluate_kernel(Kernel(name="k", params=(*params, out), sizes=(), phases=(Phase(name="y", body=(loop,)),)), arrays, {})["y"]


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(INTEGERS).flatmap(lambda d: expressions(d, 3)), st.integers(0, 9))
def test_values_stay_in_their_range(value: Expr, seed: int) -> None:
    low, high = value_range(value)
    got = evaluated(value, seed)
    assert low <= got.min() and got.max() <= high
    for dtype in INTEGERS:
        if fits(value, dtype):
            np.testing.assert_array_equal(evaluated(Cast(a=Cast(a=value, dtype=dtype), dtype=I32), seed), evaluated(Cast(a=value, dtype=I32), seed))


def test_grey_fits_a_byte_and_one_more_does_not() -> None:
    read = Cast(a=Load(tensor="x", index=(index(0),), dtype=U8), dtype=I32)
    total: Expr = Const(value=8192, dtype=I32)
    for factor in (4899, 9617, 1868):
        total = Binary(op="add", a=total, b=Binary(op="mul", a=Const(value=factor, dtype=I32), b=read, dtype=I32), dtype=I32)
    grey = Binary(op="shr", a=total, b=Const(value=14, dtype=I32), dtype=I32)
    assert value_range(grey) == (0, 255) and fits(grey, U8)
    assert not fits(Binary(op="add", a=grey, b=Const(value=1, dtype=I32), dtype=I32), U8)


def test_an_operand_that_occurs_several_times() -> None:
    """What a weight takes from one value it gives to the other; a square is not linear, so only its factors' ranges count."""
    a, b, w = (Cast(a=Load(tensor=name, index=(Var(name="i"),), dtype=U8), dtype=I32) for name in "abw")
    rest = binary("sub", Const(value=255, dtype=I32), w)
    blend = binary("add", binary("mul", a, w), binary("mul", b, rest))
    assert value_range(blend) == (0, 255 * 255)
    assert value_range(binary("sub", a, a)) == (0, 0)
    assert value_range(binary("mul", binary("sub", a, b), binary("sub", a, b))) == (-(255**2), 255**2)
    assert value_range(binary("floordiv", blend, Const(value=255, dtype=I32))) == (0, 255)
