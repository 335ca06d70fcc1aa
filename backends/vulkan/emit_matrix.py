"""Cooperative matrices: fragments, and the instructions on them (GL_KHR_cooperative_matrix)."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.backends.vulkan.contiguous import MAX_BYTES
from tridsl.backends.vulkan.emit_expr import emit_as, emit_value, pointer_type
from tridsl.backends.vulkan.emit_frame import Frame, Place
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.backends.vulkan.lower_fragments import WholeUse, whole_use
from tridsl.backends.vulkan.ranges import range_of
from tridsl.backends.vulkan.words import layout_of, matrix_layout
from tridsl.dtypes import F16, F32, I8, I32, U8, U32, DType
from tridsl.ir.expr import Const, Expr, Load, add, index, mul
from tridsl.ir.loop import Block, Buffer, Copy, For, Mma, Ref
from tridsl.ir.walk import walk

MATRICES = "GL_KHR_cooperative_matrix"
"""The extension of every shader that works on fragments."""

_ELEMENTS: dict[DType, tuple[str, str]] = {
    # GLSL type and extension
    F16: ("float16_t", "GL_EXT_shader_explicit_arithmetic_types_float16"),
    F32: ("float", MATRICES),
    I8: ("int8_t", "GL_EXT_shader_explicit_arithmetic_types_int8"),
    U8: ("uint8_t", "GL_EXT_shader_explicit_arithmetic_types_int8"),
    I32: ("int", MATRICES),
    U32: ("uint", MATRICES),
}
_EXTENSIONS = (MATRICES, "GL_KHR_memory_scope_semantics")
_LAYOUT = {True: "gl_CooperativeMatrixLayoutRowMajor", False: "gl_CooperativeMatrixLayoutColumnMajor"}


def fragment_uses(block: Block) -> Mapping[str, str]:
    """For each tensor of a matrix instruction, what it is there: `A`, `B` or `Accumulator`."""
    uses: dict[str, str] = {}
    for node in walk(block):
        if isinstance(node, Mma):
            parts = ((node.a, "A"), (node.b, "B"), (node.target, "Accumulator"))
            uses |= {part.tensor: use for part, use in parts if isinstance(part, Load | Ref)}
    return uses


def declare_fragments(frame: Frame, buffer: Buffer) -> None:
    """An array of fragments, the last two axes of `buffer` being one."""
    element, extension = _ELEMENTS[buffer.dtype]
    frame.extensions.update((*_EXTENSIONS, extension))
    sizes = [range_of(size, frame.ranges).high for size in buffer.shape]
    count = 1
    for size in sizes[:-2]:
        count *= size
    name = frame.name("m", buffer.name)
    use = frame.fragments[buffer.name]
    frame.line(f"coopmat<{element}, gl_ScopeSubgroup, {sizes[-2]}, {sizes[-1]}, gl_MatrixUse{use}> {name}[{count}];")
    strides = [1] * (len(sizes) - 2)
    for axis in range(len(strides) - 2, -1, -1):
        strides[axis] = strides[axis + 1] * sizes[axis + 1]
    frame.places[buffer.name] = Place(
        name=name,
        dtype=buffer.dtype,
        row=frame.row(buffer.dtype),
        kind="fragment",
        strides=tuple(index(stride) for stride in strides),
        holds_elements=False,
    )


def _fragment(frame: Frame, tensor: str, at: tuple[Expr, ...]) -> str:
    place = frame.places[tensor]
    offset: Expr = index(0)
    for position, stride in zip(at, place.strides):
        offset = add(offset, mul(position, stride))
    return f"{place.name}[{emit_value(frame, offset).text}]"


def emit_fragment_load(frame: Frame, copy: Copy) -> None:
    """A fragment from shared memory."""
    source = frame.places[copy.source.tensor]
    width = MAX_BYTES // source.dtype.storage_bytes if source.words else 1
    layout = matrix_layout(copy, source.strides, width)
    if layout is None or source.kind != "shared":
        raise RuntimeError(f"fragment {copy.target.tensor} is no matrix with a stride in shared memory")
    start, stride, by_row = layout
    first = emit_value(frame, start).text
    at = f"{first} / {width}" if width > 1 else first
    target = _fragment(frame, copy.target.tensor, copy.target.index)
    frame.line(f"coopMatLoad({target}, {source.name}, uint({at}), {stride // width}u, {_LAYOUT[by_row]});")


def emit_fragment_mma(frame: Frame, mma: Mma) -> bool:
    """The instruction, where all three operands are fragments."""
    parts = [part for part in (mma.a, mma.b, mma.target) if isinstance(part, Load | Ref)]
    if len(parts) < 3 or any(frame.places[part.tensor].kind != "fragment" for part in parts):
        return False
    a, b, acc = (_fragment(frame, part.tensor, part.index) for part in parts)
    frame.line(f"{acc} = coopMatMulAdd({a}, {b}, {acc});")
    return True


def emit_whole_use(frame: Frame, loop: For) -> bool:
    """A nest that fills or stores one fragment."""
    use = whole_use(loop)
    if use is None:
        return False
    if frame.places[use.tensor].kind == "fragment" and isinstance(use.value, Const):
        name = _fragment(frame, use.tensor, use.index)
        element, _ = _ELEMENTS[frame.places[use.tensor].dtype]
        kind = f"coopmat<{element}, gl_ScopeSubgroup, {use.extents[0]}, {use.extents[1]}, gl_MatrixUseAccumulator>"
        frame.line(f"{name} = {kind}({element}({emit_as(frame, use.value)}));")
        return True
    if isinstance(use.value, Const) or frame.places[use.value.tensor].kind != "fragment":
        return False
    _store(frame, use)
    return True


def _store(frame: Frame, use: WholeUse) -> None:
    assert not isinstance(use.value, Const)
    place, source = frame.places[use.tensor], frame.places[use.value.tensor]
    layout = layout_of(use.index, place.strides, use.rows, use.columns, 1)
    if layout is None or place.kind != "pointer":
        raise RuntimeError(f"fragment {use.value.tensor} is stored where there is no matrix with a stride")
    start, stride, by_row = layout
    value = _fragment(frame, use.value.tensor, use.value.index)
    if place.dtype != source.dtype:
        element, extension = _ELEMENTS[place.dtype]
        frame.extensions.add(extension)
        value = f"coopmat<{element}, gl_ScopeSubgroup, {use.extents[0]}, {use.extents[1]}, gl_MatrixUseAccumulator>({value})"
    frame.extensions.add(INT64)
    where = emit_value(frame, mul(start, index(place.dtype.storage_bytes)))
    memory = f"{pointer_type(frame, place.dtype)}(uint64_t({place.name}) + uint64_t(int64_t({where.text}))).v"
    frame.line(f"coopMatStore({value}, {memory}, 0u, {stride}u, {_LAYOUT[by_row]});")
