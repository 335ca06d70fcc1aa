"""Sizes of blocks that cut an axis into even parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator


def blocks_of(most: Iterable[int], extent: int | None, step: int) -> Iterator[int]:
    """Blocks of about these sizes that divide the extent evenly."""
    return (block_of(size, extent, step, size) for size in most)


def block_of(most: int, extent: int | None, step: int, limit: int) -> int:
    """A multiple of `step` up to `most`, in even parts of the extent."""
    most = max(step, min(most, limit) // step * step)
    if extent is None:
        return most
    parts = max(1, -(-extent // most))
    even = -(-extent // parts)
    return max(step, -(-even // step) * step)

