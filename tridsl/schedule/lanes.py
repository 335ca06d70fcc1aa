"""What every schedule of a GPU takes a lane to do."""

from __future__ import annotations

from collections.abc import Iterable

from tridsl.dtypes import DType

ACCESS_BYTES = 16
"""The widest access of one lane."""


def access_width(types: Iterable[DType], extent: int = 0, *, narrowest: bool = False, without: int = 4) -> int:
    """Neighbours that one access of a lane takes, where elements of these types lie: such that those of the widest (or the narrowest) fill it, and
    whole accesses make up the extent. `without` bytes where nothing is read or written."""
    sizes = [dtype.storage_bytes for dtype in types]
    width = ACCESS_BYTES // (min(sizes, default=without) if narrowest else max(sizes, default=without))
    while extent % width:
        width //= 2
    return width
