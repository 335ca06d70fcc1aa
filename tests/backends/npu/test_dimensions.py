"""Dimensions of transfers: whatever is merged or cut, the same addresses come in the same order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tridsl.backends.npu.design import Dimension
from tridsl.backends.npu.dimensions import Bounds, addresses, cut, fitted, merged, offsets

DIMENSIONS = st.lists(st.builds(Dimension, size=st.integers(1, 12), stride=st.integers(0, 40)), min_size=1, max_size=5)


@given(DIMENSIONS)
def test_merged_is_the_same_walk(dims: list[Dimension]) -> None:
    assert np.array_equal(addresses(3, merged(dims)), addresses(3, dims))
    assert len(merged(dims)) <= len(dims)


@given(DIMENSIONS, st.integers(1, 4), st.integers(2, 9), st.integers(1, 60), st.sampled_from([0, 4, 64]))
def test_cut_is_the_same_walk_within_bounds(dims: list[Dimension], own: int, wrap: int, step: int, iterations: int) -> None:
    outer, transfer = cut(dims, Bounds(own=own, wrap=wrap, inner=wrap, step=step, iterations=iterations))
    assert len(transfer) <= own + (1 if iterations else 0)
    found = np.concatenate([addresses(start, transfer) for start in offsets(outer)])
    assert np.array_equal(found, addresses(0, dims))
    inner = transfer[-own:]
    assert all(abs(d.stride) <= step for d in inner[:-1])
    if len(merged(dims)) > 1:
        assert all(d.size <= wrap or _is_prime_beyond(d.size, wrap) for d in inner)
    if len(transfer) > own:
        assert transfer[0].size <= iterations


def _is_prime_beyond(size: int, wrap: int) -> bool:
    """A count that no two factors within the bound give: the limits refuse it."""
    return not any(size % n == 0 for n in range(2, wrap + 1))


def test_a_linear_transfer_needs_one_dimension() -> None:
    dims = (Dimension(size=7, stride=64), Dimension(size=64, stride=1))
    assert cut(dims, Bounds(own=3, wrap=16, inner=16, step=1000)) == ((), (Dimension(size=448, stride=1),))


def test_a_long_row_becomes_two_dimensions() -> None:
    outer, own = cut((Dimension(size=3, stride=5000), Dimension(size=4096, stride=1)), Bounds(own=3, wrap=1023, inner=1023, step=1 << 20))
    assert outer == () and [d.size for d in own] == [3, 8, 512]


def test_repeating_is_the_iteration_of_a_transfer() -> None:
    dims = (Dimension(size=5, stride=0), Dimension(size=4, stride=100), Dimension(size=8, stride=1))
    outer, own = cut(dims, Bounds(own=3, wrap=1023, inner=1023, step=1 << 20, iterations=64))
    assert outer == () and own[0] == Dimension(size=5, stride=0) and len(own) == 4


def test_layouts_are_fitted_or_refused() -> None:
    walk = np.arange(24).reshape(4, 6).T.reshape(-1)
    assert fitted(walk, (6, 4)) == (Dimension(size=6, stride=1), Dimension(size=4, stride=6))
    assert fitted(np.array([0, 1, 3, 2]), (2, 2)) is None
