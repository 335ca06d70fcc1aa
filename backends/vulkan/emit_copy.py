"""Copies and multiply-accumulates → GLSL: loops over all points; of a copy, shared among lanes that work together."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace

from tridsl.backends.vulkan.emit_expr import emit_as, emit_value
from tridsl.backends.vulkan.emit_frame import Frame
from tridsl.backends.vulkan.emit_matrix import emit_fragment_load, emit_fragment_mma
from tridsl.backends.vulkan.emit_packed import emit_packed_product
from tridsl.backends.vulkan.emit_places import declare_index, index_type, write_place
from tridsl.backends.vulkan.emit_turned import emit_turned
from tridsl.backends.vulkan.emit_wide import emit_wide
from tridsl.backends.vulkan.ranges import Range, range_of
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var, index, mul
from tridsl.ir.loop import Copy, CopyAxis, Mma

MAX_UNROLLED = 16
"""Iterations of a copy's loop that are written out."""
MAX_HELD = 256
"""The same where one side is registers, which have no places that change."""


def emit_copy(frame: Frame, copy: Copy) -> None:
    if copy.cooperative:
        _copy_cooperative(frame, copy)
        return
    if frame.places[copy.target.tensor].kind == "fragment":
        emit_fragment_load(frame, copy)
        return
    held = any(frame.places[side.tensor].kind == "reg" for side in (copy.target, copy.source))
    most = MAX_HELD if held else MAX_UNROLLED
    with ExitStack() as stack:
        for axis in copy.axes[:-1]:
            stack.enter_context(_loop(frame, axis, most))
        row = replace(copy, axes=copy.axes[-1:])
        if emit_turned(frame, row) or emit_wide(frame, row):
            return
        for axis in copy.axes[-1:]:
            stack.enter_context(_loop(frame, axis, most))
        _copy_point(frame, copy)


def _loop(frame: Frame, axis: CopyAxis, most: int) -> AbstractContextManager[None]:
    size: Expr = index(axis.bound) if axis.bound is not None else axis.extent
    high = range_of(size, frame.ranges).high
    name = declare_index(frame, "i", axis.var, Range(0, max(0, high - 1)))
    kind = index_type(frame, axis.var)
    with frame.structure(high <= most and isinstance(size, Const)):
        limit = emit_value(frame, size).text
    if high <= most:
        frame.extensions.add("GL_EXT_control_flow_attributes")
        frame.line("[[unroll]]")
    return frame.braces(f"for ({kind} {name} = 0; {name} < {limit}; ++{name})")


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
    with frame.structure():
        limit = emit_value(frame, total).text
    with frame.braces(f"for ({kind} {name} = {kind}(gl_LocalInvocationIndex); {name} < {limit}; {name} += {lanes})"):
        rest = name
        for position in range(len(copy.axes) - 1, -1, -1):
            axis, size = copy.axes[position], sizes[position]
            high = range_of(size, frame.ranges).high
            inner = declare_index(frame, "i", axis.var, Range(0, max(0, high - 1)))
            with frame.structure():
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


def emit_mma(frame: Frame, mma: Mma) -> None:
    """The meaning of the instruction, point by point, in each lane: `target += cast(a) * cast(b)`."""
    if emit_fragment_mma(frame, mma) or emit_packed_product(frame, mma):
        return
    place = frame.places[mma.target.tensor]
    acc = compute_type(place.dtype)
    frame.extensions.add("GL_EXT_control_flow_attributes")
    with ExitStack() as stack:
        for variable, extent in mma.axes:
            name = declare_index(frame, "i", variable, Range(0, max(0, extent - 1)))
            frame.line("[[unroll]]")
            stack.enter_context(frame.braces(f"for (int {name} = 0; {name} < {extent}; ++{name})"))
        a, b = (load if load.dtype == acc else Cast(a=load, dtype=acc) for load in (mma.a, mma.b))
        old: Expr = Load(tensor=mma.target.tensor, index=mma.target.index, dtype=place.dtype)
        old = old if place.dtype == acc else Cast(a=old, dtype=acc)
        total = Binary(op="add", a=old, b=Binary(op="mul", a=a, b=b, dtype=acc), dtype=acc)
        write_place(frame, place, mma.target.index, emit_as(frame, total, acc))
