"""Stores, accumulations and appends → GLSL."""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.backends.vulkan.emit_expr import binary_text, emit_as, emit_condition, read_place
from tridsl.backends.vulkan.emit_frame import Frame, Place
from tridsl.backends.vulkan.emit_places import conditional, first_writer, write_condition, write_place
from tridsl.backends.vulkan.emit_reduce import declare_states, is_by_rows, merge_states, reduce_lanes, reduce_rows
from tridsl.dtypes import F32, DType, compute_type
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, index
from tridsl.ir.loop import Accumulate, Append, For, Store
from tridsl.ir.walk import substitute, variables, walk
from tridsl.schedule.frames import conjuncts

MOST_TOGETHER = 8
"""Values of a lane that are combined at once, at most: there is shared memory for all of them (8 KiB of 256 lanes)."""

BARRIER_ALL = "memoryBarrierBuffer(); barrier();"
"""Lanes wait for each other and see what each wrote to shared and to global memory."""


def emit_store(frame: Frame, statement: Store) -> None:
    place = frame.places[statement.target.tensor]
    with conditional(frame, write_condition(frame, place, statement.mask)):
        write_place(frame, place, statement.target.index, emit_as(frame, _unrounded(statement.value, place.dtype), compute_type(place.dtype)))


def _unrounded(value: Expr, dtype: DType) -> Expr:
    """`value` before its rounding to `dtype`, which storing does."""
    rounds = isinstance(value, Cast) and value.dtype == dtype and dtype.kind == "float" and value.a.dtype == compute_type(dtype)
    return value.a if rounds and isinstance(value, Cast) else value


def emit_accumulate(frame: Frame, statement: Accumulate) -> None:
    if statement.init:
        raise RuntimeError("an Accumulate with `init` came to the emitter: passes.place_init has not run")
    if frame.buffers.reduced(statement, frame.lanes):
        _accumulate_lanes(frame, statement)
        return
    places = [frame.places[target.tensor] for target in statement.targets]
    condition = write_condition(frame, places[0], statement.mask)
    reducer = statement.reducer
    with conditional(frame, condition):
        if reducer.op is not None:
            (target,), (place,), (value,) = statement.targets, places, statement.values
            old = read_place(frame, place, target.index)
            product = value if reducer.op == "add" and value.dtype == F32 and isinstance(value, Binary) and value.op == "mul" else None
            if product is not None:  # drivers do not fuse what must keep NaN and infinities
                write_place(frame, place, target.index, f"fma({emit_as(frame, product.a)}, {emit_as(frame, product.b)}, {old})")
                return
            merged = binary_text(frame, reducer.op, old, emit_as(frame, value, reducer.dtypes[0]), reducer.dtypes[0])
            write_place(frame, place, target.index, merged)
            return
        with frame.braces(""):
            fresh = declare_states(
                frame, reducer, [emit_as(frame, v, t) for v, t in zip(statement.values, reducer.dtypes)]
            )
            _merge_into(frame, statement, places, fresh)


def _merge_into(frame: Frame, statement: Accumulate, places: Sequence[Place], fresh: Sequence[str]) -> None:
    """`targets = merge(targets, fresh)`; all old states are read before any is written."""
    reducer = statement.reducer
    olds = [read_place(frame, place, target.index) for place, target in zip(places, statement.targets)]
    old = declare_states(frame, reducer, olds)
    for place, target, merged in zip(places, statement.targets, merge_states(frame, reducer, old, fresh)):
        write_place(frame, place, target.index, merged)


def _accumulate_lanes(frame: Frame, statement: Accumulate) -> None:
    """Combine the lanes' values, then the targets with the result: in every lane where they are registers."""
    reducer = statement.reducer
    places = [frame.places[target.tensor] for target in statement.targets]
    reduced = frame.buffers.reduced(statement, frame.lanes)
    with frame.braces(""):
        result = reduce_lanes(frame, reducer, _own_states(frame, statement), [frame.lanes[lane] for lane in reduced])
        writer = _lane_writer(frame, places, reduced)
        with conditional(frame, " && ".join(filter(None, (writer, writer and _there(frame, statement, reduced))))):
            _merge_into(frame, statement, places, result)
        if writer:
            frame.line(BARRIER_ALL)


