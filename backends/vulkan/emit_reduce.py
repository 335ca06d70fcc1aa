"""Combining the lanes of a group: subgroup arithmetic, then shared memory; the order is fixed, all lanes get the result."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from tridsl.backends.vulkan.emit_expr import binary_text, emit_as
from tridsl.backends.vulkan.emit_frame import AXES, Frame
from tridsl.dtypes import BOOL, F32, F64, I32, U32, DType, compute_type
from tridsl.ir.op import Reducer

_SUBGROUP = {"add": "subgroupAdd", "mul": "subgroupMul", "min": "subgroupMin", "max": "subgroupMax"}
_SUBGROUP_BOOL = {"and": "subgroupAll", "or": "subgroupAny", "min": "subgroupAll", "max": "subgroupAny"}
_SUBGROUP_BITS = {"and": "subgroupAnd", "or": "subgroupOr"}


def declare_states(frame: Frame, reducer: Reducer, texts: Sequence[str]) -> list[str]:
    """One variable per state, with these values."""
    names = []
    for dtype, text in zip(reducer.dtypes, texts):
        name = frame.fresh("state")
        frame.line(f"{frame.row(dtype).value} {name} = {text};")
        names.append(name)
    return names


def merge_states(frame: Frame, reducer: Reducer, a: Sequence[str], b: Sequence[str]) -> list[str]:
    """Texts of the merged states of two variables each; `a` is the earlier."""
    if reducer.op is not None:
        return [binary_text(frame, reducer.op, a[0], b[0], reducer.dtypes[0])]
    for position, state in enumerate(reducer.states):
        frame.names[f"a.{state}"], frame.names[f"b.{state}"] = a[position], b[position]
    texts = [emit_as(frame, merge, dtype) for merge, dtype in zip(reducer.merge, reducer.dtypes)]
    return declare_states(frame, reducer, texts)


def reduce_lanes(frame: Frame, reducer: Reducer, own: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Variables that hold, in every lane, the combination of `own` over all lanes along `axes`."""
    lanes = _lanes_along(frame, axes)
    if lanes == 1:
        return list(own)
    if is_by_rows(frame, reducer, axes):
        return reduce_rows(frame, reducer, own, axes)
    subgroup = subgroup_text(frame, reducer, own[0]) if _are_all(frame, axes) else None
    if subgroup is not None:
        return _by_subgroups(frame, reducer, own, subgroup)
    return _by_tree(frame, reducer, own, axes, lanes)


def is_by_rows(frame: Frame, reducer: Reducer, axes: Sequence[str]) -> bool:
    """Whether rows of lanes along `axes` are combined by a subgroup each, as many values as there are at once (`reduce_rows`)."""
    return _lanes_along(frame, axes) > 1 and not _are_all(frame, axes) and subgroup_text(frame, reducer, "") is not None


def _lanes_along(frame: Frame, axes: Sequence[str]) -> int:
    return prod(count for axis, count in zip(AXES, frame.local) if axis in axes)


def _are_all(frame: Frame, axes: Sequence[str]) -> bool:
    return all(lanes == 1 or axis in axes for axis, lanes in zip(AXES, frame.local))


def subgroup_text(frame: Frame, reducer: Reducer, value: str) -> str | None:
    """The subgroup's combination of `value`, None where there is no such instruction."""
    if reducer.op is None or len(reducer.dtypes) != 1 or "subgroup_arithmetic" not in frame.features:
        return None
    dtype = compute_type(reducer.dtypes[0])
    extensions = {"GL_KHR_shader_subgroup_arithmetic", "GL_KHR_shader_subgroup_vote", "GL_KHR_shader_subgroup_basic"}
    if dtype == BOOL:
        call = _SUBGROUP_BOOL.get(reducer.op)
        text = f"{call}({value})" if call else None
    elif dtype in (F32, F64) and reducer.op in ("min", "max"):
        suffix = "_double" if dtype == F64 else ""
        frame.helpers.add(f"is_nan{suffix}")
        nan = "uintBitsToFloat(0x7fc00000u)" if dtype == F32 else "packDouble2x32(uvec2(0u, 0x7ff80000u))"
        text = f"(subgroupAny(is_nan{suffix}({value})) ? {nan} : {_SUBGROUP[reducer.op]}({value}))"
    elif dtype in (F32, F64, I32, U32) or (dtype.is_integer and dtype.bits < 32):
        call = (_SUBGROUP | _SUBGROUP_BITS)[reducer.op]
        text = _narrow(frame, f"{call}({value})", dtype)
    else:
        text = None
    if text is not None:
        frame.extensions.update(extensions)
    return text


def _narrow(frame: Frame, text: str, dtype: DType) -> str:
    return frame.row(dtype).narrow.format(text) if dtype.is_integer else text


def _scratch(frame: Frame, dtype: DType, count: int) -> str:
    """Shared memory for one state of reductions of this type; reductions of one shader take turns in it."""
    kind = frame.row(dtype).value
    name = f"lanes_{kind}"
    frame.reduction_sizes[name] = (kind, max(count, frame.reduction_sizes.get(name, (kind, 0))[1]))
    return name


