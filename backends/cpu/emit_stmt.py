"""Statements outside and inside vector loops, and the loops that run one iteration after the other."""

from __future__ import annotations

from tridsl.backends.cpu.emit_buffers import bind_buffer
from tridsl.backends.cpu.emit_cast import emit_cast, to_stored
from tridsl.backends.cpu.emit_frame import Frame, emit_branches, emit_failure, emit_if, emit_loop
from tridsl.backends.cpu.emit_index import access_of
from tridsl.backends.cpu.emit_llvm import Value, any_lane, constant, index_constant, ir, lanes_of, together
from tridsl.backends.cpu.emit_memory import conjunction, emit_store
from tridsl.backends.cpu.emit_parallel import emit_parallel
from tridsl.backends.cpu.emit_stream import can_stream, emit_stream
from tridsl.backends.cpu.emit_vector import emit_vector
from tridsl.ir.loop import Alloc, Barrier, Check, For, If, Store


def emit_for(frame: Frame, loop: For) -> None:
    LOOPS[loop.kind](frame, loop)


def emit_serial(frame: Frame, loop: For) -> None:
    with frame.inside(loop):
        def body(counter: Value) -> None:
            frame.values[loop.var] = counter
            frame.run(loop.body)

        emit_loop(frame, index_constant(0), frame.evaluate(loop.extent), body)


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
            else:
                with emit_if(frame, frame.builder.icmp_signed("<", index_constant(number), extent)):
                    frame.run(loop.body)
        frame.known.pop(loop.var, None)


LOOPS = {"serial": emit_serial, "unroll": emit_unroll, "vector": emit_vector, "parallel": emit_parallel}


def emit_alloc(frame: Frame, statement: Alloc) -> None:
    bind_buffer(frame, statement.buffer)


def emit_store_node(frame: Frame, statement: Store) -> None:
    place = frame.places[statement.target.tensor]
    value = emit_cast(frame.builder, frame.evaluate(statement.value), statement.value.dtype, place.dtype)
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


