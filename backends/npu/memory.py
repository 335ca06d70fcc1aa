"""Memories of simulated tiles, and tensors in the order in which the array sees them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.design import MEMTILE, ArrayDesign, Buffer, HostTensor, Place

ALIGN = 128
"""Of the first byte of a tile's memory: more than any access asks for."""
GUARD = 4096
"""Bytes in front of and behind it that nobody may write."""

ELEMENTS: dict[int, np.dtype[Any]] = {1: np.dtype(np.uint8), 2: np.dtype(np.uint16), 4: np.dtype(np.uint32), 8: np.dtype(np.uint64)}
"""What moves elements of a size, whatever they mean."""


class Memory:
    """All tiles of a design that have memory."""

    def __init__(self, design: ArrayDesign) -> None:
        self._tiles: dict[Place, NDArray[np.uint8]] = {}
        sizes: dict[Place, int] = {}
        for b in design.buffers:
            sizes[b.tile] = max(sizes.get(b.tile, 0), b.address + b.bytes)
        for tile, size in sizes.items():
            whole = np.zeros(size + 2 * GUARD + ALIGN, np.uint8)
            start = GUARD + -(whole.ctypes.data + GUARD) % ALIGN
            if tile[1] != MEMTILE:
                whole[:] = 0xA5  # what nobody wrote is no plausible number
            self._tiles[tile] = whole[start - GUARD : start + size + GUARD]

    def bytes(self, buffer: Buffer) -> NDArray[np.uint8]:
        start = GUARD + buffer.address
        return self._tiles[buffer.tile][start : start + buffer.bytes]

    def elements(self, buffer: Buffer) -> NDArray[Any]:
        return self.bytes(buffer).view(ELEMENTS[buffer.element_bytes])

    def address(self, buffer: Buffer) -> int:
        return int(self._tiles[buffer.tile].ctypes.data) + GUARD + buffer.address

    def snapshot(self, tile: Place) -> NDArray[np.uint8]:
        return self._tiles[tile].copy()

    def unchanged_outside(self, tile: Place, before: NDArray[np.uint8], writable: Sequence[Buffer]) -> bool:
        """Whether only `writable` changed since `before` (which is used up)."""
        now = self._tiles[tile]
        for b in writable:
            start = GUARD + b.address
            before[start : start + b.bytes] = now[start : start + b.bytes]
        return np.array_equal(now, before)


def to_array_order(values: NDArray[Any], tensor: HostTensor) -> NDArray[Any]:
    """The flat elements that the array reads: axes in its order, and what lies around the tensor."""
    raw = np.ascontiguousarray(values).view(ELEMENTS[tensor.element_bytes]).reshape(tensor.given)
    if tensor.axes is None:
        laid = np.zeros(tensor.shape, ELEMENTS[tensor.element_bytes])
        laid[: raw.size] = raw.reshape(-1)
        return laid.reshape(-1)
    before = tensor.before or (0,) * len(tensor.axes)
    inner = raw.transpose(tensor.axes)
    around = [(b, n - b - own) for b, n, own in zip(before, tensor.shape, inner.shape)]
    if tensor.edge and raw.size:
        return np.pad(inner, around, mode="edge").reshape(-1)
    return np.pad(inner, around, constant_values=tensor.filler).reshape(-1)


def from_array_order(laid: NDArray[Any], tensor: HostTensor, into: NDArray[Any]) -> None:
    """What the array wrote, into the tensor's own memory."""
    target = into.view(ELEMENTS[tensor.element_bytes]).reshape(tensor.given)
    if tensor.axes is None:
        target.reshape(-1)[:] = laid[: target.size]
        return
    corner = laid.reshape(tensor.shape)[tuple(slice(0, tensor.given[d]) for d in tensor.axes)]
    target[...] = corner.transpose(tuple(int(n) for n in np.argsort(tensor.axes)))
