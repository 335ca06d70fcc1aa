"""Sums of products whose vectors lie along an axis that one factor lacks (patches times filters, channels last): the element of the one is
broadcast, a vector of the other is loaded. For filters that a matrix instruction has no place for: several reduced axes, or f32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Load
from tridsl.ir.op import Reduce
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.stencil_npu import SLACK_BYTES, cores_of_lines
from tridsl.schedule.steps import At, Bind, Order, Split, Step, StoreIn, Vector
from tridsl.schedule.windows_npu import LANES, lone_sum


def filters_npu(
    graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps for such a sum, alone or behind it a map that reads each of its elements once; none where it is something else."""
    name = live[0]
    total = lone_sum(graph, root, live)
    if total is None:
        return []
    axes = [a.name for a in total.axes]
    loads = {n for v in total.values for n in walk(v) if isinstance(n, Load)}
    across = [load for load in loads if any(axes[-1] in variables(i) for i in load.index)]
    beside = [load for load in loads if load not in across]
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in (*total.axes, *total.over)}
    plain = len(across) == 1 and len(beside) == 1 and sum(normal_form(i).coefficient(axes[-1]) == 1 for i in across[0].index) == 1
    if not plain or not all(extents.values()):
        return []
    steps = _tiled(graph, name, root, across[0], beside[0], extents, spec, array, decide)
    return steps


def _tiled(
    graph: Graph, name: str, root: str, filters: Load, patches: Load, extents: Mapping[str, int], spec: DeviceSpec, array: ArraySpec, decide: Decider
) -> list[Step]:  # fmt: skip
    total = graph.stages[name]
    assert isinstance(total, Reduce)
    axes, own = [a.name for a in total.axes], [a.name for a in axes_of(graph.stages[root])]
    names = dict(zip(axes, own))
    over = [axis.name for axis in total.over]
    moving = [a for a in axes[:-1] if any(a in variables(i) for i in patches.index)]
    if not moving:
        return []
    dealt = max(moving, key=lambda a: extents[a])  # the first of equals
    room = (array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES) // 2
    column = prod(extents[a] for a in over) * filters.dtype.storage_bytes
    most = max(LANES, room // column // LANES * LANES)
    cores = cores_of_lines(array, 2)
    counts = [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)]
    enough = next((n for n in counts if n * cores >= extents[dealt]), counts[-1])
    columns = decide(f"{root}.columns", enough, counts, "columns of the array")
    share = -(-extents[dealt] // (columns * cores))
    d, last = names[dealt], own[-1]
    steps: list[Step] = []
    outer: list[str] = []
    if most < extents[axes[-1]]:
        steps.append(Split(stage=root, axis=last, factor=most))
        outer, last = [f"{last}.o"], f"{last}.i"
    steps += [Split(stage=root, axis=last, factor=LANES), Split(stage=root, axis=d, factor=share * cores), Split(stage=root, axis=f"{d}.i", factor=share)]
    before = [names[a] for a in axes[: axes.index(dealt)]]
    behind = [names[a] for a in axes[axes.index(dealt) + 1 : -1]]
    inner = [*over, f"{last}.i"] if root == name else [f"{last}.i"]
    steps.append(Order(stage=root, axes=(f"{d}.o", f"{d}.i.o", *outer, *before, f"{d}.i.i", *behind, f"{last}.o", *inner)))
    if root != name:
        steps += [At(stage=name, consumer=root, axis=f"{last}.o"), StoreIn(stage=name, space="reg")]
        steps += [Order(stage=name, axes=(*over, axes[-1])), Vector(stage=name, axis=axes[-1])]
    steps += [Vector(stage=root, axis=f"{last}.i"), Bind(stage=root, axes=((f"{d}.o", "column"), (f"{d}.i.o", "row")))]
    return [*steps, StoreIn(stage=root, space="l1", at=f"{d}.i.i")]
