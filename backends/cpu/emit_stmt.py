"""Statements outside and inside vector loops, and the loops that run one iteration after the other."""

from __future__ import annotations

from tridsl.backends.cpu.emit_buffers import bind_buffer
from tridsl.backends.cpu.emit_cast import emit_cast, to_stored
from tridsl.backends.cpu.emit_frame import Frame, emit_branches, emit_failure, emit_if, emit_loop
from tridsl.backends.cpu.emit_index import STORED_BYTES, access_of
from tridsl.backends.cpu.emit_llvm import (
    INDEX_TYPE,
    POINTER,
    STORED,
    VOID,
    WORD,
    Value,
    any_lane,
    constant,
    declare,
    index_constant,
    intrinsic,
    ir,
    lanes_of,
    splat,
    together,
)
from tridsl.backends.cpu.emit_memory import address, conjunction, emit_store
from tridsl.backends.cpu.emit_parallel import emit_parallel
from tridsl.backends.cpu.emit_stream import can_stream, emit_stream
from tridsl.backends.cpu.emit_tiles import bind_tiles, emit_tile_load, emit_whole
from tridsl.backends.cpu.emit_transpose import emit_transpose
from tridsl.backends.cpu.emit_vector import emit_vector
from tridsl.ir.loop import Alloc, Barrier, Check, Copy, For, If, Prefetch, Store


def emit_for(frame: Frame, loop: For) -> None:
    if not emit_whole(frame, loop):
        LOOPS[loop.kind](frame, loop)


def emit_serial(frame: Frame, loop: For) -> None:
    extent = frame.evaluate(loop.extent)
    with frame.inside(loop):
        def body(counter: Value) -> None:
            frame.values[loop.var] = counter
            if lanes_of(extent):
                _run_below(frame, loop, counter, extent)
            else:
                frame.run(loop.body)

        emit_loop(frame, index_constant(0), _longest(frame, extent) if lanes_of(extent) else extent, body, loop.unrolled)


def _longest(frame: Frame, extents: Value) -> Value:
    """Iterations until every lane that is on has had its own number of them."""
    builder, lane = frame.builder, frame.lane
    assert lane is not None
    active = conjunction(frame, lane.tail, lane.condition)
    if active is not None:
        extents = builder.select(active, extents, constant(extents.type, 0))
    return intrinsic(builder, "vector.reduce.smax", INDEX_TYPE, [extents], [extents.type])


def _run_below(frame: Frame, loop: For, counter: Value, extents: Value) -> None:
    """One iteration, in the lanes whose extent it does not reach."""
    lane = frame.lane
    assert lane is not None
    around = lane.condition
    running = frame.builder.icmp_signed("<", splat(frame.builder, counter, lane.count), extents)
    lane.condition = conjunction(frame, around, running)
    frame.run(loop.body)
    lane.condition = around


def emit_unroll(frame: Frame, loop: For) -> None:
    """One copy of the body per value of the variable; a copy past a symbolic extent is guarded."""
    extent = frame.evaluate(loop.extent)
    known = extent.constant if isinstance(extent, ir.Constant) else None
    copies = known if known is not None else loop.bound
    assert copies is not None, f"unrolled loop {loop.var} has no constant bound"
    with frame.inside(loop):
        for number in range(copies):
            frame.known[loop.var] = number
            if known is not None:
                frame.run(loop.body)
            elif lanes_of(extent):
                _run_below(frame, loop, index_constant(number), extent)
            else:
                with emit_if(frame, frame.builder.icmp_signed("<", index_constant(number), extent)):
                    frame.run(loop.body)
        frame.known.pop(loop.var, None)


def emit_prefetch(frame: Frame, statement: Prefetch) -> None:
    """Into the nearest cache, one hint for each cache line that the lanes touch side by side."""
    place = frame.places[statement.tensor]
    access = access_of(frame, place, statement.index)
    if access.varying is not None:
        return
    lines = range(0, max(access.lanes, 1) * STORED_BYTES[STORED[place.dtype]], CACHE_LINE)
    if access.offsets and access.offsets != tuple(range(access.lanes)):
        lines = range(1)
    builder = frame.builder
    pointer = address(frame, place, access)
    function = declare(builder.module, "llvm.prefetch.p0", VOID, [POINTER, WORD, WORD, WORD])
    read, keep, data = constant(WORD, 0), constant(WORD, 3), constant(WORD, 1)
    for start in lines:
        line = builder.gep(pointer, [index_constant(start)], source_etype=ir.IntType(8)) if start else pointer
        builder.call(function, [line, read, keep, data])


CACHE_LINE = 64
LOOPS = {"serial": emit_serial, "unroll": emit_unroll, "vector": emit_vector, "parallel": emit_parallel}


def emit_alloc(frame: Frame, statement: Alloc) -> None:
    (bind_tiles if statement.buffer.space == "fragment" else bind_buffer)(frame, statement.buffer)


def emit_copy(frame: Frame, statement: Copy) -> None:
    (emit_tile_load if statement.target.tensor in frame.tiles else emit_transpose)(frame, statement)


def emit_store_node(frame: Frame, statement: Store) -> None:
    place = frame.places[statement.target.tensor]
    plain = statement.copied(place.dtype)
    value = emit_cast(frame.builder, frame.evaluate(statement.value), statement.value.dtype, place.dtype) if plain is None else frame.evaluate(plain)
    own = None if statement.mask is None else frame.evaluate(statement.mask)
    lane = frame.lane
    if statement.stream and lane is not None and own is None and lane.tail is None and lane.condition is None:
        access = access_of(frame, place, statement.target.index)
        if access.offsets == tuple(range(lane.count)) and lanes_of(value) and can_stream(frame, place, value):
            emit_stream(frame, place, access, to_stored(frame.builder, value, place.dtype))
            return
    emit_store(frame, statement.target, value, own)


def emit_if_node(frame: Frame, statement: If) -> None:
    """A branch where all lanes agree; where they differ, both sides run with the lanes that want them."""
    condition = frame.evaluate(statement.condition)
    if not lanes_of(condition):
        emit_branches(frame, condition, lambda: frame.run(statement.then), lambda: frame.run(statement.otherwise))
        return
    lane = frame.lane
    assert lane is not None
    around = lane.condition
    opposite = frame.builder.xor(condition, constant(condition.type, 1))
    for block, mask in ((statement.then, condition), (statement.otherwise, opposite)):
        if block:
            lane.condition = conjunction(frame, around, mask)
            frame.run(block)
    lane.condition = around


def emit_check(frame: Frame, statement: Check) -> None:
    builder, lane = frame.builder, frame.lane
    fails = frame.evaluate(statement.condition)
    fails = builder.xor(fails, constant(fails.type, 1))
    if lane and (lanes_of(fails) or lane.condition is not None):
        (fails, *masks) = together(builder, fails, *(m for m in (lane.tail, lane.condition) if m is not None))
        fails = conjunction(frame, fails, *masks)
    with emit_if(frame, any_lane(builder, fails)):
        emit_failure(frame, 2 + statement.number)


def emit_barrier(frame: Frame, statement: Barrier) -> None:
    """One thread does all lanes of a statement before the next statement: nothing to wait for."""


