"""Nested loops over addresses as the dimensions of DMA transfers: merged, cut to what a descriptor can count, and fitted to layouts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.design import Dimension


def merged(dims: Sequence[Dimension]) -> tuple[Dimension, ...]:
    """The same addresses in the same order with as few dimensions as possible (at least one)."""
    found: list[Dimension] = []
    for d in dims:
        if d.size == 1:
            continue
        if found and found[-1].stride == d.size * d.stride:
            found[-1] = Dimension(size=found[-1].size * d.size, stride=d.stride)
        else:
            found.append(d)
    return tuple(found) or (Dimension(size=1, stride=1),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one descriptor counts: `own` dimensions up to `wrap` each (`inner` elements along the last), strides up to `step` elements;
    `iterations` of it, where that is possible (0: not)."""

    own: int
    wrap: int
    inner: int
    step: int
    iterations: int = 0


def cut(dims: Sequence[Dimension], bounds: Bounds) -> tuple[tuple[Dimension, ...], tuple[Dimension, ...]]:
    """(outer, one transfer): the outer dimensions are walked by giving out transfers one after the other.

    A dimension that is too long becomes two; one that goes backwards is walked by giving out transfers. What no cut makes possible is left as it
    is; the limits say so.
    """
    parts = list(merged(dims))
    if len(parts) > 1:
        parts = [piece for n, d in enumerate(parts) for piece in _split(d, bounds.inner if n == len(parts) - 1 else bounds.wrap)]
    own: list[Dimension] = []
    while parts and len(own) < bounds.own and (not own or 0 < parts[-1].stride <= bounds.step):
        own.insert(0, parts.pop())
    if parts and bounds.iterations and len(own) <= bounds.own and 0 <= parts[-1].stride <= bounds.step:
        *rest, repeated = (*parts[:-1], *_split(parts[-1], bounds.iterations))
        if repeated.size <= bounds.iterations:
            while len(own) < bounds.own:
                own.insert(0, Dimension(size=1, stride=0))
            own.insert(0, repeated)
            parts = rest
    return tuple(parts), tuple(own)


def _split(d: Dimension, most: int) -> tuple[Dimension, ...]:
    if d.size <= most:
        return (d,)
    inner = next((n for n in range(most, 1, -1) if d.size % n == 0), 0)
    if not inner:
        return (d,)
    return (*_split(Dimension(size=d.size // inner, stride=d.stride * inner), most), Dimension(size=inner, stride=d.stride))


def offsets(dims: Sequence[Dimension]) -> Iterator[int]:
    """Where each transfer begins, in order."""
    for point in product(*(range(d.size) for d in dims)):
        yield sum(i * d.stride for i, d in zip(point, dims))


def addresses(offset: int, dims: Sequence[Dimension]) -> NDArray[np.int64]:
    """Every element of a transfer, in order."""
    found = np.array([offset], dtype=np.int64)
    for d in dims:
        found = (found[:, None] + np.arange(d.size, dtype=np.int64) * d.stride).reshape(-1)
    return found


def fitted(walk: NDArray[np.int64], shape: Sequence[int]) -> tuple[Dimension, ...] | None:
    """The dimensions of `shape` whose strides give `walk` (addresses, in order); None where no strides do."""
    grid = walk.reshape(tuple(shape))
    dims = []
    for axis, size in enumerate(shape):
        first = np.take(grid, 0, axis=axis).reshape(-1)[0]
        step = int(np.take(grid, 1, axis=axis).reshape(-1)[0] - first) if size > 1 else 0
        dims.append(Dimension(size=size, stride=step))
    return tuple(dims) if np.array_equal(addresses(int(walk[0]), dims), walk) else None
