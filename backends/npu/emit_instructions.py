"""The host's instruction stream (`insts`): the words that the NPU's controller executes for one dispatch.

Transaction format 0.1: a header, then operations. AMD's `aiebu-dump` lists exactly these (tests/backends/npu/test_aiebu.py). What a
descriptor's words hold is read from mlir-aie (AIEDmaToNpu.cpp: sizes and strides in words of 4 bytes, strides and iterations less one) and agrees with
aie-rt's register tables (xaiemlgbl_reginit.c). None of it has been executed by an NPU.
"""

from __future__ import annotations

from collections.abc import Iterator

from tridsl.backends.npu.design import ArrayDesign, Await, Dimension, Place, SetLock, Task, WriteScalar

GENERATION_CODES = {"aie2": 3, "aie2p": 4}
"""XAIE_DEV_GEN_AIE2IPU and XAIE_DEV_GEN_AIE2P of aie-rt."""
ROWS, MEMTILE_ROWS = 6, 1
WRITE, BLOCK_WRITE, WAIT, PATCH = 0x0, 0x1, 0x80, 0x81
DESCRIPTORS, DESCRIPTOR_BYTES = 0x1D000, 0x20
CONTROL = {"in": 0x1D200, "out": 0x1D210}
"""Registers of the edge's channels: 8 bytes each, the queue 4 behind the control."""
QUEUE = 4
CORE_LOCKS, LOCK_BYTES = 0x1F000, 0x10
"""Values of a core's locks."""
TOKEN = 1 << 31
BURSTS = {"aie2": 2 << 30, "aie2p": 3 << 30}
"""The longest burst of each generation, 256 and 512 bytes (mlir-aie, AIETargetModel)."""
UPSIZING = 2 << 24
"""AxCache: the network on the chip may join what it carries, as mlir-aie sets it (AIEXDialect.cpp)."""
VALID = 1 << 25


def instructions(design: ArrayDesign) -> tuple[int, ...]:
    """All words. Scalars are written as 0: the driver puts their values at `scalar_words`."""
    operations = [operation for _, operation in _operations(design)]
    body = [word for operation in operations for word in operation]
    header = [ROWS << 24 | GENERATION_CODES[design.generation] << 16 | 1 << 8, MEMTILE_ROWS << 8 | design.columns, len(operations), 4 * (len(body) + 4)]
    return (*header, *body)


def scalar_words(design: ArrayDesign) -> tuple[tuple[str, int], ...]:
    """(scalar, word of the stream that holds its value)."""
    found = []
    at = 4
    for command, operation in _operations(design):
        if isinstance(command, WriteScalar):
            found.append((command.name, at + 4))
        at += len(operation)
    return tuple(found)


def instruction_text(design: ArrayDesign) -> str:
    """One word a line, in hexadecimal: what `insts.txt` is."""
    return "".join(f"{word:08X}\n" for word in instructions(design))


def address_of(tile: Place, offset: int) -> int:
    return tile[0] << 25 | tile[1] << 20 | offset


def _operations(design: ArrayDesign) -> Iterator[tuple[object, tuple[int, ...]]]:
    tensors = {t.name: n for n, t in enumerate(design.tensors)}
    sizes = {t.name: t.element_bytes for t in design.tensors}
    buffers = {b.name: b for b in design.buffers}
    locks = {lock.name: lock for lock in design.locks}
    for command in design.sequence:
        match command:
            case Task():
                at = address_of(command.tile, DESCRIPTORS + DESCRIPTOR_BYTES * command.number)
                words = descriptor_words(command.dimensions, sizes[command.tensor], design.generation)
                yield command, (BLOCK_WRITE, command.tile[1] << 8 | command.tile[0], at, 4 * (len(words) + 4), *words)
                offset = command.offset * sizes[command.tensor]
                yield command, (PATCH, 48, 0, 0, 0, 0, at + 4, 0, tensors[command.tensor], 0, offset, 0)
                queue = address_of(command.tile, CONTROL[command.direction] + 8 * command.channel + QUEUE)
                yield command, _write(queue, (TOKEN if command.token else 0) | (runs(command) - 1) << 16 | command.number)
            case Await():
                where = (0 if command.direction == "in" else 1) | command.tile[1] << 8 | command.tile[0] << 16
                yield command, (WAIT, 16, where, 1 << 8 | 1 << 16 | command.channel << 24)
            case WriteScalar():
                buffer = buffers[command.buffer]
                yield command, _write(address_of(buffer.tile, buffer.address + 4 * command.word), 0)
            case SetLock():
                lock = locks[command.lock]
                yield command, _write(address_of(lock.tile, CORE_LOCKS + LOCK_BYTES * lock.number), command.value)


def runs(task: Task) -> int:
    """How often the channel runs the task's descriptor: its iterations, each time the task is repeated."""
    return task.repeats * (task.dimensions[0].size if len(task.dimensions) == 4 else 1)


def descriptor_words(dimensions: tuple[Dimension, ...], element_bytes: int, generation: str) -> tuple[int, ...]:
    """The eight words of an edge's buffer descriptor for elements of this size. Word 1 is the address, which the runtime fills in."""
    own = dimensions[-3:]
    length = element_bytes
    for d in own:
        length *= d.size
    inner, middle, outer = ([*reversed(own)] + [Dimension(size=1, stride=0)] * 2)[:3]
    words = [length // 4, 0, 0, 0, BURSTS[generation], UPSIZING, 0, VALID]
    if len(own) > 1:
        words[3] = (inner.size * element_bytes // 4) << 20 | (0 if inner.stride == 1 else _less_one(inner, element_bytes))
        words[4] |= middle.size << 20 | _less_one(middle, element_bytes)
        words[5] |= _less_one(outer, element_bytes)
    if len(dimensions) == 4 and dimensions[0].stride and dimensions[0].size > 1:
        words[6] = (dimensions[0].size - 1) << 20 | _less_one(dimensions[0], element_bytes)
    return tuple(words)


def _less_one(d: Dimension, element_bytes: int) -> int:
    """A stride as hardware counts it."""
    return 0 if d.size == 1 else d.stride * element_bytes // 4 - 1


def _write(address: int, value: int) -> tuple[int, ...]:
    return WRITE, 0, address, 0, value, 24
