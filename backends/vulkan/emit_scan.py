"""What ran before each lane: subgroup shuffles where the device has them, shared memory elsewhere; the order is fixed.

The lanes before a lane are combined as a balanced tree (Kogge and Stone 1973), so floats are rounded alike in every run, but not as
one lane alone would round them, nor as a device with other subgroups does. Integers are equal everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.backends.vulkan.emit_expr import emit_as, read_place
from tridsl.backends.vulkan.emit_frame import AXES, Frame
from tridsl.backends.vulkan.emit_places import conditional, first_writer, write_place
from tridsl.backends.vulkan.emit_reduce import declare_states, merge_states, separate_scratches
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL, F64, I64, DType
from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate, Block, Store
from tridsl.ir.op import Reducer
from tridsl.schedule.nest import axis_of


def scan_at(frame: Frame, block: Block, position: int) -> int:
    """How many stores of what runs (`before = run`) stand in front of the combination across lanes that goes with them; 0: there is
    no such pair at `position`."""
    end = position
    while end < len(block) and isinstance(block[end], Store):
        end += 1
    if end == position or end == len(block):
        return 0
    step, stores = block[end], block[position:end]
    if not isinstance(step, Accumulate) or len(step.targets) != len(stores) or len(frame.buffers.reduced(step, frame.lanes)) != 1:
        return 0
    pairs = zip(stores, step.targets)
    alike = all(isinstance(s, Store) and isinstance(s.value, Load) and (s.value.tensor, s.value.index) == (t.tensor, t.index) for s, t in pairs)
    return len(stores) if alike else 0


def emit_scan(frame: Frame, stores: Sequence[Store], step: Accumulate) -> None:
    """`before = run; run += own` in the order of the lanes, by all of them at once."""
    reducer = step.reducer
    (lane,) = frame.buffers.reduced(step, frame.lanes)
    axis = frame.lanes[lane]
    if any(count > 1 for other, count in zip(AXES, frame.local) if other != axis):
        raise error(
            "E0707", f"the Vulkan backend has no GLSL for a scan over the lanes of `{axis_of(lane)}` where the workgroup has lanes along other axes",
            step.span, help="bind the other loop to a group, or leave it serial",
        )  # fmt: skip
    runs, befores = ([frame.places[ref.tensor] for ref in refs] for refs in (step.targets, [s.target for s in stores]))
    with frame.braces(""):
        values = [emit_as(frame, v, t) for v, t in zip(step.values, reducer.dtypes)]
        identity = [emit_as(frame, constant) for constant in reducer.identity]
        chosen = [f"({frame.active}) ? {v} : {i}" if frame.active else v for v, i in zip(values, identity)]
        own = declare_states(frame, reducer, chosen)
        olds = declare_states(frame, reducer, [read_place(frame, place, ref.index) for place, ref in zip(runs, step.targets)])
        whole = frame.group_lanes > 1  # a lane alone is no whole subgroup: nobody is the last of it
        shuffles = whole and "subgroup_shuffle_relative" in frame.features and all(t != BOOL for t in reducer.dtypes)
        earlier, total = (_by_shuffles if shuffles else _by_memory)(frame, reducer, own, identity, axis)
        for place, store, merged in zip(befores, stores, merge_states(frame, reducer, olds, earlier)):
            write_place(frame, place, store.target.index, merged)
        for place, ref, merged in zip(runs, step.targets, merge_states(frame, reducer, olds, total)):
            with conditional(frame, " && ".join(first_writer(frame, [place], frozenset()))):
                write_place(frame, place, ref.index, merged)


States = list[str]


def _by_memory(frame: Frame, reducer: Reducer, own: States, identity: States, axis: str) -> tuple[States, States]:
    """Every lane takes what stands 1, 2, 4, … places before it."""
    lanes, place = frame.group_lanes, f"gl_LocalInvocationID.{axis}"
    scratches = separate_scratches(frame, reducer)
    _put(frame, scratches, place, own)
    frame.line("barrier();")
    width = frame.fresh("width")
    with frame.braces(f"for (uint {width} = 1u; {width} < {lanes}u; {width} *= 2u)"):
        reaches = frame.fresh("reaches")
        frame.line(f"bool {reaches} = {place} >= {width};")
        before = declare_states(frame, reducer, [f"{s}[{reaches} ? {place} - {width} : 0u]" for s in scratches])
        frame.line("barrier();")
        with frame.braces(f"if ({reaches})"):
            _assign(frame, own, merge_states(frame, reducer, before, own))
            _put(frame, scratches, place, own)
        frame.line("barrier();")
    earlier = declare_states(frame, reducer, identity)
    with frame.braces(f"if ({place} > 0u)"):
        _assign(frame, earlier, [f"{s}[{place} - 1u]" for s in scratches])
    total = declare_states(frame, reducer, [f"{s}[{lanes - 1}u]" for s in scratches])
    frame.line("barrier();")
    return earlier, total


def _by_shuffles(frame: Frame, reducer: Reducer, own: States, identity: States, axis: str) -> tuple[States, States]:
    """The same inside each subgroup, without memory; then every lane combines the subgroups, in order. Subgroups hold neighbours, as
    all drivers make them of whole workgroups along one axis."""
    frame.extensions.update({"GL_KHR_shader_subgroup_basic", "GL_KHR_shader_subgroup_shuffle_relative"})
    distance = frame.fresh("distance")
    with frame.braces(f"for (uint {distance} = 1u; {distance} < gl_SubgroupSize; {distance} *= 2u)"):
        before = declare_states(frame, reducer, [_up(o, t, distance) for o, t in zip(own, reducer.dtypes)])
        with frame.braces(f"if (gl_SubgroupInvocationID >= {distance})"):
            _assign(frame, own, merge_states(frame, reducer, before, own))
    inside = declare_states(frame, reducer, [_up(o, t, "1u") for o, t in zip(own, reducer.dtypes)])
    with frame.braces("if (gl_SubgroupInvocationID == 0u)"):
        _assign(frame, inside, identity)
    scratches = separate_scratches(frame, reducer)
    with frame.braces("if (gl_SubgroupInvocationID == gl_SubgroupSize - 1u)"):
        _put(frame, scratches, "gl_SubgroupID", own)
    frame.line("barrier();")
    earlier, total = declare_states(frame, reducer, identity), declare_states(frame, reducer, identity)
    subgroup = frame.fresh("subgroup")
    with frame.braces(f"for (uint {subgroup} = 0u; {subgroup} < gl_NumSubgroups; ++{subgroup})"):
        with frame.braces(f"if ({subgroup} == gl_SubgroupID)"):
            _assign(frame, earlier, total)
        _assign(frame, total, merge_states(frame, reducer, total, declare_states(frame, reducer, [f"{s}[{subgroup}]" for s in scratches])))
    frame.line("barrier();")
    return declare_states(frame, reducer, merge_states(frame, reducer, earlier, inside)), total


def _put(frame: Frame, scratches: States, place: str, values: States) -> None:
    for scratch, value in zip(scratches, values):
        frame.line(f"{scratch}[{place}] = {value};")


def _assign(frame: Frame, names: States, texts: Sequence[str]) -> None:
    for name, text in zip(names, texts):
        frame.line(f"{name} = {text};")


def _up(name: str, dtype: DType, distance: str) -> str:
    """The value of the lane `distance` places before; 64 bits in two halves, which needs no further feature."""
    if dtype == I64:
        return f"packInt2x32(subgroupShuffleUp(unpackInt2x32({name}), {distance}))"
    if dtype == F64:
        return f"packDouble2x32(subgroupShuffleUp(unpackDouble2x32({name}), {distance}))"
    return f"subgroupShuffleUp({name}, {distance})"
