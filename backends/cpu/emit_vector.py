"""Vector loops: all iterations at once, one per lane.

A loop that may end early has a mask, `lane < extent`. Where the mask would be needed in every iteration of a strip-mined loop
the body is written twice, once for a full vector and once for the last one.
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame, Lane, emit_branches, emit_if
from tridsl.backends.cpu.emit_llvm import (
    BYTE,
    INDEX_TYPE,
    WORD,
    Value,
    index_constant,
    intrinsic,
    ir,
    splat,
    vector_constant,
)
from tridsl.backends.cpu.emit_memory import in_padding
from tridsl.backends.cpu.emit_scan import emit_scan
from tridsl.ir.affine import interval
from tridsl.ir.expr import Load, Var, add, index
from tridsl.ir.loop import Accumulate, Append, Check, For, Ref
from tridsl.ir.scans import scan_of
from tridsl.ir.walk import substitute, variables, walk
from tridsl.structs import replace


def emit_vector(frame: Frame, loop: For) -> None:
    assert frame.lane is None, f"vector loop {loop.var} stands in another vector loop"
    extent = frame.evaluate(loop.extent)
    known = extent.constant if isinstance(extent, ir.Constant) else None
    lanes = loop.bound if loop.bound is not None else known
    assert lanes is not None, f"vector loop {loop.var} has no constant bound"

    def full() -> None:
        for start, count in powers_of_two(lanes):
            _body(frame, loop, start, count, None)

    def partial() -> None:
        for start, count in powers_of_two(lanes):
            with emit_if(frame, frame.builder.icmp_signed(">", extent, index_constant(start))):
                _body(frame, loop, start, count, tail_mask(frame, extent, start, count))

    wide = 1 << (lanes - 1).bit_length()
    if known is not None and known > 0 and wide != lanes and _may_widen(frame, loop, wide):
        _body(frame, loop, 0, wide, tail_mask(frame, extent, 0, wide), widened=True)
    elif known is not None:
        for start, count in powers_of_two(lanes):
            if known > start:
                tail = None if known >= start + count else tail_mask(frame, extent, start, count)
                _body(frame, loop, start, count, tail)
    elif not _needs_mask(frame, loop) and _surely_runs(frame, loop):
        full()
    elif _worth_two_versions(frame, loop):
        emit_branches(frame, frame.builder.icmp_signed(">=", extent, index_constant(lanes)), full, partial)
    else:
        partial()


def powers_of_two(lanes: int) -> list[tuple[int, int]]:
    """(first lane, lanes) of the parts a loop is done in: 48 is 32 and 16.

    LLVM keeps a vector of another length as single elements wherever it lives across blocks (accumulators do). Lanes have no
    order between them, and what keeps an order across lanes (reductions, compaction) takes the parts in order.
    """
    parts, start = [], 0
    for bit in reversed(range(lanes.bit_length())):
        if lanes >> bit & 1:
            parts.append((start, 1 << bit))
            start += 1 << bit
    return parts


def _may_widen(frame: Frame, loop: For, wide: int) -> bool:
    """Whether a short loop (15 lanes: 8 + 4 + 2 + 1) is better done as one masked register.

    Registers' buffers are read whole, so they must have room for the lanes that are off.
    """
    if not frame.chip.masks or wide * 32 > frame.chip.vector_bits or wide < 4:
        return False
    for node in walk(loop.body):
        if isinstance(node, Ref | Load) and node.tensor in frame.places and loop.var in variables(node):
            place = frame.places[node.tensor]
            room = interval(place.shape[-1], {})[0] if place.shape else None
            inner = node.index[-1] == Var(name=loop.var) and not any(loop.var in variables(e) for e in node.index[:-1])
            if place.space == "reg" and not (inner and room is not None and room >= wide):
                return False
    return True


def _body(frame: Frame, loop: For, start: int, lanes: int, tail: Value | None, widened: bool = False) -> None:
    frame.lane = Lane(variable=loop.var, count=lanes, tail=tail, widened=widened)
    before = set(frame.places)
    body = substitute(loop.body, {loop.var: add(Var(name=loop.var), index(start))}) if start else loop.body
    step = scan_of(replace(loop, body=body))
    with frame.inside(loop):
        if step is None:
            frame.run(body)
        else:
            emit_scan(frame, body, step)
    frame.lane = None
    for name in set(frame.places) - before:  # a private buffer belongs to this part of the loop
        del frame.places[name]


def tail_mask(frame: Frame, extent: Value, start: int, lanes: int) -> Value:
    """Lane numbers below `extent - start`, compared in the narrowest type that counts the lanes where masks are bits."""
    builder = frame.builder
    kind = BYTE if frame.chip.masks and lanes < 128 else WORD
    left = builder.sub(extent, index_constant(start), flags=("nsw",)) if start else extent
    within = intrinsic(builder, "smin", INDEX_TYPE, [left, index_constant(lanes)])
    numbers = vector_constant(kind, range(lanes))
    return builder.icmp_signed("<", numbers, splat(builder, builder.trunc(within, kind), lanes))


def _surely_runs(frame: Frame, loop: For) -> bool:
    """Whether at least one lane is on: what all lanes share may then be touched without a question."""
    low, _ = interval(loop.extent, frame.ranges)
    return low is not None and low > 0


def _worth_two_versions(frame: Frame, loop: For) -> bool:
    """Whether the body needs its mask at all, and the tail comes once in many rounds (or masks are dear)."""
    return _needs_mask(frame, loop) and (not frame.chip.masks or bool(_loop_variables(frame) & variables(loop.extent)))


def _loop_variables(frame: Frame) -> set[str]:
    return {name for name, depth in frame.depth.items() if depth == frame.level and name in frame.values}


def _needs_mask(frame: Frame, loop: For) -> bool:
    lane = Lane(variable=loop.var, count=loop.bound or 1)
    for node in walk(loop.body):
        match node:
            case Check() | Append():
                return True
            case Accumulate(targets=targets) if not any(loop.var in variables(t) for t in targets):
                return True
            case Ref() if loop.var in variables(node):
                return True
            case Load(tensor=tensor, index=position):
                place = frame.places.get(tensor)
                if place is not None and loop.var in variables(node) and place.space != "reg" and not in_padding(place, position, lane):
                    return True
    return False


