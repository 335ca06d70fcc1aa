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
TENSORS = "GL_NV_cooperative_matrix2"
"""The extension of shaders whose matrices are those of workgroups, and of what reads them."""
SCOPES = {False: "gl_ScopeSubgroup", True: "gl_ScopeWorkgroup"}
_EXTENSIONS = (MATRICES, "GL_KHR_memory_scope_semantics")
LAYOUT_NAMES = {True: "gl_CooperativeMatrixLayoutRowMajor", False: "gl_CooperativeMatrixLayoutColumnMajor"}


def matrix_extensions(dtype: DType) -> tuple[str, ...]:
    """What shaders with fragments of these elements require."""
    return (*_EXTENSIONS, FRAGMENT_ELEMENTS[dtype][1])


def matrix_element(dtype: DType) -> str:
    return FRAGMENT_ELEMENTS[dtype][0]


RESULT = "Accumulator"
"""What fragments are that no instruction takes as a factor."""


def fragment_uses(block: Block) -> Mapping[str, str]:
    """For each tensor of a matrix instruction, what it is there: `A`, `B` or `Accumulator`."""
    uses: dict[str, str] = {}
    for node in walk(block):
        if isinstance(node, Mma):
            parts = ((node.a, "A"), (node.b, "B"), (node.target, RESULT))
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
    use = frame.fragments.get(buffer.name, RESULT)
    frame.line(f"coopmat<{element}, {SCOPES[frame.grouped]}, {sizes[-2]}, {sizes[-1]}, gl_MatrixUse{use}> {name}[{count}];")
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
    with frame.indexing(place):
        return f"{place.name}[{emit_value(frame, offset).text}]"


def emit_fragment_load(frame: Frame, copy: Copy) -> None:
    """A fragment from shared or global memory."""
    source = frame.places[copy.source.tensor]
    if frame.grouped and _load_tensor(frame, copy, source):
        return
    width = MAX_BYTES // source.dtype.storage_bytes if source.words else 1
    layout = matrix_layout(copy, source.strides, width)
    if layout is None or source.kind not in ("shared", "pointer"):
        raise RuntimeError(f"fragment {copy.target.tensor} is no matrix with a stride in memory")
    start, stride, by_row = layout
    target = fragment_text(frame, copy.target.tensor, copy.target.index)
    memory, first = memory_of(frame, source, start, width)
    frame.line(f"coopMatLoad({target}, {memory}, {first}, {step_text(frame, source, stride // width)}, {LAYOUT_NAMES[by_row]});")


def _load_tensor(frame: Frame, copy: Copy, source: Place) -> bool:
    """A workgroup's matrix, where its rows lie in memory in whole 16 bytes: the driver reads it by a layout."""
    layout = matrix_layout(copy, source.strides, MAX_BYTES // source.dtype.storage_bytes)
    if layout is None or not layout[2] or source.kind != "pointer" or not source.aligned:
        return False
    start, stride, _ = layout
    rows, columns = (range_of(axis.extent, frame.ranges).high for axis in copy.axes[-2:])
    frame.extensions.update((TENSORS, INT64))
    frame.aligned_pointers.add(source.dtype)
    with frame.indexing(source):
        where = emit_value(frame, mul(start, index(source.dtype.storage_bytes)))
    memory = f"Aligned_{source.dtype}(uint64_t({source.name}) + uint64_t(int64_t({where.text}))).v"
    lies = f"setTensorLayoutStrideNV(setTensorLayoutDimensionNV(createTensorLayoutNV(2), {rows}u, {columns}u), {step_text(frame, source, stride)}, 1u)"
    target, element = copy.target.tensor, FRAGMENT_ELEMENTS[source.dtype][0]
    whole = frame.fresh("whole")  # not into the array at once: glslang 15, in shaderc 2025.2, ends the process on such a target
    frame.line(f"coopmat<{element}, {SCOPES[True]}, {rows}, {columns}, gl_MatrixUse{frame.fragments[target]}> {whole};")
    frame.line(f"coopMatLoadTensorNV({whole}, {memory}, 0u, {lies});")
    frame.line(f"{fragment_text(frame, target, copy.target.index)} = {whole};")
    return True


def step_text(frame: Frame, place: Place, step: int) -> str:
    """How far it is from row to row of a matrix in `place`."""
    with frame.indexing(place):
        return frame.constant(step, "uint")


def memory_of(frame: Frame, place: Place, start: Expr, width: int = 1) -> tuple[str, str]:
    """The array that a matrix in memory lies in, and its first element there, in units of `width` elements."""
    if place.kind == "shared":
        with frame.indexing(place):
            first = emit_value(frame, start).text
        return place.name, f"uint({first} / {width})" if width > 1 else f"uint({first})"
    frame.extensions.add(INT64)
    with frame.indexing(place):
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
