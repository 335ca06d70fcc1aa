"""Where buffers live: registers and small blocks on the stack, everything else in borrowed scratch blocks, once a function call.

A buffer whose size is known when the function starts is made there, so that loops neither grow the stack nor call the
allocator. A size that depends on a loop variable is taken at its bound by whoever lowered the kernel; should one remain, the
buffer is made at the start of the loop's body and released at its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tridsl.backends.cpu.emit_frame import Frame, Place, allocate_on_stack, emit_failure
from tridsl.backends.cpu.emit_index import STORED_BYTES
from tridsl.backends.cpu.emit_llvm import (
    BIT,
    INDEX_TYPE,
    POINTER,
    STORED,
    Value,
    constant,
    index_constant,
    intrinsic,
    ir,
)
from tridsl.backends.cpu.emit_scratch import borrow, give_back
from tridsl.ir.affine import constant as constant_value
from tridsl.ir.expr import Expr, index, mul
from tridsl.ir.loop import Alloc, Block, Buffer, For, If
from tridsl.structs import replace

STACK_BYTES = 16 * 1024
"""l1 and l2 buffers of one function that may lie on the stack."""

OUT_OF_MEMORY = 1


def row_major(shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Strides in elements."""
    strides: list[Expr] = []
    step: Expr = index(1)
    for extent in reversed(shape):
        strides.append(step)
        step = mul(step, extent)
    return tuple(reversed(strides))


def element_count(buffer: Buffer) -> int | None:
    """Number of elements where it is constant."""
    total: Expr = index(1)
    for extent in buffer.shape:
        total = mul(total, extent)
    return constant_value(total)


def place_of(buffer: Buffer, pointer: Value, private: int = 0) -> Place:
    return Place(
        pointer=pointer,
        dtype=buffer.dtype,
        shape=buffer.shape,
        strides=row_major(buffer.shape),
        space=buffer.space,
        role=None,
        align=max(buffer.align, 64),
        padded=buffer.padded,
        private=private,
    )


def bind_buffer(frame: Frame, buffer: Buffer) -> None:
    """An `Alloc` reached: buffers made at the start of the function are in scope already."""
    if buffer.name not in frame.places:
        size = element_count(buffer)
        assert size is not None, f"buffer {buffer.name} was not made at the start of its function and has no constant size"
        frame.places[buffer.name] = _on_stack(frame, buffer, size)


def _on_stack(frame: Frame, buffer: Buffer, size: int) -> Place:
    private = frame.lane.count if frame.lane else 0
    kind = STORED[buffer.dtype]
    spread = 0 if private or buffer.shape else frame.spread.get(buffer.name, 0)
    if spread:
        return replace(place_of(buffer, allocate_on_stack(frame, kind, spread, 64)), spread=spread)
    return place_of(buffer, allocate_on_stack(frame, kind, max(size, 1) * max(private, 1), 64), private)


@contextmanager
def heap_buffers(frame: Frame, buffers: tuple[Buffer, ...]) -> Iterator[None]:
    """The heap buffers of what is emitted inside; without memory it does not run and the call fails."""
    if not buffers:
        yield
        return
    builder = frame.builder
    pointers = [_allocate(frame, buffer) for buffer in buffers]
    missing: Value = constant(BIT, 0)
    for buffer, pointer in zip(buffers, pointers):
        frame.places[buffer.name] = place_of(buffer, pointer)
        missing = builder.or_(missing, builder.icmp_unsigned("==", pointer, ir.Constant(POINTER, None)))
    before = builder.block
    run, failed, release = (builder.append_basic_block(n) for n in ("run", "failed", "release"))
    builder.position_at_end(before)
    builder.cbranch(missing, failed, run)
    builder.position_at_end(failed)
    emit_failure(frame, OUT_OF_MEMORY)
    builder.branch(release)
    builder.position_at_end(run)
    yield
    builder.branch(release)
    builder.position_at_end(release)
    for pointer in pointers:
        give_back(frame, pointer)


def _allocate(frame: Frame, buffer: Buffer) -> Value:
    """At least one byte from the scratch blocks or the heap; a size that does not fit 63 bits asks for more than there is."""
    builder = frame.builder
    total: Value = index_constant(STORED_BYTES[STORED[buffer.dtype]])
    overflow: Value = constant(BIT, 0)
    pair = ir.LiteralStructType([INDEX_TYPE, BIT])
    for extent in buffer.shape:
        product = intrinsic(builder, "umul.with.overflow", pair, [total, frame.evaluate(extent)], [INDEX_TYPE])
        total = builder.extract_value(product, 0)
        overflow = builder.or_(overflow, builder.extract_value(product, 1))
    rounded = builder.and_(builder.add(total, index_constant(64)), index_constant(-64))
    too_much = builder.or_(overflow, builder.icmp_signed("<", total, index_constant(0)))
    size = builder.select(too_much, index_constant((1 << 63) - 64), rounded)
    return borrow(frame, size)


def heap_allocations(block: Block) -> tuple[Buffer, ...]:
    """Buffers of `block` that do not fit the stack of the function that runs it (parallel loops are their own)."""
    found: list[Buffer] = []
    used = 0
    for buffer in _allocations(block):
        size = element_count(buffer)
        if buffer.space in ("reg", "fragment"):
            continue
        bytes_needed = None if size is None else size * buffer.dtype.storage_bytes
        if bytes_needed is not None and used + bytes_needed <= STACK_BYTES:
            used += bytes_needed
        else:
            found.append(buffer)
    return tuple(found)


def _allocations(block: Block) -> Iterator[Buffer]:
    for statement in block:
        match statement:
            case Alloc(buffer=buffer):
                yield buffer
            case For(kind=kind, body=body) if kind != "parallel":
                yield from _allocations(body)
            case If(then=then, otherwise=otherwise):
                yield from _allocations(then)
                yield from _allocations(otherwise)


