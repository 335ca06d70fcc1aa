"""Sums over windows of an image (convolutions, one channel or all) on an array of cores: rows in fifos of lines, vectors along a row.

A core adds a window's products for a vector of neighbouring results: each element of the filter is broadcast once for all of them. Rows of all
channels that a sum runs over are one line of the fifo, so this is for few channels; many are a matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Map, Reduce
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, pointwise
from tridsl.schedule.decisions import Decider
from tridsl.schedule.stencil_npu import ROWS_OF_A_CORE, cores_of_lines
from tridsl.schedule.steps import At, Bind, Lines, Order, Split, Step, StoreIn, Unroll, Vector

STEPS = (1, 2, 4)
"""Columns between the windows of neighbouring results: every element, every second or fourth of a vector."""
LANES = 16
"""Of a vector of f32, in which products are added."""


def lone_sum(graph: Graph, root: str, live: Sequence[str]) -> Reduce | None:
    """The sum over at least two axes that is all of `live`, or stands behind one map that reads each of its elements once, axis by axis."""
    name = live[0]
    total, result = graph.stages[name], graph.stages[root]
    if not isinstance(total, Reduce) or len(live) > 2 or len(total.axes) < 2 or total.ordered or total.reducer.op != "add":
        return None
    if root == name:
        return total
    if not isinstance(result, Map) or not all(pointwise(r.load, total, result) for r in graph.readers(name)):
        return None
    in_order = [a.name for a in axes_of(result)] == [v.name for v in graph.readers(name)[0].load.index if isinstance(v, Var)]
    return total if in_order else None


def windows_npu(
    graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps for a sum over windows, alone or behind it a map that reads each of its elements once; none where it is something else."""
    name, result = live[0], graph.stages[root]
    total = lone_sum(graph, root, live)
    if total is None:
        return []
    axes = [axis.name for axis in total.axes]
    image = _image(total, axes[-2], axes[-1])
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in (*total.axes, *total.over)}
    if image is None or not all(extents.values()) or extents[axes[-2]] < 2:
        return []
    load, rows = image
    outer = [a for a in axes[:-2] if any(a in variables(i) for i in load.index)]
    own = [a.name for a in axes_of(result)]
    names = dict(zip(axes, own))  # what the result calls the axes of the sum
    y, x = own[-2:]
    cores = cores_of_lines(array, 2)
    most = [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)]
    enough = next((n for n in most if n * cores * ROWS_OF_A_CORE >= extents[axes[-2]]), most[-1])
    columns = decide(f"{root}.columns", enough, most, "columns of the array")
    share = max(2, -(-extents[axes[-2]] // (columns * cores)))
    steps: list[Step] = [Split(stage=root, axis=x, factor=LANES)]
    steps += [Split(stage=root, axis=y, factor=share * cores), Split(stage=root, axis=f"{y}.i", factor=share)]
    over = [axis.name for axis in total.over]
    around = [names[a] for a in outer]
    beside = [names[a] for a in axes[:-2] if a not in outer]
    inner = [*over, f"{x}.i"] if root == name else [f"{x}.i"]
    steps.append(Order(stage=root, axes=(f"{y}.o", f"{y}.i.o", *around, f"{y}.i.i", *beside, f"{x}.o", *inner)))
    if root != name:
        steps += [At(stage=name, consumer=root, axis=f"{x}.o"), StoreIn(stage=name, space="reg"), Order(stage=name, axes=(*over, axes[-1]))]
        steps.append(Vector(stage=name, axis=axes[-1]))
    apart = max(normal_form(i).coefficient(axes[-1]) or 0 for i in load.index)
    written_out = [rows, *(a for a in over if apart > 1 and a != rows and any({a, axes[-1]} <= variables(i) for i in load.index))]
    steps += [*(Unroll(stage=name, axis=a) for a in written_out), Vector(stage=root, axis=f"{x}.i")]
    steps.append(Bind(stage=root, axes=((f"{y}.o", "column"), (f"{y}.i.o", "row"))))
    if any(normal_form(i).coefficient(axes[-2]) == 1 for i in load.index):  # else every window brings all of its rows
        steps.append(Lines(stage=load.tensor, consumer=root, axis=f"{y}.i.i"))
    return [*steps, StoreIn(stage=root, space="l1", at=f"{y}.i.i", buffers=2)]


def _image(total: Reduce, y: str, x: str) -> tuple[Load, str] | None:
    """The access whose rows and columns move with the result's and with two reduced axes, and which of these is its rows'."""
    over = {axis.name for axis in total.over}
    found: list[tuple[Load, str]] = []
    for load in {n for v in total.values for n in walk(v) if isinstance(n, Load)}:
        if not any(y in variables(i) for i in load.index):
            continue
        rows = next((i for i in load.index if normal_form(i).coefficient(y)), None)
        columns = next((i for i in load.index if normal_form(i).coefficient(x) in STEPS), None)
        if rows is None or columns is None or rows is columns:
            return None
        mine = [v for v in variables(rows) if v in over]
        if len(mine) != 1 or normal_form(rows).coefficient(mine[0]) != 1:
            return None
        if load.boundary is not None and load.boundary.mode not in ("edge", "value"):
            return None
        found.append((load, mine[0]))
    return found[0] if len(found) == 1 else None