def emit_lanes_together(frame: Frame, loop: For) -> bool:
    """A loop that is written out and combines lanes at a place of its own each time, which no iteration reads: lanes wait once for all iterations, and
    not for each. False, with nothing emitted, for any other."""
    if loop.kind != "unroll" or len(loop.body) != 1 or not isinstance(loop.extent, Const):
        return False
    (statement,) = loop.body
    if not isinstance(statement, Accumulate):
        return False
    reduced, count = frame.buffers.reduced(statement, frame.lanes), int(loop.extent.value)
    axes = [frame.lanes[lane] for lane in reduced]
    names = {target.tensor for target in statement.targets}
    apart = all(loop.var in variables(target) for target in statement.targets) and not any(
        isinstance(n, Load) and n.tensor in names for value in statement.values for n in walk(value)
    )
    if not apart or not 1 < count <= MOST_TOGETHER or not is_by_rows(frame, statement.reducer, axes):
        return False
    points = [substitute(statement, {loop.var: index(number)}) for number in range(count)]
    places = [frame.places[target.tensor] for target in statement.targets]
    with frame.braces(""):
        own = [_own_states(frame, point)[0] for point in points]
        results = reduce_rows(frame, statement.reducer, own, axes)
        writer = _lane_writer(frame, places, reduced)
        with conditional(frame, writer):
            for point, result in zip(points, results):
                with conditional(frame, writer and _there(frame, point, reduced)):
                    _merge_into(frame, point, places, [result])
        if writer:
            frame.line(BARRIER_ALL)
    return True


def _own_states(frame: Frame, statement: Accumulate) -> list[str]:
    """Variables of what this lane brings: nothing, where it does not take part."""
    reducer = statement.reducer
    values = [emit_as(frame, v, t) for v, t in zip(statement.values, reducer.dtypes)]
    takes_part = [frame.active] if frame.active else []
    if statement.mask is not None:
        takes_part.append(emit_condition(frame, statement.mask))
    identity = [emit_as(frame, constant) for constant in reducer.identity]
    guard = " && ".join(takes_part)
    return declare_states(frame, reducer, [f"({guard}) ? {v} : {i}" if guard else v for v, i in zip(values, identity)])


def _there(frame: Frame, statement: Accumulate, reduced: Sequence[str]) -> str:
    """Whether there is anything that the lanes combine into: the parts of a mask that are the same for all of them."""
    mask = statement.mask
    return "" if mask is None else " && ".join(emit_condition(frame, part) for part in conjuncts(mask) if not variables(part) & frozenset(reduced))


def _lane_writer(frame: Frame, places: Sequence[Place], reduced: Sequence[str]) -> str:
    """Who writes the combined value to memory: the first lane along every axis that was combined or is bound to no loop."""
    if all(place.kind == "reg" for place in places):
        return ""
    kept = frozenset(axis for lane, axis in frame.lanes.items() if lane not in reduced)
    conditions = first_writer(frame, places, kept)
    if kept and frame.active:
        conditions.append(frame.active)
    return " && ".join(conditions) or "true"


def emit_append(frame: Frame, statement: Append) -> None:
    places, count = [frame.places[tensor] for tensor in statement.tensors], frame.places[statement.count.tensor]
    conditions = [c for c in (write_condition(frame, places[0], None), emit_condition(frame, statement.keep)) if c]
    with frame.braces(f"if ({' && '.join(conditions)})"):
        at = Load(tensor=statement.count.tensor, index=statement.count.index, dtype=count.dtype)
        for place, value in zip(places, statement.values):
            write_place(frame, place, (at,), emit_as(frame, value, compute_type(place.dtype)))
        write_place(frame, count, statement.count.index, f"{read_place(frame, count, statement.count.index)} + 1L")
