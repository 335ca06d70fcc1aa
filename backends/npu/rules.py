"""What is true of every design that the array can run: each rule is one row of `RULES`. (How much of what it may use: `limits`.)"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tridsl.backends.npu.design import ArrayDesign, Await, Dimension, Place, Task
from tridsl.backends.npu.readings import KINDS, by_tile, kind_of, own_dimensions, transfers
from tridsl.devices.spec import ArraySpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A statement that is true of a design or not: `breaks` names the places where it is not."""

    name: str
    what: str
    breaks: Callable[[ArrayDesign, ArraySpec], Iterator[str]]


def _granule_offset(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    for _, where, buffer, size, offset, _ in transfers(design):
        if ((buffer.address if buffer else 0) + offset * size) % array.granule_bytes:
            yield where


def _granule_size(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    for _, where, _, size, _, dims in transfers(design):
        if not dims or dims[-1].size * size % array.granule_bytes:
            yield where


def _granule_stride(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    for _, where, _, size, _, dims in transfers(design):
        inner = dims[-1:]
        if any(d.stride * size % array.granule_bytes for d in dims[:-1]) or any(d.stride != 1 and d.stride * size % array.granule_bytes for d in inner):
            yield where
        if any(d.stride != 1 and size % array.granule_bytes for d in inner):
            yield where


def _standing_still(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    for kind, where, _, _, _, dims in transfers(design):
        if any(d.stride == 0 and d.size > 1 for d in own_dimensions(kind, dims)):
            yield where


def _backwards(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    for _, where, _, _, _, dims in transfers(design):
        if any(d.stride < 0 for d in dims):
            yield where


def _inside(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    buffers = {b.name: b for b in design.buffers}
    tensors = {t.name: t for t in design.tensors}
    spans: list[tuple[str, int, tuple[Dimension, ...], int]] = []
    for chain in design.chains:
        for d in chain.descriptors:
            b = buffers[d.buffer]
            spans.append((f"descriptor {d.number} of tile {chain.tile}", d.offset, d.dimensions, b.bytes // b.element_bytes))
    for task in design.sequence:
        if isinstance(task, Task):
            count = 1
            for extent in tensors[task.tensor].shape:
                count *= extent
            spans.append((f"the transfer of `{task.tensor}` at {task.offset}", task.offset, task.dimensions, count))
    for where, offset, dims, count in spans:
        low = offset + sum(min(0, d.stride * (d.size - 1)) for d in dims)
        high = offset + sum(max(0, d.stride * (d.size - 1)) for d in dims)
        if low < 0 or high >= count:
            yield where


def _apart(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    stacks = {core.tile: core.stack_bytes for core in design.cores}
    for kind in KINDS:
        for tile, buffers in by_tile(design, kind):
            end = stacks.get(tile, 0)
            for b in sorted(buffers, key=lambda b: b.address):
                if b.address < end:
                    yield f"`{b.name}` of tile {tile}"
                end = b.address + b.bytes


def _aligned(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    yield from (f"`{b.name}` at {b.address}" for b in design.buffers if kind_of(b.tile) == "core" and b.address % array.load_bytes)


def _free_descriptor(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    busy: dict[tuple[Place, int], object] = {}
    queues: dict[object, list[Task]] = {}
    for command in design.sequence:
        if isinstance(command, Task):
            if (command.tile, command.number) in busy:
                yield f"descriptor {command.number} of tile {command.tile} is given out while a transfer uses it"
            busy[command.tile, command.number] = command
            queues.setdefault((command.tile, command.direction, command.channel), []).append(command)
        elif isinstance(command, Await):
            queue = queues.get((command.tile, command.direction, command.channel), [])
            if not queue or not queue[0].token:
                yield f"channel {command.direction} {command.channel} of tile {command.tile} is waited for without a token"
                continue
            busy.pop((command.tile, queue.pop(0).number), None)


def _own_memory(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    tiles = {b.name: b.tile for b in design.buffers} | {lock.name: lock.tile for lock in design.locks}
    for chain in design.chains:
        for d in chain.descriptors:
            if any(tiles.get(name, chain.tile) != chain.tile for name in (d.buffer, d.acquire, d.release)):
                yield f"descriptor {d.number} of tile {chain.tile}"


def _one_chain(design: ArrayDesign, array: ArraySpec) -> Iterator[str]:
    used: set[tuple[Place, int]] = set()
    for chain in design.chains:
        for d in chain.descriptors:
            if (chain.tile, d.number) in used:
                yield f"descriptor {d.number} of tile {chain.tile}"
            used.add((chain.tile, d.number))


RULES: tuple[Rule, ...] = (
    Rule(name="offset in words", what="transfers begin at multiples of 4 bytes", breaks=_granule_offset),
    Rule(name="rows in words", what="the innermost dimension is a multiple of 4 bytes", breaks=_granule_size),
    Rule(name="strides in words", what="strides are multiples of 4 bytes, or 1 along the innermost dimension", breaks=_granule_stride),
    Rule(name="no standing still", what="a stride of 0 is possible in the outermost dimension of a transfer of the host only", breaks=_standing_still),
    Rule(name="no going back", what="strides of a transfer are not negative", breaks=_backwards),
    Rule(name="transfers inside", what="it leaves its buffer", breaks=_inside),
    Rule(name="buffers apart", what="buffers and the stack do not overlap", breaks=_apart),
    Rule(name="buffers aligned", what="a core's buffers begin at multiples of its widest access", breaks=_aligned),
    Rule(name="memory of its own", what="a channel moves what is in its own tile, and takes its own tile's locks", breaks=_own_memory),
    Rule(name="descriptors in one place", what="it is in two chains", breaks=_one_chain),
    Rule(name="descriptors free", what="a descriptor is used again only behind a wait for its transfer", breaks=_free_descriptor),
)
