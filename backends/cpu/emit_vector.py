"""Vector loops: all iterations at once, one per lane.

A loop that may end early has a mask, `lane < extent`. Where the mask would be needed in every iteration of a strip-mined loop
the body is written twice, once for a full vector and once for the last one.
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_frame import Frame, Lane, emit_branches, emit_if
from tridsl.backends.cpu.emit_llvm import BYTE, INDEX_TYPE, WORD, Value, constant, index_constant, intrinsic, ir, splat, vector_constant
from tridsl.backends.cpu.emit_memory import in_padding
from tridsl.ir.expr import Load, Var
from tridsl.ir.loop import Accumulate, Append, Check, For, Ref
from tridsl.ir.walk import variables, walk


def emit_vector(frame: Frame, loop: For) -> None:
    assert frame.lane is None, f"vector loop {loop.var} stands in another vector loop"
    extent = frame.evaluate(loop.extent)
    known = extent.constant if isinstance(extent, ir.Constant) else None
    lanes = loop.bound if loop.bound is not None else known
    assert lanes is not None, f"vector loop {loop.var} has no constant bound"
    if known is not None and known <= 0:
        return

    def full() -> None:
        _body(frame, loop, lanes, None)

    def partial() -> None:
        with emit_if(frame, frame.builder.icmp_signed(">", extent, index_constant(0))):
            _body(frame, loop, lanes, tail_mask(frame, extent, lanes))

    if known == lanes:
        full()
    elif known is not None:
        _body(frame, loop, lanes, tail_mask(frame, extent, lanes))
    elif _worth_two_versions(frame, loop):
        emit_branches(frame, frame.builder.icmp_signed(">=", extent, index_constant(lanes)), full, partial)
    else:
        partial()


def _body(frame: Frame, loop: For, lanes: int, tail: Value | None) -> None:
    frame.lane = Lane(variable=loop.var, count=lanes, tail=tail)
    before = set(frame.places)
    with frame.inside(loop):
        frame.run(loop.body)
    frame.lane = None
    for name in set(frame.places) - before:  # a private buffer belongs to this version of the body
        del frame.places[name]


def tail_mask(frame: Frame, extent: Value, lanes: int) -> Value:
    """Lane numbers below `extent`, compared in the narrowest type that counts the lanes where masks are bits."""
    builder = frame.builder
    kind = BYTE if frame.chip.masks and lanes < 128 else WORD
    within = intrinsic(builder, "smin", INDEX_TYPE, [extent, index_constant(lanes)])
    numbers = vector_constant(kind, range(lanes))
    return builder.icmp_signed("<", numbers, splat(builder, builder.trunc(within, kind), lanes))


def _worth_two_versions(frame: Frame, loop: For) -> bool:
    """Whether the body needs its mask at all, and the tail comes once in many rounds (or masks are dear)."""
    return _needs_mask(frame, loop) and (not frame.chip.masks or bool(_loop_variables(frame) & variables(loop.extent)))


def _loop_variables(frame: Frame) -> set[str]:
    return {name for name, depth in frame.depth.items() if depth == frame.level and name in frame.values}


def _needs_mask(frame: Frame, loop: For) -> bool:
    for node in walk(loop.body):
        match node:
            case Check() | Append():
                return True
            case Accumulate(targets=targets) if not any(loop.var in variables(t) for t in targets):
                return True
            case Ref(tensor=tensor, index=position) | Load(tensor=tensor, index=position):
                place = frame.places.get(tensor)
                if place is not None and loop.var in variables(node) and place.space != "reg" and not in_padding(place, position, loop.var):
                    return True
    return False


