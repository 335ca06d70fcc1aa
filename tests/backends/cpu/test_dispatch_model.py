"""The native checks against a model of them in Python, over random descriptions and random views."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.backends.cpu.test_dispatch import F4, shaped
from tridsl.backends.cpu.dispatch import Size, TensorArgument, abi_problem

pytestmark = pytest.mark.skipif(abi_problem() is not None, reason=f"no native dispatch here: {abi_problem()}")

MEMORY = np.zeros((6, 5, 4), np.float32)

slices = st.builds(slice, st.none() | st.integers(0, 5), st.none() | st.integers(0, 6), st.sampled_from([None, 1, 2, -1, -2]))


@st.composite
def views(draw: st.DrawFn) -> np.ndarray:
    """A view of `MEMORY`: sliced, reversed, transposed, with axes dropped, perhaps broadcast or read-only."""
    view = MEMORY[tuple(draw(st.one_of(slices, st.integers(0, 3))) for _ in range(draw(st.integers(0, 3))))]
    view = np.asarray(view)
    if draw(st.booleans()):
        view = view.T
    if view.ndim and draw(st.integers(0, 5)) == 0:
        view = np.broadcast_to(view, (2, *view.shape))
    if draw(st.integers(0, 5)) == 0:
        view = view.view()
        view.flags.writeable = False
    return view


extents = st.one_of(
    st.integers(0, 6),
    st.builds(Size, name=st.sampled_from("mn"), scale=st.integers(1, 2), offset=st.integers(0, 2)),
)


@st.composite
def descriptions(draw: st.DrawFn, name: str, like: np.ndarray) -> TensorArgument:
    """A description that often fits `like`."""
    shape = tuple(n if draw(st.integers(0, 7)) else draw(extents) for n in like.shape)
    exact = tuple(s if draw(st.integers(0, 15)) else 4 for s in like.strides)
    strides = None if like.flags.c_contiguous == bool(draw(st.integers(0, 7))) else exact
    return TensorArgument(name=name, dtype=F4, shape=shape, strides=strides, role=draw(st.sampled_from(["input", "input", "input", "inout"])))


def follows(expected: int | Size, value: int, sizes: dict[str, int]) -> bool:
    if isinstance(expected, int):
        return expected == value
    if expected.name in sizes:
        return sizes[expected.name] * expected.scale + expected.offset == value
    sizes[expected.name], rest = divmod(value - expected.offset, expected.scale)
    return rest == 0 and sizes[expected.name] >= 0


def fits(argument: TensorArgument, array: np.ndarray, sizes: dict[str, int]) -> bool:
    if array.ndim != len(argument.shape) or (argument.role != "input" and not array.flags.writeable):
        return False
    if not all(follows(e, n, sizes) for e, n in zip(argument.shape, array.shape)):
        return False
    if argument.strides is None:
        return bool(array.flags.c_contiguous)
    return array.size == 0 or all(n == 1 or s == t for n, s, t in zip(array.shape, array.strides, argument.strides))


def shares(a: np.ndarray, b: np.ndarray) -> bool:
    return bool(np.may_share_memory(a, b))  # compares the ranges of addresses, as the native code does


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_native_checks_agree_with_the_model(data: st.DataObject) -> None:
    arrays = [data.draw(views()) for _ in range(data.draw(st.integers(1, 3)))]
    arguments = tuple(data.draw(descriptions(f"x{i}", array)) for i, array in enumerate(arrays))
    names = {e.name for a in arguments for e in a.shape if isinstance(e, Size)}
    call, _, _, added = shaped(arguments, tuple(sorted(names)))
    assert added
    passed = arrays if data.draw(st.integers(0, 3)) else [data.draw(views()) for _ in arrays]
    sizes: dict[str, int] = {}
    expected = all(fits(a, array, sizes) for a, array in zip(arguments, passed)) and not any(
        a.role != "input" and shares(x, y)
        for i, (a, x) in enumerate(zip(arguments, passed))
        for j, y in enumerate(passed)
        if i != j
    )
    result: Any = call(*passed)
    assert (result is None) == expected
