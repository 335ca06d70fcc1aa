"""Cooperative matrices: fragments, and the instructions on them (GL_KHR_cooperative_matrix)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tridsl.backends.vulkan.contiguous import MAX_BYTES, offset_of
from tridsl.backends.vulkan.emit_expr import emit_as, emit_value, pointer_type
from tridsl.backends.vulkan.emit_frame import Frame, Place
from tridsl.backends.vulkan.glsl_types import INT64
from tridsl.backends.vulkan.lower_fragments import WholeUse, whole_use
from tridsl.backends.vulkan.ranges import range_of
from tridsl.backends.vulkan.words import layout_of, matrix_layout
from tridsl.dtypes import BF16, F16, F32, I8, I32, U8, U32, DType
from tridsl.ir.affine import normal_form, to_expression
from tridsl.ir.expr import Const, Expr, Load, add, index, mul
from tridsl.ir.loop import Block, Buffer, Copy, For, Mma, Ref
from tridsl.ir.walk import rewrite, variables, walk

MATRICES = "GL_KHR_cooperative_matrix"
"""The extension of every shader that works on fragments."""

_ELEMENTS: dict[DType, tuple[str, str]] = {
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
_SCOPES = {False: "gl_ScopeSubgroup", True: "gl_ScopeWorkgroup"}
_EXTENSIONS = (MATRICES, "GL_KHR_memory_scope_semantics")
_LAYOUT = {True: "gl_CooperativeMatrixLayoutRowMajor", False: "gl_CooperativeMatrixLayoutColumnMajor"}


def matrix_extensions(dtype: DType) -> tuple[str, ...]:
    """What shaders with fragments of these elements require."""
    return (*_EXTENSIONS, _ELEMENTS[dtype][1])


def matrix_element(dtype: DType) -> str:
    return _ELEMENTS[dtype][0]


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
    element, _ = _ELEMENTS[buffer.dtype]
    frame.extensions.update(matrix_extensions(buffer.dtype))
    sizes = [range_of(size, frame.ranges).high for size in buffer.shape]
    count = 1
    for size in sizes[:-2]:
        count *= size
    name = frame.name("m", buffer.name)
    use = frame.fragments[buffer.name]
    frame.line(f"coopmat<{element}, {_SCOPES[frame.grouped]}, {sizes[-2]}, {sizes[-1]}, gl_MatrixUse{use}> {name}[{count}];")
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
    """A fragment from shared or global memory."""
    source = frame.places[copy.source.tensor]
    if frame.grouped and _load_tensor(frame, copy, source):
        return
    width = MAX_BYTES // source.dtype.storage_bytes if source.words else 1
    layout = matrix_layout(copy, source.strides, width)
    if layout is None or source.kind not in ("shared", "pointer"):
        raise RuntimeError(f"fragment {copy.target.tensor} is no matrix with a stride in memory")
    start, stride, by_row = layout
    target = _fragment(frame, copy.target.tensor, copy.target.index)
    memory, first = _memory(frame, source, start, width)
    frame.line(f"coopMatLoad({target}, {memory}, {first}, {stride // width}u, {_LAYOUT[by_row]});")


def _load_tensor(frame: Frame, copy: Copy, source: Place) -> bool:
    """A workgroup's matrix, where its rows lie in memory in whole 16 bytes: the driver reads it by a layout."""
    layout = matrix_layout(copy, source.strides, MAX_BYTES // source.dtype.storage_bytes)
    if layout is None or not layout[2] or source.kind != "pointer" or not source.aligned:
        return False
    start, stride, _ = layout
    rows, columns = (range_of(axis.extent, frame.ranges).high for axis in copy.axes[-2:])
    frame.extensions.update((TENSORS, INT64))
    frame.aligned_pointers.add(source.dtype)
    where = emit_value(frame, mul(start, index(source.dtype.storage_bytes)))
    memory = f"Aligned_{source.dtype}(uint64_t({source.name}) + uint64_t(int64_t({where.text}))).v"
    lies = f"setTensorLayoutStrideNV(setTensorLayoutDimensionNV(createTensorLayoutNV(2), {rows}u, {columns}u), {stride}u, 1u)"
    frame.line(f"coopMatLoadTensorNV({_fragment(frame, copy.target.tensor, copy.target.index)}, {memory}, 0u, {lies});")
    return True


def _memory(frame: Frame, place: Place, start: Expr, width: int = 1) -> tuple[str, str]:
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
    a, b, acc = (_fragment(frame, part.tensor, part.index) for part in parts)
    frame.line(f"{acc} = coopMatMulAdd({a}, {b}, {acc});")
    return True


def emit_whole_use(frame: Frame, loop: For) -> bool:
    """A nest that fills, stores or computes one fragment."""
    use = whole_use(loop)
    if use is None or not any(frame.places[name].kind == "fragment" for name in (use.tensor, *(m.tensor for m in use.matrices)) if name in frame.places):
        return False
    kept = frame.places[use.tensor].kind == "fragment"
    if kept and isinstance(use.value, Const):
        name = _fragment(frame, use.tensor, use.index)
        element, _ = _ELEMENTS[frame.places[use.tensor].dtype]
        frame.line(f"{name} = {_kind(frame, use, element)}({element}({emit_as(frame, use.value)}));")
    elif kept:
        _compute(frame, use, _fragment(frame, use.tensor, use.index))
    elif isinstance(use.value, Load):
        _store(frame, use, _fragment(frame, use.value.tensor, use.value.index), frame.places[use.value.tensor].dtype)
    else:
        made, dtype = frame.fresh("made"), frame.places[use.matrices[0].tensor].dtype
        frame.line(f"{_kind(frame, use, _ELEMENTS[dtype][0])} {made};")
        _compute(frame, use, made)
        _store(frame, use, made, dtype)
    return True


def _kind(frame: Frame, use: WholeUse, element: str) -> str:
    return f"coopmat<{element}, {_SCOPES[frame.grouped]}, {use.extents[0]}, {use.extents[1]}, gl_MatrixUseAccumulator>"


def _compute(frame: Frame, use: WholeUse, target: str) -> None:
    """Element by element: those of fragments of one shape are in the same lanes in the same order, and a vector becomes a fragment of
    equal columns (or rows) when it is loaded with a stride of 0."""
    names: dict[Load, str] = {}
    for vector in use.vectors:
        place = frame.places[vector.tensor]
        polynomial = normal_form(offset_of(vector.index, place.strides))
        moving = use.rows if use.rows in variables(vector) else use.columns
        if polynomial.coefficient(moving) != 1 or place.kind != "shared" or place.dtype != F32:
            raise RuntimeError(f"{vector.tensor} is no vector of f32 in shared memory")
        memory, first = _memory(frame, place, to_expression(polynomial.without([moving])))
        names[vector] = frame.fresh("vector")
        frame.line(f"{_kind(frame, use, 'float')} {names[vector]};")
        frame.line(f"coopMatLoad({names[vector]}, {memory}, {first}, 0u, {_LAYOUT[moving == use.columns]});")
    for matrix in use.matrices:
        names[matrix] = _fragment(frame, matrix.tensor, matrix.index)
    position = frame.fresh("element")
    for load, name in names.items():
        place = frame.places[load.tensor]
        frame.places[f"{name}[{position}]"] = replace(place, name=f"{name}[{position}]", kind="reg", strides=(), holds_elements=False)
    value = rewrite(use.value, {Load: lambda l: replace(l, tensor=f"{names[l]}[{position}]", index=()) if l in names else l})
    frame.extensions.add("GL_EXT_control_flow_attributes")
    frame.line("[[unroll]]")
    with frame.braces(f"for (int {position} = 0; {position} < {target}.length(); ++{position})"):
        frame.line(f"{target}[{position}] = {emit_as(frame, value)};")


def _store(frame: Frame, use: WholeUse, value: str, dtype: DType) -> None:
    place = frame.places[use.tensor]
    layout = layout_of(use.index, place.strides, use.rows, use.columns, 1)
    if layout is None or place.kind not in ("pointer", "shared"):
        raise RuntimeError(f"a fragment is stored to {use.tensor}, where there is no matrix with a stride")
    start, stride, by_row = layout
    if place.dtype != dtype:
        element, extension = _ELEMENTS[place.dtype]
        frame.extensions.add(extension)
        value = f"{_kind(frame, use, element)}({value})"
    memory, first = _memory(frame, place, start)
    frame.line(f"coopMatStore({value}, {memory}, {first}, {stride}u, {_LAYOUT[by_row]});")
