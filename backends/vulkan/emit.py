"""`Kernel` → GLSL: one compute shader per phase.

Arguments come as 8-byte slots (addresses of tensors, scalars, sizes, addresses of scratch, address of the status word), in
push constants where they fit, else behind one address in the push constants (`facts`, `container.py`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from tridsl.backend import Code, Signature
from tridsl.backends.vulkan.build import PHASE_MARK
from tridsl.backends.vulkan.collective import GROUP_AXES, lanes_of
from tridsl.backends.vulkan.contiguous import MAX_BYTES, plain_tensors
from tridsl.backends.vulkan.emit_expr import pointer_type
from tridsl.backends.vulkan.emit_frame import AXES, Frame, Place
from tridsl.backends.vulkan.emit_functions import ordered_helpers
from tridsl.backends.vulkan.emit_matrix import MATRICES, fragment_uses, matrix_element
from tridsl.backends.vulkan.emit_places import declare_index, index_type, tensor_strides
from tridsl.backends.vulkan.emit_stmt import emit_block
from tridsl.backends.vulkan.emit_wide import words_declaration
from tridsl.backends.vulkan.extent import encode_extent
from tridsl.backends.vulkan.glsl_types import INT64, STORAGE_8, STORAGE_16
from tridsl.backends.vulkan.group_shape import group_lanes, is_grouped, loops_of_kind, subgroup_axes
from tridsl.backends.vulkan.ranges import INT64 as ANY
from tridsl.backends.vulkan.ranges import Range, dtype_range
from tridsl.backends.vulkan.template import name_sizes
from tridsl.backends.vulkan.words import word_buffers
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I64, DType
from tridsl.ir.expr import Binary, Expr, Load, index, mul
from tridsl.ir.loop import Accumulate, Alloc, Append, Check, Copy, Kernel, Phase, Store
from tridsl.ir.op import Scalar, Tensor
from tridsl.ir.walk import walk

BASE_EXTENSIONS = (
    "GL_EXT_buffer_reference",
    "GL_EXT_buffer_reference2",
    "GL_EXT_scalar_block_layout",
    INT64,
)

MIN_PUSH_BYTES = 128
"""What every Vulkan device has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One 8-byte argument. `kind`: `tensor`, `scalar`, `size`, `scratch`, `status`."""

    kind: str
    original: str
    dtype: DType


def emit(kernel: Kernel, spec: DeviceSpec) -> Code:
    """GLSL of all phases and what the driver must know (`container.py`)."""
    slots = _slots(kernel)
    in_push = 8 * len(slots) <= (spec.max_push_bytes or MIN_PUSH_BYTES)
    facts: list[tuple[str, int | str]] = [("arguments", "push" if in_push else "buffer")]
    texts = []
    for position, (phase, frame) in enumerate(zip(kernel.phases, _frames(kernel, spec))):
        texts.append(f"{PHASE_MARK}{position} {phase.name}\n{_shader(frame, slots, in_push)}")
        facts.append((f"groups.{position}", ";".join(_group_counts(frame))))
        facts.append((f"matrices.{position}", int(MATRICES in frame.extensions)))
    facts.append(("scratches", len(kernel.scratch)))
    for position, buffer in enumerate(kernel.scratch):
        size: Expr = index(buffer.dtype.storage_bytes)
        for extent in buffer.shape:
            size = mul(size, extent)
        facts.append((f"scratch.{position}", encode_extent(size)))
    facts.append(("status", int(_has_checks(kernel))))
    signature = Signature(params=kernel.params, sizes=kernel.sizes, messages=kernel.messages)
    return Code(entry=kernel.name, text="\n".join(texts), extension="glsl", signature=signature, facts=tuple(facts))


def shared_bytes(kernel: Kernel, spec: DeviceSpec) -> int:
    """Shared memory that the neediest phase of `kernel` takes."""
    sizes = {"int64_t": 8, "double": 8}
    return max((f.shared_bytes + sum(sizes.get(k, 4) * n for k, n in f.reduction_sizes.values()) for f in _frames(kernel, spec)), default=0)


class _Latest(threading.local):
    """What a thread emitted last: the stage before `emit` asks for shared memory, which only the emission knows."""

    kernel: Kernel | None = None
    spec: DeviceSpec | None = None
    frames: tuple[Frame, ...] = ()


_LATEST = _Latest()


def _frames(kernel: Kernel, spec: DeviceSpec) -> tuple[Frame, ...]:
    """The emission of all phases; the same values (not equal ones, which would take as long to tell) are emitted once."""
    if _LATEST.kernel is not kernel or _LATEST.spec is not spec:
        slots = _slots(kernel)
        _LATEST.frames = tuple(_emit_phase(kernel, phase, spec, slots) for phase in kernel.phases)
        _LATEST.kernel, _LATEST.spec = kernel, spec
    return _LATEST.frames


def _slots(kernel: Kernel) -> list[Slot]:
    slots = [
        Slot(kind="tensor" if isinstance(param, Tensor) else "scalar", original=param.name, dtype=param.dtype)
        for param in kernel.params
    ]
    slots += [Slot(kind="size", original=name, dtype=I64) for name in kernel.sizes]
    slots += [Slot(kind="scratch", original=buffer.name, dtype=buffer.dtype) for buffer in kernel.scratch]
    if _has_checks(kernel):
        slots.append(Slot(kind="status", original="<status>", dtype=I64))
    return slots


def _has_checks(kernel: Kernel) -> bool:
    return any(isinstance(node, Check) for node in walk(kernel))


def _emit_phase(kernel: Kernel, phase: Phase, spec: DeviceSpec, slots: list[Slot]) -> Frame:
    axes = [AXES[GROUP_AXES[loop.binding or "group.x"]] for loop in loops_of_kind(phase, "group")]
    subgroups = subgroup_axes(phase)
    local = group_lanes(phase, spec)
    frame = Frame(
        features=spec.features,
        local=local,
        subgroup_axes=subgroups,
        word_buffers=word_buffers(phase.body, plain_tensors(kernel)),
        fragments=fragment_uses(phase.body),
        grouped=is_grouped(phase),
        group_axes=frozenset(axes),
        single_groups=frozenset(axis for axis in axes if axes.count(axis) == 1),
        sizes=frozenset(slot.original for slot in slots),
        buffers=lanes_of(phase.body),
        fences_global=_shares_global(phase),
    )
    for slot in slots:
        _declare_slot(frame, slot, kernel)
    emit_block(frame, phase.body)
    return frame


def _declare_slot(frame: Frame, slot: Slot, kernel: Kernel) -> None:
    if slot.kind == "size":
        declare_index(frame, "n", slot.original, Range(0, ANY.high))
    elif slot.kind == "scalar":
        if slot.dtype == I64:
            declare_index(frame, "s", slot.original, dtype_range(I64))
        frame.name("s", slot.original)
        frame.row(slot.dtype)
    elif slot.kind in ("tensor", "scratch"):
        declared = next(item for item in (*kernel.params, *kernel.scratch) if item.name == slot.original)
        assert not isinstance(declared, Scalar)
        strides = tensor_strides(declared.shape, declared.strides if isinstance(declared, Tensor) else None)
        frame.places[slot.original] = Place(
            name=frame.name("t" if slot.kind == "tensor" else "g", slot.original),
            dtype=slot.dtype,
            row=frame.row(slot.dtype),
            kind="pointer",
            strides=strides,
            holds_elements=True,
            aligned=not isinstance(declared, Tensor) or declared.strides is None,
        )
        pointer_type(frame, slot.dtype)


def _shares_global(phase: Phase) -> bool:
    """Whether lanes may read global memory that other lanes of the phase wrote."""
    written: set[str] = set()
    for node in walk(phase):
        match node:
            case Store(target=target) | Copy(target=target):
                written.add(target.tensor)
            case Accumulate(targets=targets):
                written.update(target.tensor for target in targets)
            case Append(tensors=tensors, count=count):
                written.update((*tensors, count.tensor))
    written -= {node.buffer.name for node in walk(phase) if isinstance(node, Alloc)}
    return any(isinstance(node, Load) and node.tensor in written for node in walk(phase))


def _group_counts(frame: Frame) -> list[str]:
    counts = []
    for axis in AXES:
        count: Expr | None = None
        for extent in frame.groups.get(axis, []):
            count = extent if count is None else Binary(op="max", a=count, b=extent, dtype=I64)
        counts.append(encode_extent(count if count is not None else index(1)))
    return counts


# The text around the body.


def _shader(frame: Frame, slots: list[Slot], in_push: bool) -> str:
    body, sizes = name_sizes("\n".join(frame.lines))
    helpers = ordered_helpers(frame.helpers, frame.features)
    lines = ["#version 460"]
    lines += [f"#extension {name} : require" for name in sorted(frame.extensions | set(BASE_EXTENSIONS))]
    lines += _float_controls(frame)
    lines += [size.declaration for size in sizes]
    lines += [f"layout(local_size_x = {frame.group_lanes}, local_size_y = 1, local_size_z = 1) in;", ""]
    for dtype in sorted(frame.pointers, key=str):
        element = frame.row(dtype).element
        lines.append(
            f"layout(buffer_reference, scalar, buffer_reference_align = {dtype.storage_bytes}) "
            f"buffer Pointer_{dtype} {{ {element} v[]; }};"
        )
    for dtype in sorted(frame.aligned_pointers, key=str):
        lines.append(f"layout(buffer_reference, scalar, buffer_reference_align = {MAX_BYTES}) buffer Aligned_{dtype} {{ {matrix_element(dtype)} v[]; }};")
    lines += [words_declaration(width) for width in sorted(frame.words)]
    lines += _arguments(frame, slots, in_push)
    lines += [f"shared {declaration}" for declaration in frame.shared.values()]
    lines += [f"shared {kind} {name}[{count}];" for name, (kind, count) in sorted(frame.reduction_sizes.items())]
    lines += ["", *(helper.text for helper in helpers), *frame.functions.values(), *_numbering(frame), "void main() {", *_unpack(frame, slots, in_push)]
    lines += [f"    {kind} {name} = {kind}(0.0); coopMatPerElementNV({name}, {name}, number_{name});" for name, (kind, _) in frame.numbered.items()]
    lines += [body, "}", ""]
    return "\n".join(lines)


def _numbering(frame: Frame) -> list[str]:
    """Functions by which the driver numbers the elements of fragments."""
    return [
        f"float number_{name}(const in uint row, const in uint column, const in float element) {{ return float(row * {columns}u + column); }}"
        for name, (_, columns) in frame.numbered.items()
    ]


_CONTROLS = (
    ("denorm_preserve32", 4464, 4459, 32), ("denorm_preserve16", 4464, 4459, 16), ("nan_preserve32", 4466, 4461, 32),
    ("round_even16", 4467, 4462, 16), ("round_even32", 4467, 4462, 32),
)
"""Feature, SPIR-V capability, execution mode and width: keep denormals; keep NaN, inf and -0 as they are; round to nearest even."""


_SMALL_TYPES = ((STORAGE_8, "int8", 39), (STORAGE_16, "int16", 22), (STORAGE_16, "float16", 9))
"""Extension, feature, SPIR-V capability."""


def _float_controls(frame: Frame) -> list[str]:
    used = [
        row
        for row in _CONTROLS
        if row[0] in frame.features and (row[3] == 32 or "GL_EXT_shader_16bit_storage" in frame.extensions)
    ]
    # an optimiser may leave constants of small types where only their storage was asked for
    small = [str(number) for extension, feature, number in _SMALL_TYPES if extension in frame.extensions and feature in frame.features]
    modes = [
        f'spirv_execution_mode(extensions = ["SPV_KHR_float_controls"], capabilities = [{", ".join([str(capability), *small])}], '
        f"{mode}, {width});"
        for _, capability, mode, width in used
    ]
    return ["#extension GL_EXT_spirv_intrinsics : require", *modes] if modes else []


def _arguments(frame: Frame, slots: list[Slot], in_push: bool) -> list[str]:
    lines = []
    if any(slot.kind == "status" for slot in slots):
        lines.append("layout(buffer_reference, scalar, buffer_reference_align = 4) buffer Status { uint v; };")
    if not slots:
        return lines
    members = " ".join(f"uint64_t a{position};" for position in range(len(slots)))
    if in_push:
        return [*lines, f"layout(push_constant, scalar) uniform Push {{ {members} }} push;"]
    return [
        *lines,
        f"layout(buffer_reference, scalar, buffer_reference_align = 8) readonly buffer Arguments {{ {members} }};",
        "layout(push_constant, scalar) uniform Push { Arguments at; } push;",
    ]


def _unpack(frame: Frame, slots: list[Slot], in_push: bool) -> list[str]:
    prefix = "push" if in_push else "push.at"
    x, y, _ = frame.local
    number = "gl_LocalInvocationIndex"
    lines = [] if frame.is_flat else [f"    uvec3 lane = uvec3({number} % {x}u, {number} / {x}u % {y}u, {number} / {x * y}u);"]
    for position, slot in enumerate(slots):
        raw = f"{prefix}.a{position}"
        if slot.kind == "status":
            lines.append(f"    Status status = Status({raw});")
            continue
        name = frame.names[slot.original]
        if slot.kind == "size" or (slot.kind == "scalar" and slot.dtype == I64):
            lines.append(f"    {index_type(frame, slot.original)} {name} = int64_t({raw});")
        elif slot.kind == "scalar":
            row = frame.row(slot.dtype)
            lines.append(f"    {row.value} {name} = {row.argument.format(raw)};")
        else:
            lines.append(f"    Pointer_{slot.dtype} {name} = Pointer_{slot.dtype}({raw});")
    return lines
