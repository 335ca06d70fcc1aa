"""Where tensors and buffers live, and who may write them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from tridsl.backends.vulkan.contiguous import MAX_BYTES
from tridsl.backends.vulkan.emit_expr import element_text, emit_condition
from tridsl.backends.vulkan.emit_frame import AXES, Frame, Place
from tridsl.backends.vulkan.emit_matrix import declare_fragments
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.backends.vulkan.ranges import INT32, Range, range_of
from tridsl.ir.expr import Expr, index, mul
from tridsl.ir.loop import Alloc


def declare_index(frame: Frame, prefix: str, name: str, interval: Range) -> str:
    """The GLSL name of an index variable, whose type `index_type` then gives."""
    frame.ranges[name] = interval
    return frame.name(prefix, name)


def index_type(frame: Frame, name: str) -> str:
    if frame.ranges[name].inside(INT32):
        return "int"
    frame.extensions.add(INT64)
    return "int64_t"


def emit_alloc(frame: Frame, statement: Alloc) -> None:
    buffer = statement.buffer
    if buffer.space == "fragment":
        declare_fragments(frame, buffer)
        return
    row = frame.row(buffer.dtype)
    count = 1
    for size in buffer.shape:
        count *= range_of(size, frame.ranges).high
    shared = buffer.space == "shared"
    words = buffer.name in frame.word_buffers
    elements = not words and shared and row.element != row.value and row.shared_feature in frame.features
    if elements:
        frame.extensions.update(_SHARED_EXTENSIONS[row.shared_feature])
    name = frame.name("b", buffer.name)
    brackets = f"[{max(1, count)}]" if buffer.shape else ""
    declaration = f"{row.element if elements else row.value} {name}{brackets};"
    if words:
        declaration = f"uvec4 {name}[{count * buffer.dtype.storage_bytes // MAX_BYTES}];"
    if shared:
        if name in frame.shared and frame.shared[name] != declaration:
            raise RuntimeError(f"two shared buffers of one kernel are called `{buffer.name}`")
        if name not in frame.shared:  # a pass that copies a loop copies its allocation: the parts take turns in it
            frame.shared[name] = declaration
            frame.shared_bytes += max(1, count) * _held_bytes(frame, buffer.dtype, elements or words)
    else:
        frame.line(declaration)
    frame.places[buffer.name] = Place(
        name=name,
        dtype=buffer.dtype,
        row=row,
        kind="shared" if shared else "reg",
        strides=tuple(index(stride) for stride in _row_major([range_of(s, frame.ranges).high for s in buffer.shape])),
        holds_elements=elements,
        varying=not shared and bool(frame.lanes or frame.subgroups),
        words=words,
        count=count,
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


def write_place(frame: Frame, place: Place, at: tuple[Expr, ...], text: str) -> None:
    """`place[at] = text`, rounded to the element type."""
    target = element_text(frame, place, at)
    frame.line(f"{target} = {(place.row.store if place.holds_elements else place.row.narrow).format(text)};")


def write_condition(frame: Frame, place: Place, mask: Expr | None) -> str:
    """Who may write here: memory that lanes share is written by the first one where no loop over lanes says more."""
    conditions = first_writer(frame, [place], frozenset(frame.lanes.values()))
    if mask is not None:
        conditions.append(emit_condition(frame, mask))
    return " && ".join(conditions)


def first_writer(frame: Frame, places: Sequence[Place], bound: frozenset[str]) -> list[str]:
    """Along axes that no loop is bound to, every lane and workgroup does the same; only the first one writes."""
    if all(place.kind == "reg" for place in places):
        return []
    if frame.subgroups and not frame.lanes:  # the first lane of each subgroup
        return ["gl_SubgroupInvocationID == 0u"]
    lanes = [axis for axis, count in zip(AXES, frame.local) if axis not in bound and count > 1]
    groups: list[str] = []
    if any(place.kind == "pointer" for place in places):
        groups = sorted(frame.group_axes - frame.bound_groups)
    return [f"{frame.lane(axis)} == 0u" for axis in lanes] + [
        f"gl_WorkGroupID.{axis} == 0u" for axis in groups
    ]


def conditional(frame: Frame, condition: str) -> ExitStack:
    stack = ExitStack()
    if condition:
        stack.enter_context(frame.braces(f"if ({condition})"))
    return stack
