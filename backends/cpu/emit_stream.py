"""Stores around the caches: a result that is not read again is written without first being read into them.

An ordinary store to a line that is not cached reads the line, so a copy moves three bytes for every two. x86 can leave the read
out when a store covers aligned 16 (or 32, 64) bytes; NumPy aligns large arrays to 16, so that is asked for at run time.
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame, Place, emit_branches
from tridsl.backends.cpu.emit_index import STORED_BYTES, Access
from tridsl.backends.cpu.emit_llvm import (
    INDEX_TYPE,
    STORED,
    VOID,
    Value,
    constant,
    declare,
    index_constant,
    ir,
    lanes_of,
    shuffle,
)
from tridsl.backends.cpu.emit_memory import address

ALIGNED = 16
"""Bytes of the smallest pieces that are stored: what NumPy's allocations guarantee."""


def can_stream(frame: Frame, place: Place, stored: Value) -> bool:
    """Whether the vector can be written in aligned pieces on this processor."""
    size = STORED_BYTES[STORED[place.dtype]]
    return frame.chip.x86 and place.role == "output" and lanes_of(stored) * size % ALIGNED == 0


def emit_stream(frame: Frame, place: Place, access: Access, stored: Value) -> None:
    """All lanes of `stored` to consecutive elements: around the caches where the address allows it, in the largest pieces it allows."""
    builder, kind = frame.builder, STORED[place.dtype]
    pointer = address(frame, place, access)
    total = lanes_of(stored) * STORED_BYTES[kind]
    register = min(total, frame.chip.vector_bits // 8)
    number = builder.ptrtoint(pointer, INDEX_TYPE)
    frame.streams = True

    def pieces(size: int) -> None:
        hint = builder.module.add_metadata([ir.Constant(ir.IntType(32), 1)])
        step = size // STORED_BYTES[kind]
        for start in range(0, lanes_of(stored), step):
            piece = stored if size == total else shuffle(builder, stored, list(range(start, start + step)))
            store = builder.store(piece, builder.gep(pointer, [index_constant(start)], source_etype=kind), align=size)
            store.set_metadata("nontemporal", hint)

    def largest(sizes: tuple[int, ...]) -> None:
        if not sizes:
            builder.store(stored, pointer, align=access.align)
            return
        low = builder.and_(number, constant(INDEX_TYPE, sizes[0] - 1))
        aligned = builder.icmp_signed("==", low, constant(INDEX_TYPE, 0))
        emit_branches(frame, aligned, lambda: pieces(sizes[0]), lambda: largest(sizes[1:]))

    largest((register, ALIGNED) if register > ALIGNED and total % register == 0 else (ALIGNED,))


def emit_stream_end(frame: Frame) -> None:
    """Stores around the caches become visible to other threads before the function returns."""
    if frame.streams:
        frame.builder.call(declare(frame.builder.module, "llvm.x86.sse.sfence", VOID, []), [])
