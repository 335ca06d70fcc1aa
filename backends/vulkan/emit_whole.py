"""Whole fragments: filled, computed from others, stored; also those at the edge of a matrix, of which only some elements are there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from tridsl.backends.vulkan.contiguous import MAX_BYTES, offset_of
from tridsl.backends.vulkan.emit_expr import emit_as, emit_condition
from tridsl.backends.vulkan.emit_frame import Frame, Place
from tridsl.backends.vulkan.emit_matrix import (
    FRAGMENT_ELEMENTS,
    LAYOUT_NAMES,
    RESULT,
    SCOPES,
    TENSORS,
    fragment_text,
    memory_of,
    step_text,
)
from tridsl.backends.vulkan.emit_places import declare_index, write_place
from tridsl.backends.vulkan.ranges import Range
from tridsl.backends.vulkan.words import layout_of
from tridsl.dtypes import F32, DType
from tridsl.ir.affine import normal_form, to_expression
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, index
from tridsl.ir.loop import For
from tridsl.ir.walk import rewrite, substitute, variables
from tridsl.passes.whole_fragments import WholeUse, reduced_rows, whole_use

PLACES = "matrix_places"
"""Of devices that say where in a matrix an element is."""


def emit_whole_use(frame: Frame, loop: For) -> bool:
    """A nest that fills, stores or computes one fragment."""
    use = whole_use(loop, places=PLACES in frame.features)
    if use is None or not any(frame.places[name].kind == "fragment" for name in (use.tensor, *(m.tensor for m in use.matrices)) if name in frame.places):
        return False
    kept = frame.places[use.tensor].kind == "fragment"
    if kept and isinstance(use.value, Const):
        name = fragment_text(frame, use.tensor, use.index)
        element, _ = FRAGMENT_ELEMENTS[frame.places[use.tensor].dtype]
        frame.line(f"{name} = {_kind(frame, use, element)}({element}({emit_as(frame, use.value)}));")
    elif kept:
        _compute(frame, use, fragment_text(frame, use.tensor, use.index))
    elif isinstance(use.value, Load):
        _store(frame, use, fragment_text(frame, use.value.tensor, use.value.index), frame.places[use.value.tensor].dtype)
    else:
        made, dtype = frame.fresh("made"), frame.places[use.matrices[0].tensor].dtype
        frame.line(f"{_kind(frame, use, FRAGMENT_ELEMENTS[dtype][0])} {made};")
        _compute(frame, use, made)
        _store(frame, use, made, dtype)
    return True


def _kind(frame: Frame, use: WholeUse, element: str) -> str:
    return f"coopmat<{element}, {SCOPES[frame.grouped]}, {use.extents[0]}, {use.extents[1]}, gl_MatrixUseAccumulator>"


def _compute(frame: Frame, use: WholeUse, target: str) -> None:
    """By the operators of whole fragments, or element by element: those of fragments of one shape are in the same lanes in the same order. A vector becomes a fragment of
    equal columns (or rows) when it is loaded with a stride of 0."""
    names = {vector: frame.vectors.get(_vector_key(use, vector)) or _load_vector(frame, use, vector) for vector in use.vectors}
    for matrix in use.matrices:
        names[matrix] = fragment_text(frame, matrix.tensor, matrix.index)
    whole = _by_operators(use.value, names)
    if whole is not None:
        frame.line(f"{target} = {_kept_as(frame, use, whole)};")
        return
    for matrix in use.matrices:  # one by one: an array of which elements are asked for need not stay in registers
        own = frame.fresh("matrix")
        frame.line(f"{_kind(frame, use, FRAGMENT_ELEMENTS[frame.places[matrix.tensor].dtype][0])} {own} = {names[matrix]};")
        names[matrix] = own
    made, position = frame.fresh("made"), frame.fresh("element")
    frame.line(f"{_kind(frame, use, FRAGMENT_ELEMENTS[use.value.dtype][0])} {made};")
    for load, name in names.items():
        place = frame.places[load.tensor]
        frame.places[f"{name}[{position}]"] = replace(place, name=f"{name}[{position}]", kind="reg", strides=(), holds_elements=False)
    value = rewrite(use.value, {Load: lambda l: replace(l, tensor=f"{names[l]}[{position}]", index=()) if l in names else l})
    frame.extensions.add("GL_EXT_control_flow_attributes")
    frame.line("[[unroll]]")
    with frame.braces(f"for (int {position} = 0; {position} < {made}.length(); ++{position})"):
        if use.placed:
            _declare_place(frame, use, position)
        frame.line(f"{made}[{position}] = {emit_as(frame, value)};")
    frame.line(f"{target} = {_kept_as(frame, use, made) if frame.places[use.tensor].kind == 'fragment' else made};")


def _kept_as(frame: Frame, use: WholeUse, value: str) -> str:
    """An accumulator in the type of what it is kept in, and as the factor that it is there."""
    dtype, role = frame.places[use.tensor].dtype, frame.fragments.get(use.tensor, RESULT)
    element, extension = FRAGMENT_ELEMENTS[dtype]
    if dtype != use.value.dtype:
        frame.extensions.add(extension)
        value = f"{_kind(frame, use, element)}({value})"
    if role == RESULT:
        return value
    frame.extensions.add(TENSORS)
    return f"coopmat<{element}, {SCOPES[frame.grouped]}, {use.extents[0]}, {use.extents[1]}, gl_MatrixUse{role}>({value})"


def _declare_place(frame: Frame, use: WholeUse, position: str) -> None:
    """The row and column of the element at `position` of a lane, from a fragment that holds the numbers of its elements."""
    rows, columns = use.extents
    name = f"element_of_{rows}_{columns}"
    frame.numbered[name] = (_kind(frame, use, "float"), columns)
    frame.extensions.add(TENSORS)
    for variable, extent, text in ((use.rows, rows, "/"), (use.columns, columns, "%")):
        frame.line(f"int {declare_index(frame, 'i', variable, Range(0, extent - 1))} = int(uint({name}[{position}]) {text} {columns}u);")


def emit_reduced_rows(frame: Frame, loop: For) -> bool:
    """What the columns of a fragment come to, merged into every column of another."""
    use = reduced_rows(loop)
    if use is None or any(frame.places[name].kind != "fragment" for name in (use.target.tensor, use.columns.tensor)):
        return False
    dtype, (state,) = use.reducer.dtypes[0], use.reducer.states
    element = FRAGMENT_ELEMENTS[dtype][0]
    kind = f"coopmat<{element}, {SCOPES[frame.grouped]}, {use.extents[0]}, {use.extents[1]}, gl_MatrixUseAccumulator>"
    target, found, old, position = fragment_text(frame, use.target.tensor, use.target.index), frame.fresh("reduced"), frame.fresh("matrix"), frame.fresh("element")
    place = frame.places[use.target.tensor]

    def merged(**texts: str) -> str:
        """The two sides of a merge by their texts."""
        sides: dict[str, Expr] = {}
        for side, text in texts.items():
            frame.places[f"<{side}>"] = replace(place, name=text, kind="reg", strides=(), holds_elements=False)
            sides[f"{side}.{state}"] = Load(tensor=f"<{side}>", index=(), dtype=dtype)
        return emit_as(frame, substitute(use.reducer.merge[0], sides))

    function = f"merge_{use.reducer.name}_{element}"
    frame.functions[function] = f"{element} {function}(const in {element} a, const in {element} b) {{ return {merged(a='a', b='b')}; }}"
    frame.extensions.update((TENSORS, "GL_EXT_control_flow_attributes"))
    frame.line(f"{kind} {found};")
    frame.line(f"coopMatReduceNV({found}, {fragment_text(frame, use.columns.tensor, use.columns.index)}, gl_CooperativeMatrixReduceRowNV, {function});")
    frame.line(f"{kind} {old} = {target};")
    frame.line("[[unroll]]")
    with frame.braces(f"for (int {position} = 0; {position} < {old}.length(); ++{position})"):
        frame.line(f"{old}[{position}] = {merged(a=f'{old}[{position}]', b=f'{found}[{position}]')};")
    frame.line(f"{target} = {old};")
    return True


def _vector_key(use: WholeUse, vector: Load) -> tuple[Load, bool]:
    """What it is, whatever the loops over the fragment are called."""
    alike: dict[str, Expr] = {use.rows: Var(name="<row>"), use.columns: Var(name="<column>")}
    return substitute(vector, alike), use.rows in variables(vector)


def _load_vector(frame: Frame, use: WholeUse, vector: Load) -> str:
    place = frame.places[vector.tensor]
    polynomial = normal_form(offset_of(vector.index, place.strides))
    moving = use.rows if use.rows in variables(vector) else use.columns
    if polynomial.coefficient(moving) != 1 or place.kind != "shared" or place.dtype != F32:
        raise RuntimeError(f"{vector.tensor} is no vector of f32 in shared memory")
    memory, first = memory_of(frame, place, to_expression(polynomial.without([moving])))
    name = frame.fresh("vector")
    frame.line(f"{_kind(frame, use, 'float')} {name};")
    frame.line(f"coopMatLoad({name}, {memory}, {first}, 0u, {LAYOUT_NAMES[moving == use.columns]});")
    return name


@contextmanager
def vectors_ahead(frame: Frame, loop: For) -> Iterator[None]:
    """Around a loop over fragments: the vectors that are the same for all of them are loaded once, in front of it."""
    inner = loop.body[0] if len(loop.body) == 1 else None
    use = whole_use(inner) if isinstance(inner, For) else None
    same = [v for v in use.vectors if loop.var not in variables(v)] if use is not None and frame.places[use.tensor].kind in ("fragment", "pointer") else []
    made = {_vector_key(use, v): _load_vector(frame, use, v) for v in same if use is not None}
    frame.vectors.update(made)
    yield
    for key in made:
        del frame.vectors[key]


def _by_operators(value: Expr, names: Mapping[Load, str]) -> str | None:
    """`value` by the operators that fragments have as a whole, if there are such."""
    if isinstance(value, Load):
        return names.get(value)
    if not isinstance(value, Binary) or value.op not in OPERATORS or value.dtype != F32:
        return None
    a, b = (_by_operators(side, names) for side in (value.a, value.b))
    return None if a is None or b is None else f"({a} {OPERATORS[value.op]} {b})"


OPERATORS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
"""Element by element in fragments, too."""


def _store(frame: Frame, use: WholeUse, value: str, dtype: DType) -> None:
    place = frame.places[use.tensor]
    layout = layout_of(use.index, place.strides, use.rows, use.columns, 1)
    if layout is None or place.kind not in ("pointer", "shared"):
        raise RuntimeError(f"a fragment is stored to {use.tensor}, where there is no matrix with a stride")
    start, stride, by_row = layout
    edge = value
    if place.dtype != dtype:
        element, extension = FRAGMENT_ELEMENTS[place.dtype]
        frame.extensions.add(extension)
        value = f"{_kind(frame, use, element)}({value})"
    memory, first = memory_of(frame, place, start)
    whole = f"coopMatStore({value}, {memory}, {first}, {step_text(frame, place, stride)}, {LAYOUT_NAMES[by_row]});"
    if use.mask is None:
        frame.line(whole)
        return
    far = {use.rows: index(use.extents[0] - 1), use.columns: index(use.extents[1] - 1)}  # where the last element is, all are
    aligned = stride * place.dtype.storage_bytes % MAX_BYTES == 0
    inside = emit_condition(frame, substitute(use.mask, far)) if aligned else "false"
    with frame.braces(f"if ({inside})"):
        frame.line(whole)
    with frame.braces("else"):
        _store_elements(frame, use, place, edge, dtype)


def _store_elements(frame: Frame, use: WholeUse, place: Place, value: str, dtype: DType) -> None:
    """Through shared memory, where it is known which element is which: those at the edge of a matrix whose tiles are padded, and all of a
    matrix whose rows begin anywhere (a fragment is stored to rows that begin at multiples of 16 bytes)."""
    rows, columns = use.extents
    element, _ = FRAGMENT_ELEMENTS[dtype]
    lanes = 1
    for count in frame.subgroup_axes.values():
        lanes *= count
    name, size = f"edge_{element}", lanes * rows * columns
    if name not in frame.shared:
        frame.shared[name] = f"{element} {name}[{size}];"
        frame.shared_bytes += size * dtype.storage_bytes
    frame.extensions.add("GL_KHR_shader_subgroup_basic")
    start, point = f"gl_SubgroupID * {rows * columns}u", frame.fresh("point")
    frame.line(f"coopMatStore({value}, {name}, {start}, {columns}u, {LAYOUT_NAMES[True]});")
    frame.line("subgroupMemoryBarrierShared(); subgroupBarrier();")
    with frame.braces(f"for (uint {point} = gl_SubgroupInvocationID; {point} < {rows * columns}u; {point} += gl_SubgroupSize)"):
        for variable, extent, text in ((use.rows, rows, f"{point} / {columns}u"), (use.columns, columns, f"{point} % {columns}u")):
            frame.line(f"int {declare_index(frame, 'i', variable, Range(0, extent - 1))} = int({text});")
        with frame.braces(f"if ({emit_condition(frame, use.mask)})" if use.mask is not None else ""):
            write_place(frame, place, use.index, f"{name}[{start} + {point}]")
    frame.line("subgroupBarrier();")
