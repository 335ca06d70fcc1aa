"""Statements → GLSL, by a table of node types.

Barriers must be reached by all lanes or by none. A loop over lanes whose body holds one therefore does not skip lanes past
its extent: a bool says whether this lane takes part, and only what is no collective work stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from tridsl.backends.vulkan.collective import GROUP_AXES, LANE_AXES
from tridsl.backends.vulkan.emit_expr import (
    binary_text,
    element_text,
    emit_as,
    emit_condition,
    emit_value,
    is_varying,
    read_place,
)
from tridsl.backends.vulkan.emit_frame import AXES, Frame, Place
from tridsl.backends.vulkan.emit_reduce import declare_states, merge_states, reduce_lanes
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.backends.vulkan.ranges import INT32, Range, range_of
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Cast, Const, Expr, Load, Var, index, mul
from tridsl.ir.loop import Accumulate, Alloc, Append, Barrier, Block, Check, Copy, For, If, Stmt, Store
from tridsl.ir.walk import substitute

MAX_GROUPS = 65535
"""Workgroups along an axis that every Vulkan device can start at once."""


def emit_block(frame: Frame, block: Block) -> None:
    """All statements; runs of them that are no collective work share one test of `active`."""
    position = 0
    while position < len(block):
        statement = block[position]
        if frame.active is None or isinstance(statement, Alloc) or frame.is_collective(statement):
            emit_statement(frame, statement)
            position += 1
            continue
        active, frame.active = frame.active, None
        with frame.braces(f"if ({active})"):
            while position < len(block) and not _stays_outside(frame, block[position]):
                emit_statement(frame, block[position])
                position += 1
        frame.active = active


def _stays_outside(frame: Frame, statement: Stmt) -> bool:
    return isinstance(statement, Alloc) or frame.is_collective(statement)


def emit_statement(frame: Frame, statement: Stmt) -> None:
    _EMIT[type(statement)](frame, statement)


def declare_index(frame: Frame, prefix: str, name: str, interval: Range) -> str:
    """The GLSL name of an index variable, whose type `index_type` then gives."""
    frame.ranges[name] = interval
    return frame.name(prefix, name)


def index_type(frame: Frame, name: str) -> str:
    if frame.ranges[name].inside(INT32):
        return "int"
    frame.extensions.add(INT64)
    return "int64_t"


# Loops.


def _for(frame: Frame, loop: For) -> None:
    _LOOPS[loop.kind](frame, loop)


def _extent(frame: Frame, loop: For) -> tuple[str, Range]:
    """Text of the extent and the interval of the loop variable."""
    extent = range_of(loop.extent, frame.ranges)
    high = extent.high if loop.bound is None else min(extent.high, loop.bound)
    interval = Range(0, max(0, high - 1))
    declare_index(frame, "i", loop.var, interval)
    value = emit_value(frame, loop.extent)
    if value.type == "int64_t" and index_type(frame, loop.var) == "int":
        return f"int(min({value.text}, int64_t({high})))", interval
    return value.text, interval


def _serial(frame: Frame, loop: For) -> None:
    collective = frame.is_collective(loop)
    varying = is_varying(frame, loop.extent)
    extent, _ = _extent(frame, loop)
    kind, name = index_type(frame, loop.var), frame.names[loop.var]
    if loop.kind == "unroll":
        frame.extensions.add("GL_EXT_control_flow_attributes")
        frame.line("[[unroll]]")
    if not (collective and varying):
        with frame.braces(f"for ({kind} {name} = 0; {name} < {extent}; ++{name})"):
            emit_block(frame, loop.body)
        return
    if loop.bound is None:
        raise RuntimeError(
            f"loop {loop.var}: lanes leave it at different times, but it holds work for all lanes together"
        )
    with frame.braces(f"for ({kind} {name} = 0; {name} < {loop.bound}; ++{name})"):
        _guarded(frame, f"{name} < {extent}", loop.body)


def _guarded(frame: Frame, condition: str, body: Block) -> None:
    """`body` for the lanes where `condition` holds, with all lanes present."""
    outer, frame.active = frame.active, frame.fresh("active")
    frame.line(f"bool {frame.active} = {f'{outer} && ' if outer else ''}({condition});")
    emit_block(frame, body)
    frame.active = outer


def _group(frame: Frame, loop: For) -> None:
    """Strided over the grid: right for any number of workgroups."""
    axis = AXES[GROUP_AXES[loop.binding or "group.x"]]
    extent, _ = _extent(frame, loop)
    kind, name = index_type(frame, loop.var), frame.names[loop.var]
    frame.groups.setdefault(axis, []).append(_at_origin(frame, loop))
    outside, frame.bound_groups = frame.bound_groups, frame.bound_groups | {axis}
    start = f"{kind}(gl_WorkGroupID.{axis})"
    constant = isinstance(loop.extent, Const) and 0 < int(loop.extent.value) <= MAX_GROUPS
    if constant and axis in frame.single_groups:
        with frame.braces(""):
            frame.line(f"{kind} {name} = {start};")
            emit_block(frame, loop.body)
    else:
        step = f"{kind}(gl_NumWorkGroups.{axis})"
        with frame.braces(f"for ({kind} {name} = {start}; {name} < {extent}; {name} += {step})"):
            emit_block(frame, loop.body)
    frame.bound_groups = outside


def _at_origin(frame: Frame, loop: For) -> Expr:
    """The extent with all outer loop variables 0: how many workgroups to start is only a question of speed."""
    zeros: dict[str, Expr] = {name: index(0) for name in frame.ranges if name not in frame.sizes}
    return substitute(loop.extent, zeros)


def _lane(frame: Frame, loop: For) -> None:
    position = LANE_AXES[loop.binding or "lane.x"]
    lanes, axis = frame.local[position], AXES[position]
    collective = frame.is_collective(loop)
    extent, interval = _extent(frame, loop)
    kind, name = index_type(frame, loop.var), frame.names[loop.var]
    frame.lanes[loop.var] = axis
    start = f"{kind}(gl_LocalInvocationID.{axis})"
    covered = interval.high < lanes
    exact = range_of(loop.extent, frame.ranges) == Range(lanes, lanes)
    with ExitStack() as stack:
        if covered:
            stack.enter_context(frame.braces(""))
            frame.line(f"{kind} {name} = {start};")
            if exact:
                emit_block(frame, loop.body)
            elif collective:
                _guarded(frame, f"{name} < {extent}", loop.body)
            else:
                with frame.braces(f"if ({name} < {extent})"):
                    emit_block(frame, loop.body)
        elif collective:
            base = frame.fresh("base")
            stack.enter_context(frame.braces(f"for ({kind} {base} = 0; {base} < {extent}; {base} += {lanes})"))
            frame.line(f"{kind} {name} = {base} + {start};")
            _guarded(frame, f"{name} < {extent}", loop.body)
        else:
            stack.enter_context(frame.braces(f"for ({kind} {name} = {start}; {name} < {extent}; {name} += {lanes})"))
            emit_block(frame, loop.body)
    del frame.lanes[loop.var]


_LOOPS: dict[str, Callable[[Frame, For], None]] = {
    "serial": _serial,
    "parallel": _serial,  # what `bind_loops` left: inner ones
    "vector": _serial,
    "unroll": _serial,
    "group": _group,
    "lane": _lane,
}

LOOP_KINDS = frozenset(_LOOPS)


# Storage.


def _alloc(frame: Frame, statement: Alloc) -> None:
    buffer = statement.buffer
    row = frame.row(buffer.dtype)
    count = 1
    for size in buffer.shape:
        count *= range_of(size, frame.ranges).high
    shared = buffer.space == "shared"
    elements = shared and row.element != row.value and row.shared_feature in frame.features
    if elements:
        frame.extensions.update(_SHARED_EXTENSIONS[row.shared_feature])
    name = frame.name("b", buffer.name)
    size = f"[{max(1, count)}]" if buffer.shape else ""
    declaration = f"{row.element if elements else row.value} {name}{size};"
    if shared:
        frame.shared.append(f"shared {declaration}")
        frame.shared_bytes += max(1, count) * _held_bytes(frame, buffer.dtype, elements)
    else:
        frame.line(declaration)
    frame.places[buffer.name] = Place(
        name=name,
        dtype=buffer.dtype,
        row=row,
        kind="shared" if shared else "reg",
        strides=tuple(index(stride) for stride in _row_major([range_of(s, frame.ranges).high for s in buffer.shape])),
        holds_elements=elements,
        varying=not shared and bool(frame.lanes),
    )


_SHARED_EXTENSIONS = {
    "int8": ("GL_EXT_shader_explicit_arithmetic_types_int8",),
    "int16": ("GL_EXT_shader_explicit_arithmetic_types_int16",),
    "float16": ("GL_EXT_shader_explicit_arithmetic_types_float16",),
}


def _held_bytes(frame: Frame, dtype: Any, elements: bool) -> int:
    return int(dtype.storage_bytes) if elements else {"int64_t": 8, "double": 8}.get(frame.row(dtype).value, 4)


def _row_major(shape: Sequence[int]) -> list[int]:
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(1, size)
    return strides[::-1]


def tensor_strides(shape: tuple[Expr, ...], strides: tuple[Expr, ...] | None) -> tuple[Expr, ...]:
    """Strides in elements of a tensor parameter: its own, or row-major ones."""
    if strides is not None:
        return strides
    out: list[Expr] = []
    step: Expr = index(1)
    for size in reversed(shape):
        out.append(step)
        step = mul(step, size)
    return tuple(reversed(out))


# Writing.


def write_place(frame: Frame, place: Place, at: tuple[Expr, ...], text: str) -> None:
    """`place[at] = text`, rounded to the element type."""
    target = element_text(frame, place, at)
    frame.line(f"{target} = {(place.row.store if place.holds_elements else place.row.narrow).format(text)};")


def _write_condition(frame: Frame, place: Place, mask: Expr | None) -> str:
    """Who may write here: memory that lanes share is written by the first one where no loop over lanes says more."""
    conditions = _first_writer(frame, [place], frozenset(frame.lanes.values()))
    if mask is not None:
        conditions.append(emit_condition(frame, mask))
    return " && ".join(conditions)


def _first_writer(frame: Frame, places: Sequence[Place], bound: frozenset[str]) -> list[str]:
    """Along axes that no loop is bound to, every lane and workgroup does the same; only the first one writes."""
    if all(place.kind == "reg" for place in places):
        return []
    lanes = [axis for axis, count in zip(AXES, frame.local) if axis not in bound and count > 1]
    groups: list[str] = []
    if any(place.kind == "pointer" for place in places):
        groups = sorted(frame.group_axes - frame.bound_groups)
    return [f"gl_LocalInvocationID.{axis} == 0u" for axis in lanes] + [
        f"gl_WorkGroupID.{axis} == 0u" for axis in groups
    ]


def _conditional(frame: Frame, condition: str) -> ExitStack:
    stack = ExitStack()
    if condition:
        stack.enter_context(frame.braces(f"if ({condition})"))
    return stack


def _store(frame: Frame, statement: Store) -> None:
    place = frame.places[statement.target.tensor]
    with _conditional(frame, _write_condition(frame, place, statement.mask)):
        write_place(frame, place, statement.target.index, emit_as(frame, statement.value, compute_type(place.dtype)))


def _accumulate(frame: Frame, statement: Accumulate) -> None:
    if statement.init:
        raise RuntimeError("an Accumulate with `init` came to the emitter: passes.place_init has not run")
    if frame.buffers.reduced(statement, frame.lanes):
        _accumulate_lanes(frame, statement)
        return
    places = [frame.places[target.tensor] for target in statement.targets]
    condition = _write_condition(frame, places[0], statement.mask)
    reducer = statement.reducer
    with _conditional(frame, condition):
        if reducer.op is not None:
            (target,), (place,), (value,) = statement.targets, places, statement.values
            old = read_place(frame, place, target.index)
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
    takes_part = [frame.active] if frame.active else []
    with frame.braces(""):
        values = [emit_as(frame, v, t) for v, t in zip(statement.values, reducer.dtypes)]
        if statement.mask is not None:
            takes_part.append(emit_condition(frame, statement.mask))
        identity = [emit_as(frame, constant) for constant in reducer.identity]
        guard = " && ".join(takes_part)
        chosen = [f"({guard}) ? {v} : {i}" if guard else v for v, i in zip(values, identity)]
        own = declare_states(frame, reducer, chosen)
        result = reduce_lanes(frame, reducer, own, [frame.lanes[lane] for lane in reduced])
        writer = _lane_writer(frame, places, reduced)
        with _conditional(frame, writer):
            _merge_into(frame, statement, places, result)
        if writer:
            frame.line(BARRIER_ALL)


def _lane_writer(frame: Frame, places: Sequence[Place], reduced: Sequence[str]) -> str:
    """Who writes the combined value to memory: the first lane along every axis that was combined or is bound to no loop."""
    if all(place.kind == "reg" for place in places):
        return ""
    kept = frozenset(axis for lane, axis in frame.lanes.items() if lane not in reduced)
    conditions = _first_writer(frame, places, kept)
    if kept and frame.active:
        conditions.append(frame.active)
    return " && ".join(conditions) or "true"


def _append(frame: Frame, statement: Append) -> None:
    place, count = frame.places[statement.tensor], frame.places[statement.count.tensor]
    conditions = [c for c in (_write_condition(frame, place, None), emit_condition(frame, statement.keep)) if c]
    with frame.braces(f"if ({' && '.join(conditions)})"):
        at = Load(tensor=statement.count.tensor, index=statement.count.index, dtype=count.dtype)
        write_place(frame, place, (at,), emit_as(frame, statement.value, compute_type(place.dtype)))
        write_place(frame, count, statement.count.index, f"{read_place(frame, count, statement.count.index)} + 1L")


# Copies.


def _copy(frame: Frame, copy: Copy) -> None:
    if copy.cooperative:
        _copy_cooperative(frame, copy)
        return
    with ExitStack() as stack:
        for axis in copy.axes:
            size: Expr = index(axis.bound) if axis.bound is not None else axis.extent
            high = range_of(size, frame.ranges).high
            name = declare_index(frame, "i", axis.var, Range(0, max(0, high - 1)))
            kind = index_type(frame, axis.var)
            limit = emit_value(frame, size).text
            stack.enter_context(frame.braces(f"for ({kind} {name} = 0; {name} < {limit}; ++{name})"))
        _copy_point(frame, copy)


def _copy_cooperative(frame: Frame, copy: Copy) -> None:
    """A strided loop of all lanes over all points, the last axis fastest."""
    sizes: list[Expr] = [index(axis.bound) if axis.bound is not None else axis.extent for axis in copy.axes]
    total: Expr = index(1)
    for size in sizes:
        total = mul(total, size)
    counter = f"<copy {copy.target.tensor} {len(frame.names)}>"
    name = declare_index(frame, "q", counter, Range(0, max(0, range_of(total, frame.ranges).high - 1)))
    kind = index_type(frame, counter)
    lanes = frame.group_lanes
    limit = emit_value(frame, total).text
    with frame.braces(f"for ({kind} {name} = {kind}(gl_LocalInvocationIndex); {name} < {limit}; {name} += {lanes})"):
        rest = name
        for position in range(len(copy.axes) - 1, -1, -1):
            axis, size = copy.axes[position], sizes[position]
            high = range_of(size, frame.ranges).high
            inner = declare_index(frame, "i", axis.var, Range(0, max(0, high - 1)))
            extent = emit_value(frame, size).text
            axis_kind = index_type(frame, axis.var)
            text = f"{rest} % {extent}" if position else rest
            frame.line(f"{axis_kind} {inner} = {axis_kind}({text});")
            rest = f"({rest} / {extent})"
        _copy_point(frame, copy)


def _copy_point(frame: Frame, copy: Copy) -> None:
    place = frame.places[copy.target.tensor]
    compute = compute_type(place.dtype)
    load: Expr = copy.source
    if compute != load.dtype:
        load = Cast(a=load, dtype=compute)
    inside = [
        f"{emit_value(frame, Var(name=axis.var)).text} < {emit_value(frame, axis.extent).text}"
        for axis in copy.axes
        if axis.bound is not None and axis.extent != index(axis.bound)
    ]
    value = emit_as(frame, load, compute)
    if not inside:
        write_place(frame, place, copy.target.index, value)
    elif copy.pad is not None:
        pad = emit_as(frame, copy.pad, compute)
        write_place(frame, place, copy.target.index, f"(({' && '.join(inside)}) ? {value} : {pad})")
    else:
        with frame.braces(f"if ({' && '.join(inside)})"):
            write_place(frame, place, copy.target.index, value)


# The rest.


def _if(frame: Frame, statement: If) -> None:
    condition = emit_condition(frame, statement.condition)
    if is_varying(frame, statement.condition) and frame.is_collective(statement):
        known = frame.fresh("condition")
        outer = f"{frame.active} && " if frame.active else ""
        frame.line(f"bool {known} = {outer}{condition};")
        _guarded(frame, known, statement.then)
        if statement.otherwise:
            _guarded(frame, f"!{known}", statement.otherwise)
        return
    with frame.braces(f"if ({condition})"):
        emit_block(frame, statement.then)
    if statement.otherwise:
        with frame.braces("else"):
            emit_block(frame, statement.otherwise)


BARRIER_ALL = "memoryBarrierBuffer(); barrier();"


def _barrier(frame: Frame, statement: Barrier) -> None:
    frame.line(BARRIER_ALL if frame.fences_global else "barrier();")


def _check(frame: Frame, statement: Check) -> None:
    frame.checks = True
    frame.line(f"if (!{emit_condition(frame, statement.condition)}) atomicMin(status.v, {statement.number}u);")


_EMIT: dict[type, Callable[[Frame, Any], None]] = {
    For: _for,
    Alloc: _alloc,
    Store: _store,
    Accumulate: _accumulate,
    Append: _append,
    Copy: _copy,
    If: _if,
    Barrier: _barrier,
    Check: _check,
}

STATEMENTS = frozenset(_EMIT)
