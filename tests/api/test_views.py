"""Random views as inputs and as `out=`: always NumPy's answer, and nothing outside the view is touched."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tridsl.api.ops import Namespace

TEXT = """
op axpy(a: i32, x: i32[N], y: i32[N]) -> z: i32[N] { z[i] = a * x[i] + y[i] }
op rows(x: i32[M, N]) -> y: i32[M] { y[i] = sum[j](x[i, j]) }
op either(a: bool[N], b: bool[N]) -> c: bool[N] { c[i] = a[i] or b[i] }
op nibbles(x: i4[N], u: u4[N]) -> y: i32[N] { y[i] = i32(x[i]) * i32(u[i]) }
op plus(x: i64[N], u: u32[N]) -> y: i64[N] { y[i] = x[i] + i64(u[i]) }
"""


@pytest.fixture(scope="module")
def ops(compile_text: Callable[[str], Namespace]) -> Namespace:
    return compile_text(TEXT)


@st.composite
def views(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A view of `shape` and the memory it lies in; strides of any sign and step, axes in any order."""
    steps = [draw(st.sampled_from((1, 2, 3, -1, -2))) for _ in shape]
    order = draw(st.permutations(range(len(shape))))
    memory = np.zeros([shape[axis] * abs(steps[axis]) + 2 for axis in order], np.int32)
    memory[...] = np.arange(memory.size).reshape(memory.shape) % 1000 - 500
    moved = memory.transpose(np.argsort(order))
    view = moved
    for axis, step in enumerate(steps):
        extent = shape[axis]
        start = 1 if step > 0 else extent * -step
        stop = start + extent * step
        view = view[(slice(None),) * axis + (slice(start, None if stop < 0 else stop, step),)]
    assert view.shape == shape
    return view, memory


SHAPES = st.sampled_from(((0,), (1,), (7,), (33,), (3, 5), (1, 17), (4, 1), (2, 3, 5)))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data(), shape=SHAPES)
def test_elementwise_on_views(ops: Namespace, data: st.DataObject, shape: tuple[int, ...]) -> None:
    x, _ = data.draw(views(shape))
    y, _ = data.draw(views(shape))
    out, memory = data.draw(views(shape))
    before = memory.copy()
    want = 3 * x + y
    assert np.array_equal(ops.axpy(3, x, y), want)
    assert ops.axpy(3, x, y, out=out) is out and np.array_equal(out, want)
    inside = np.zeros(memory.shape, bool)
    _same_view(out, memory, inside)[...] = True
    assert np.array_equal(memory[~inside], before[~inside])


def _same_view(view: np.ndarray, memory: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The part of `other` that lies in it as `view` lies in `memory`."""
    offset = (view.ctypes.data - memory.ctypes.data) // memory.itemsize if view.size else 0
    strides = tuple(step // memory.itemsize * other.itemsize for step in view.strides)
    return np.ndarray(view.shape, other.dtype, other, offset * other.itemsize, strides)


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data(), shape=st.sampled_from(((3, 5), (1, 17), (4, 1), (5, 0), (2, 3, 5), (2, 1, 3, 4))))
def test_reductions_of_views(ops: Namespace, data: st.DataObject, shape: tuple[int, ...]) -> None:
    x, _ = data.draw(views(shape))
    assert np.array_equal(ops.rows(x), x.sum(axis=-1, dtype=np.int32))


def test_every_element_type_passes(ops: Namespace, random: np.random.Generator) -> None:
    a, b = random.random(9) > 0.5, random.random(9) > 0.5
    assert np.array_equal(ops.either(a, b), a | b)
    x, u = random.integers(-8, 8, 9), random.integers(0, 16, 9)
    assert np.array_equal(ops.nibbles(x.astype(ml_dtypes.int4), u.astype(ml_dtypes.uint4)), x * u)
    big = random.integers(-(1 << 60), 1 << 60, 9)
    assert np.array_equal(ops.plus(big, u.astype(np.uint32)), big + u)
