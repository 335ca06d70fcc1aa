"""Cooperative matrices: fragments, and the instructions on them (GL_KHR_cooperative_matrix)."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.backends.vulkan.contiguous import MAX_BYTES
from tridsl.backends.vulkan.emit_expr import emit_value, pointer_type
from tridsl.backends.vulkan.emit_frame import Frame, Place
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.backends.vulkan.ranges import range_of
from tridsl.backends.vulkan.words import matrix_layout
from tridsl.dtypes import BF16, F16, F32, I8, I32, U8, U32, DType
from tridsl.ir.expr import Expr, Load, add, index, mul
from tridsl.ir.loop import Block, Buffer, Copy, Mma, Ref
from tridsl.ir.walk import walk

MATRICES = "GL_KHR_cooperative_matrix"
"""The extension of every shader that works on fragments."""

FRAGMENT_ELEMENTS: dict[DType, tuple[str, str]] = {
    # GLSL type and extension
    F16: ("float16_t", "GL_EXT_shader_explicit_arithmetic_types_float16"),
    BF16: ("bfloat16_t", "GL_EXT_bfloat16"),
    F32: ("float", MATRICES),
    I8: ("int8_t", "GL_EXT_shader_explicit_arithmetic_types_int8"),
    U8: ("uint8_t", "GL_EXT_shader_explicit_arithmetic_types_int8"),
    I32: ("int", MATRICES),
    U32: ("uint", MATRICES),
}
_EXTENSIONS = (MATRICES, "GL_KHR_memory_scope_semantics")
LAYOUT_NAMES = {True: "gl_CooperativeMatrixLayoutRowMajor", False: "gl_CooperativeMatrixLayoutColumnMajor"}


def matrix_extensions(dtype: DType) -> tuple[str, ...]:
    """What shaders with fragments of these elements require."""
    return (*_EXTENSIONS, FRAGMENT_ELEMENTS[dtype][1])


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
    element, _ = FRAGMENT_ELEMENTS[buffer.dtype]
    frame.extensions.update(matrix_extensions(buffer.dtype))
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


def fragment_text(frame: Frame, tensor: str, at: tuple[Expr, ...]) -> str:
    place = frame.places[tensor]
    offset: Expr = index(0)
    for position, stride in zip(at, place.strides):
        offset = add(offset, mul(position, stride))
    return f"{place.name}[{emit_value(frame, offset).text}]"


def emit_fragment_load(frame: Frame, copy: Copy) -> None:
    """A fragment from shared or global memory."""
    source = frame.places[copy.source.tensor]
    width = MAX_BYTES // source.dtype.storage_bytes if source.words else 1
    layout = matrix_layout(copy, source.strides, width)
    if layout is None or source.kind not in ("shared", "pointer"):
        raise RuntimeError(f"fragment {copy.target.tensor} is no matrix with a stride in memory")
    start, stride, by_row = layout
    target = fragment_text(frame, copy.target.tensor, copy.target.index)
    memory, first = memory_of(frame, source, start, width)
    frame.line(f"coopMatLoad({target}, {memory}, {first}, {stride // width}u, {LAYOUT_NAMES[by_row]});")


def memory_of(frame: Frame, place: Place, start: Expr, width: int = 1) -> tuple[str, str]:
    """The array that a matrix in memory lies in, and its first element there, in units of `width` elements."""
    if place.kind == "shared":
        first = emit_value(frame, start).text
        return place.name, f"uint({first} / {width})" if width > 1 else f"uint({first})"
    frame.extensions.add(INT64)
    where = emit_value(frame, mul(start, index(place.dtype.storage_bytes)))
    return f"{pointer_type(frame, place.dtype)}(uint64_t({place.name}) + uint64_t(int64_t({where.text}))).v", "0u"


def emit_fragment_mma(frame: Frame, mma: Mma) -> bool:
    """The instruction, where all three operands are fragments."""
    parts = [part for part in (mma.a, mma.b, mma.target) if isinstance(part, Load | Ref)]
    if len(parts) < 3 or any(frame.places[part.tensor].kind != "fragment" for part in parts):
        return False
    a, b, acc = (fragment_text(frame, part.tensor, part.index) for part in parts)
    frame.line(f"{acc} = coopMatMulAdd({a}, {b}, {acc});")
    return True
