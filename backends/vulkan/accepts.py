"""What the emitter cannot take, said before it is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tridsl.backends.vulkan.collective import LANE_AXES
from tridsl.backends.vulkan.emit import shared_bytes
from tridsl.backends.vulkan.emit_functions import DOUBLE_CALLS, FUNCTION_CALLS
from tridsl.backends.vulkan.emit_stmt import LOOP_KINDS
from tridsl.backends.vulkan.glsl_types import element_type
from tridsl.backends.vulkan.group_shape import group_lanes, loops_of_kind
from tridsl.backends.vulkan.lower_access import allocated, written
from tridsl.backends.vulkan.lower_limits import too_long
from tridsl.backends.vulkan.ranges import range_of
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.dtypes import F64, DType
from tridsl.ir.expr import Call, Cast, Const, Load
from tridsl.ir.loop import Alloc, Append, Block, For, Kernel, Phase
from tridsl.ir.op import Tensor
from tridsl.ir.walk import walk
from tridsl.schedule.nest import axis_of

MAX_REGISTER_ELEMENTS = 4096
"""Elements of one buffer that a lane may hold; beyond it drivers fail or crawl."""


def accepts(kernel: Kernel, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """Diagnostics E0706 (a feature that the device lacks), E0707 (a construct without GLSL), E0709 (shared memory), E0712 (loops)."""
    found: list[Diagnostic] = []
    for param in kernel.params:
        found += _features(param.dtype, spec, param)
        if isinstance(param, Tensor) and param.layout != "row":
            found.append(_cannot(f"layout `{param.layout}` of `{param.name}`", "decode it with a pass", param))
    for node in walk(kernel):
        rule = _RULES.get(type(node))
        found += rule(node, spec) if rule else ()
    found += [diagnostic for phase in kernel.phases for diagnostic in (*_appends(phase.body, False), *_subgroups(phase, spec), *_groups(phase))]
    if not found:
        needed = shared_bytes(kernel, spec)
        if spec.shared_bytes is not None and needed > spec.shared_bytes:
            found.append(
                Diagnostic(
                    code="E0709",
                    message=f"`{kernel.name}` needs {needed} bytes of shared memory, `{spec.name}` has {spec.shared_bytes}",
                    help="use smaller tiles, or fewer buffers in `shared`",
                )
            )
    return tuple(dict.fromkeys((*found, *too_long(kernel, spec))))


def _cannot(what: str, instead: str, node: Any) -> Diagnostic:
    return Diagnostic(
        code="E0707",
        message=f"the Vulkan backend has no GLSL for {what}",
        span=getattr(node, "span", None),
        help=instead,
    )


def _features(dtype: DType, spec: DeviceSpec, node: Any) -> Iterator[Diagnostic]:
    feature = element_type(dtype, spec.features).feature
    if feature and feature not in spec.features:
        yield Diagnostic(
            code="E0706",
            message=f"device `{spec.name}` has no {dtype} (feature `{feature}`)",
            span=getattr(node, "span", None),
            help="use another element type, or run this operation on `cpu`",
        )


def _for(loop: For, spec: DeviceSpec) -> Iterator[Diagnostic]:
    if loop.kind not in LOOP_KINDS:
        yield _cannot(f"a loop of kind `{loop.kind}`", "bind it to `group.x` or `lane.x` instead", loop)


def _alloc(statement: Alloc, spec: DeviceSpec) -> Iterator[Diagnostic]:
    buffer = statement.buffer
    yield from _features(buffer.dtype, spec, buffer)
    if buffer.space == "fragment":
        return
    if buffer.space not in ("reg", "shared"):
        yield _cannot(f"a buffer in `{buffer.space}` (`{buffer.name}`)", "store it in `shared` or `reg`", buffer)
        return
    count = 1
    for size in buffer.shape:
        count *= max(1, int(size.value) if isinstance(size, Const) else range_of(size, {}).high)
    limit = MAX_REGISTER_ELEMENTS if buffer.space == "reg" else (spec.shared_bytes or 1 << 15)
    if count > limit:
        what = (
            f"`{buffer.name}`, {count} elements in `{buffer.space}`"
            if count < 1 << 40
            else f"`{buffer.name}` without a bound"
        )
        yield _cannot(what, "split the loops around it, so that a part of it is needed at a time", buffer)


def _call(node: Call, spec: DeviceSpec) -> Iterator[Diagnostic]:
    table = DOUBLE_CALLS if node.args[0].dtype == F64 else FUNCTION_CALLS
    if node.function not in table:
        yield _cannot(
            f"`{node.function}` of {node.args[0].dtype}", f"write `{node.function}(f32(x))`, or run it on `cpu`", node
        )
    if node.function == "pow" and "float64" not in spec.features:
        yield _cannot("`pow` on a device without f64", "run this operation on `cpu`", node)


def _typed(node: Cast | Const, spec: DeviceSpec) -> Iterator[Diagnostic]:
    yield from _features(node.dtype, spec, node)


def _appends(block: Block, shared: bool, own: frozenset[str] = frozenset()) -> Iterator[Diagnostic]:
    """`shared`: several lanes run the block; `own` are the buffers that each of them has for itself."""
    own |= {statement.buffer.name for statement in block if isinstance(statement, Alloc) and statement.buffer.space == "reg"}
    for statement in block:
        if isinstance(statement, Append) and shared and statement.count.tensor not in own:
            yield _cannot("appending from several lanes to one count", "divide the compacted loop: `.parts(i, 64)`", statement)
        lanes = getattr(statement, "kind", "") in ("lane", "group")
        for name in ("body", "then", "otherwise"):
            yield from _appends(getattr(statement, name, ()), shared or lanes, frozenset() if lanes else own)


def _subgroups(phase: Phase, spec: DeviceSpec) -> Iterator[Diagnostic]:
    """Where loops are bound to subgroups, these say how many lanes there are. Along an axis with fewer of them than a loop has iterations each
    lane walks the whole loop, so that none has a part of a sum. Nothing puts together what subgroups come to."""
    teams = list(loops_of_kind(phase, "subgroup"))
    yield from (_cannot(f"a sum over the subgroups of `{axis_of(t.var)}`", "bind it to lanes, or an axis of the result to subgroups", t) for t in teams if t.reduce)
    shape = group_lanes(phase, spec) if teams else (1, 1, 1)
    for loop in loops_of_kind(phase, "lane") if teams else ():
        binding, count = loop.binding or "lane.x", int(loop.extent.value) if isinstance(loop.extent, Const) else loop.bound
        there = binding == "lane.x" or (count is not None and count <= shape[LANE_AXES[binding]])
        if loop.reduce and not there:
            what = f"`{axis_of(loop.var)}` bound to {loop.binding} beside the subgroups of `{axis_of(teams[0].var)}`"
            yield _cannot(what, "bind one of them to something else: beside subgroups there are the lanes of these", loop)


def _groups(phase: Phase) -> Iterator[Diagnostic]:
    """Memory of a workgroup that each group fills a part of, and that is read where no group is meant: the other parts are elsewhere."""
    loops = list(loops_of_kind(phase, "group"))
    local = {n.buffer.name for n in walk(phase) if isinstance(n, Alloc)} if loops else set()
    for loop in loops:
        made = {ref.tensor for ref in written(loop.body)} & local - allocated(loop.body)
        alike = [n for l in loops if l.binding == loop.binding for n in walk(l)]
        for name in sorted(made):
            here, everywhere = (sum(isinstance(n, Load) and n.tensor == name for n in nodes) for nodes in (alike, walk(phase)))
            if everywhere > here:
                yield _cannot(f"`{name}`, which workgroups make parts of and all read", f"bind a loop around both to {loop.binding}, or lanes to `{axis_of(loop.var)}`", loop)


_RULES: dict[type, Callable[[Any, DeviceSpec], Iterator[Diagnostic]]] = {
    For: _for,
    Alloc: _alloc,
    Call: _call,
    Cast: _typed,
    Const: _typed,
}
