"""What rules and limits look at in a design: its transfers, and what lies in which tile."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from tridsl.backends.npu.design import MEMTILE, SHIM, ArrayDesign, Buffer, Dimension, Place, Task

KINDS = ("core", "memtile", "shim")


def kind_of(tile: Place) -> str:
    return {SHIM: "shim", MEMTILE: "memtile"}.get(tile[1], "core")


def transfers(design: ArrayDesign) -> Iterator[tuple[str, str, Buffer | None, int, int, tuple[Dimension, ...]]]:
    """Every transfer: kind of tile, where, its buffer, bytes of an element, offset, dimensions."""
    buffers = {b.name: b for b in design.buffers}
    tensors = {t.name: t for t in design.tensors}
    for chain in design.chains:
        for number, d in enumerate(chain.descriptors):
            buffer = buffers[d.buffer]
            where = f"descriptor {d.number} (place {number} of channel {chain.direction} {chain.channel} of tile {chain.tile})"
            yield kind_of(chain.tile), where, buffer, buffer.element_bytes, d.offset, d.dimensions
    for task in design.sequence:
        if isinstance(task, Task):
            where = f"the transfer of `{task.tensor}` at {task.offset} on tile {task.tile}"
            yield "shim", where, None, tensors[task.tensor].element_bytes, task.offset, task.dimensions


def own_dimensions(kind: str, dimensions: tuple[Dimension, ...]) -> tuple[Dimension, ...]:
    """The dimensions of one descriptor: the fourth of a shim's transfer counts runs of it."""
    return dimensions[-3:] if kind == "shim" else dimensions


def by_tile(design: ArrayDesign, kind: str) -> Iterator[tuple[Place, list[Buffer]]]:
    ordered = sorted((b for b in design.buffers if kind_of(b.tile) == kind), key=lambda b: b.tile)
    yield from ((tile, list(group)) for tile, group in groupby(ordered, key=lambda b: b.tile))