def _by_subgroups(frame: Frame, reducer: Reducer, own: Sequence[str], subgroup: str) -> list[str]:
    """Each subgroup combines its lanes; then every lane combines the subgroups' results, in order.

    How many lanes a subgroup has is the driver's choice at run time; there is a place for each lane, so any choice is right.
    """
    result = declare_states(frame, reducer, [subgroup])
    scratch = _scratch(frame, reducer.dtypes[0], frame.group_lanes)
    with frame.braces("if (gl_NumSubgroups > 1u)"):
        frame.line(f"if (subgroupElect()) {scratch}[gl_SubgroupID] = {result[0]};")
        frame.line("barrier();")
        frame.line(f"{result[0]} = {scratch}[0];")
        step = frame.fresh("subgroup")
        with frame.braces(f"for (uint {step} = 1u; {step} < gl_NumSubgroups; ++{step})"):
            (merged,) = merge_states(frame, reducer, result, [f"{scratch}[{step}]"])
            frame.line(f"{result[0]} = {merged};")
        frame.line("barrier();")
    return result


def reduce_rows(frame: Frame, reducer: Reducer, own: Sequence[str], axes: Sequence[str]) -> list[str]:
    """Each of the values `own` over the lanes along `axes`: a subgroup for each row of lanes and each value, whichever lanes they are. Lanes wait for all
    values at once."""
    lanes, dtype = _lanes_along(frame, axes), reducer.dtypes[0]
    start, place = _row_and_place(frame, axes, lanes)
    scratch = _scratch(frame, dtype, len(own) * frame.group_lanes)
    for number, value in enumerate(own):
        frame.line(f"{scratch}[{_after(number * frame.group_lanes)}{start} + {place}] = {value};")
    frame.line("barrier();")
    row, step = frame.fresh("row"), frame.fresh("step")
    rows = len(own) * frame.group_lanes // lanes
    with frame.braces(f"for (uint {row} = gl_SubgroupID; {row} < {rows}u; {row} += gl_NumSubgroups)"):
        part = declare_states(frame, reducer, [emit_as(frame, reducer.identity[0], dtype)])
        with frame.braces(f"for (uint {step} = gl_SubgroupInvocationID; {step} < {lanes}u; {step} += gl_SubgroupSize)"):
            (merged,) = merge_states(frame, reducer, part, [f"{scratch}[{row} * {lanes}u + {step}]"])
            frame.line(f"{part[0]} = {merged};")
        whole = declare_states(frame, reducer, [subgroup_text(frame, reducer, part[0]) or part[0]])
        frame.line(f"if (subgroupElect()) {scratch}[{row} * {lanes}u] = {whole[0]};")
    frame.line("barrier();")
    found = [declare_states(frame, reducer, [f"{scratch}[{_after(number * frame.group_lanes)}{start}]"])[0] for number in range(len(own))]
    frame.line("barrier();")
    return found


def _after(places: int) -> str:
    return f"{places}u + " if places else ""


def _row_and_place(frame: Frame, axes: Sequence[str], lanes: int) -> tuple[str, str]:
    """Variables: where the lanes that this one is combined with begin, and its place among them."""
    start, place = frame.fresh("start"), frame.fresh("place")
    frame.line(f"uint {start} = {_linear(frame, [axis for axis in AXES if axis not in axes])} * {lanes}u;")
    frame.line(f"uint {place} = {_linear(frame, [axis for axis in AXES if axis in axes])};")
    return start, place


def _by_tree(frame: Frame, reducer: Reducer, own: Sequence[str], axes: Sequence[str], lanes: int) -> list[str]:
    """Neighbours first, so that earlier lanes stay on the left of the merge."""
    start, place = _row_and_place(frame, axes, lanes)
    scratches = separate_scratches(frame, reducer)
    spot = f"{start} + {place}"
    for scratch, value in zip(scratches, own):
        frame.line(f"{scratch}[{spot}] = {value};")
    frame.line("barrier();")
    width = frame.fresh("width")
    with frame.braces(f"for (uint {width} = 1u; {width} < {lanes}u; {width} *= 2u)"):
        with frame.braces(f"if ({place} % (2u * {width}) == 0u && {place} + {width} < {lanes}u)"):
            a = declare_states(frame, reducer, [f"{scratch}[{spot}]" for scratch in scratches])
            b = declare_states(frame, reducer, [f"{scratch}[{spot} + {width}]" for scratch in scratches])
            for scratch, merged in zip(scratches, merge_states(frame, reducer, a, b)):
                frame.line(f"{scratch}[{spot}] = {merged};")
        frame.line("barrier();")
    result = declare_states(frame, reducer, [f"{scratch}[{start}]" for scratch in scratches])
    frame.line("barrier();")
    return result


def _linear(frame: Frame, axes: Sequence[str]) -> str:
    """The lane's position among the lanes along `axes`, x fastest."""
    text = "0u"
    for axis, lanes in reversed(list(zip(AXES, frame.local))):
        if axis in axes and lanes > 1:
            text = f"({text} * {lanes}u + {frame.lane(axis)})"
    return text


def separate_scratches(frame: Frame, reducer: Reducer) -> list[str]:
    """Shared memory for each state, a place for each lane."""
    names = []
    for position, dtype in enumerate(reducer.dtypes):
        kind = frame.row(dtype).value
        name = f"lanes_{kind}_{position}"
        frame.reduction_sizes[name] = (kind, frame.group_lanes)
        names.append(name)
    return names
