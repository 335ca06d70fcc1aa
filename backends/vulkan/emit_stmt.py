"""Statements → GLSL, by a table of node types.

Barriers must be reached by all lanes or by none. A loop over lanes whose body holds one therefore does not skip lanes past
its extent: a bool says whether this lane takes part, and only what is no collective work stands behind it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from tridsl.backends.vulkan.collective import GROUP_AXES, LANE_AXES
from tridsl.backends.vulkan.emit_accumulate import (
    BARRIER_ALL,
    emit_accumulate,
    emit_append,
    emit_lanes_together,
    emit_store,
)
from tridsl.backends.vulkan.emit_copy import emit_copy, emit_mma
from tridsl.backends.vulkan.emit_expr import emit_condition, emit_limit, is_varying
from tridsl.backends.vulkan.emit_frame import AXES, Frame
from tridsl.backends.vulkan.emit_places import declare_index, emit_alloc, index_type
from tridsl.backends.vulkan.emit_scan import emit_scan, scan_at
from tridsl.backends.vulkan.emit_whole import emit_reduced_rows, emit_whole_use, vectors_ahead
from tridsl.backends.vulkan.emit_wide import emit_zeros
from tridsl.backends.vulkan.lane_extremes import furthest
from tridsl.backends.vulkan.ranges import Range, range_of
from tridsl.diagnostics import error
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, Expr, Load, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Barrier, Block, Check, Copy, For, If, Mma, Prefetch, Stmt, Store
from tridsl.ir.walk import substitute, walk
from tridsl.schedule.nest import axis_of, stage_of

MAX_GROUPS = 65535
"""Workgroups along an axis that every Vulkan device can start at once."""


def emit_block(frame: Frame, block: Block) -> None:
    """All statements; runs of them that are no collective work share one test of `active`."""
    position = 0
    while position < len(block):
        statement = block[position]
        if stores := scan_at(frame, block, position):
            step = block[position + stores]
            emit_scan(frame, block[position : position + stores], step)  # type: ignore[arg-type]  # `scan_at` says what these statements are
            position += stores + 1
            continue
        if frame.active is None or isinstance(statement, Alloc) or frame.is_collective(statement):
            emit_statement(frame, statement)
            position += 1
            continue
        active, frame.active = frame.active, None
        with frame.braces(f"if ({active})"):
            while position < len(block) and not _stays_outside(frame, block[position]) and not scan_at(frame, block, position):
                emit_statement(frame, block[position])
                position += 1
        frame.active = active


def _stays_outside(frame: Frame, statement: Stmt) -> bool:
    return isinstance(statement, Alloc) or frame.is_collective(statement)


def emit_statement(frame: Frame, statement: Stmt) -> None:
    _EMIT[type(statement)](frame, statement)


# Loops.


def _for(frame: Frame, loop: For) -> None:
    _LOOPS[loop.kind](frame, loop)


def _extent(frame: Frame, loop: For) -> tuple[str, Range]:
    """Text of the extent and the interval of the loop variable."""
    extent = range_of(loop.extent, frame.ranges)
    high = extent.high if loop.bound is None else min(extent.high, loop.bound)
    interval = Range(0, max(0, high - 1))
    declare_index(frame, "i", loop.var, interval)
    with frame.structure(loop.kind in ("unroll", "vector") and isinstance(loop.extent, Const)):
        value = emit_limit(frame, loop.extent)
    if value.type == "int64_t" and index_type(frame, loop.var) == "int":
        return f"int(min({value.text}, int64_t({frame.constant(high, limit=True)})))", interval
    return value.text, interval


def _serial(frame: Frame, loop: For) -> None:
    if any(emits(frame, loop) for emits in (emit_whole_use, emit_reduced_rows, emit_zeros, emit_lanes_together)):
        return
    collective = frame.is_collective(loop)
    varying = is_varying(frame, loop.extent)
    extent, _ = _extent(frame, loop)
    kind, name = index_type(frame, loop.var), frame.names[loop.var]
    if not (collective and varying):
        with vectors_ahead(frame, loop):
            _note_unrolled(frame, loop)
            with frame.braces(f"for ({kind} {name} = 0; {name} < {extent}; ++{name})"):
                emit_block(frame, loop.body)
        return
    _note_unrolled(frame, loop)
    with frame.braces(f"for ({kind} {name} = 0; {name} < {_all_of_it(frame, loop)}; ++{name})"):
        _guarded(frame, f"{name} < {extent}", loop.body)


def _all_of_it(frame: Frame, loop: For) -> str:
    """Iterations after which every lane is through with `loop`. TriError E0707 where only the lanes know."""
    if loop.bound is not None:
        return frame.constant(loop.bound, limit=True)
    varying = {name: frame.ranges[name] for name in (*frame.lanes, *frame.subgroups)}
    most = furthest(loop.extent, varying)
    if most is None:
        raise error(
            "E0707", f"the Vulkan backend has no GLSL for the loop `{axis_of(loop.var)}` of `{stage_of(loop.var)}`: its lanes leave it at "
            "different times, but do work together in it", loop.span, help=f"split `{axis_of(loop.var)}` by a constant, or bind no lanes around it",
        )  # fmt: skip
    return emit_limit(frame, simplify_index(most)).text


def _note_unrolled(frame: Frame, loop: For) -> None:
    if loop.kind == "unroll":
        frame.extensions.add("GL_EXT_control_flow_attributes")
        frame.line("[[unroll]]")


def _once(frame: Frame, loop: For, name: str, extent: str, collective: bool) -> None:
    """One iteration, for those who have one below `extent` (empty: all have); the others come along to what all do together."""
    if not extent:
        emit_block(frame, loop.body)
    elif collective:
        _guarded(frame, f"{name} < {extent}", loop.body)
    else:
        with frame.braces(f"if ({name} < {extent})"):
            emit_block(frame, loop.body)


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


UNKNOWN_GROUPS = 256
"""Workgroups of a loop whose length only the device knows."""


def _at_origin(frame: Frame, loop: For) -> Expr:
    """The extent with all outer loop variables 0: how many workgroups to start is only a question of speed. A length that the
    device computes is not known when they are started."""
    if any(isinstance(node, Load) for node in walk(loop.extent)):
        return index(min(loop.bound or UNKNOWN_GROUPS, UNKNOWN_GROUPS))
    zeros: dict[str, Expr] = {name: index(0) for name in frame.ranges if name not in frame.sizes}
    return substitute(loop.extent, zeros)


def _lane(frame: Frame, loop: For) -> None:
    position = LANE_AXES[loop.binding or "lane.x"]
    lanes, axis = frame.local[position], AXES[position]
    collective = frame.is_collective(loop)
    extent, interval = _extent(frame, loop)
    kind, name = index_type(frame, loop.var), frame.names[loop.var]
    frame.lanes[loop.var] = axis
    start = f"{kind}({frame.lane(axis)})"
    covered = interval.high < lanes
    exact = range_of(loop.extent, frame.ranges) == Range(lanes, lanes)
    with ExitStack() as stack:
        if covered:
            stack.enter_context(frame.braces(""))
            frame.line(f"{kind} {name} = {start};")
            _once(frame, loop, name, "" if exact else extent, collective)
        elif collective:
            base = frame.fresh("base")
            stack.enter_context(frame.braces(f"for ({kind} {base} = 0; {base} < {extent}; {base} += {lanes})"))
            frame.line(f"{kind} {name} = {base} + {start};")
            _guarded(frame, f"{name} < {extent}", loop.body)
        else:
            stack.enter_context(frame.braces(f"for ({kind} {name} = {start}; {name} < {extent}; {name} += {lanes})"))
            emit_block(frame, loop.body)
    del frame.lanes[loop.var]


def _subgroup(frame: Frame, loop: For) -> None:
    """Each subgroup of the workgroup has its own iteration; several such loops divide the subgroups among them, x fastest. Where there are
    more subgroups than iterations, the rest comes along to what all do together."""
    extent, _ = _extent(frame, loop)
    collective = frame.is_collective(loop)
    kind, name = index_type(frame, loop.var), frame.names[loop.var]
    below = 1
    for axis in AXES[: AXES.index((loop.binding or "subgroup.x")[-1])]:
        below *= frame.subgroup_axes.get(axis, 1)
    own = frame.subgroup_axes[(loop.binding or "subgroup.x")[-1]]
    frame.extensions.add("GL_KHR_shader_subgroup_basic")
    with frame.braces(""):
        frame.line(f"{kind} {name} = {kind}(gl_SubgroupID) / {below} % {own};")
        frame.subgroups[loop.var] = name
        _once(frame, loop, name, "" if range_of(loop.extent, frame.ranges) == Range(own, own) else extent, collective)
        del frame.subgroups[loop.var]


_LOOPS: dict[str, Callable[[Frame, For], None]] = {
    "serial": _serial,
    "parallel": _serial,  # what `bind_loops` left: inner ones
    "vector": _serial,
    "unroll": _serial,
    "group": _group,
    "lane": _lane,
    "subgroup": _subgroup,
}

LOOP_KINDS = frozenset(_LOOPS)


# The rest.


def _prefetch(frame: Frame, statement: Prefetch) -> None:
    """A hint that GLSL has no word for."""


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


def _barrier(frame: Frame, statement: Barrier) -> None:
    frame.line(BARRIER_ALL if frame.fences_global else "barrier();")


def _check(frame: Frame, statement: Check) -> None:
    frame.checks = True
    frame.line(f"if (!{emit_condition(frame, statement.condition)}) atomicMin(status.v, {statement.number}u);")


_EMIT: dict[type, Callable[[Frame, Any], None]] = {
    For: _for,
    Alloc: emit_alloc,
    Store: emit_store,
    Accumulate: emit_accumulate,
    Append: emit_append,
    Copy: emit_copy,
    Mma: emit_mma,
    If: _if,
    Barrier: _barrier,
    Check: _check,
    Prefetch: _prefetch,
}

STATEMENTS = frozenset(_EMIT)
