"""Elements that change their places on an array of cores: tiles of both orders, blocks of a register whose sides a core exchanges.

Transfers move words, so that smaller elements cannot change places on the way; and in blocks the host's memory is read and written in runs of a tile's
rows, whatever the size of an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.expr import Cast, Load, Var
from tridsl.ir.op import Map
from tridsl.schedule.analyse import Graph, extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Bind, Order, Split, Step, StoreIn

SIDES = {1: 8, 2: 8, 4: 4}
"""Elements along a side of a block, by their bytes: a register of 512 or 1024 bits, whose rows are whole words."""
RUN_BYTES = 128
"""Of a tile's rows and columns, where the tensor has so many."""


def transpose_npu(graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps for a stage that copies a tensor whose last axis is another than its own; none for others."""
    stage = graph.stages[root]
    load = _copied(stage) if len(live) == 1 and isinstance(stage, Map) else None
    if load is None or not isinstance(stage, Map):
        return []
    names = [axis.name for axis in stage.axes]
    read = [place.name for place in load.index if isinstance(place, Var)]
    side = SIDES.get(load.dtype.storage_bytes)
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in stage.axes}
    if sorted(read) != sorted(names) or len(read) != len(load.index) or read[-1] == names[-1] or side is None or not all(extents.values()):
        return []
    along, across = read[-1], names[-1]
    most = RUN_BYTES // load.dtype.storage_bytes
    columns = decide(f"{root}.columns", spec.columns or 1, [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)], "columns of the array")
    steps: list[Step] = []
    for axis, parts in ((along, columns), (across, array.rows)):
        share = -(-extents[axis] // parts)
        size = min(most, -(-share // side) * side)
        steps += [
            Split(stage=root, axis=axis, factor=size), Split(stage=root, axis=f"{axis}.i", factor=side),
            Split(stage=root, axis=f"{axis}.o", factor=-(-extents[axis] // (size * parts))),
        ]  # fmt: skip
    others = [name for name in names if name not in (along, across)]
    order = (f"{along}.o.o", f"{across}.o.o", *others, f"{along}.o.i", f"{across}.o.i", f"{along}.i.o", f"{across}.i.o", f"{along}.i.i", f"{across}.i.i")
    return [
        *steps,
        Order(stage=root, axes=order),
        Bind(stage=root, axes=((f"{along}.o.o", "column"), (f"{across}.o.o", "row"))),
        StoreIn(stage=root, space="l1", at=f"{across}.o.i", buffers=2),
    ]


def _copied(stage: Map) -> Load | None:
    value = stage.value
    while isinstance(value, Cast):
        value = value.a
    return value if isinstance(value, Load) and value.boundary is None and value.dtype == stage.dtype else None
