"""A reduction to one number on an array of cores: parts for the cores, and one core that combines what they made, in a second launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.op import Reduce
from tridsl.schedule.analyse import Graph, extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Bind, Parts, Split, Step, StoreIn, Vector

PART_BYTES = 4096
"""Of a core's tile: long runs in the host's memory, and room for the next one."""
PARTS = 4096
"""Partial results that one core combines at a time: a quarter of its memory."""
LANES = 16
"""Elements of a vector of sums."""


def lone_npu(graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps for a stage that reduces one axis, too long for one core, to a number in words; none for others."""
    stage = graph.stages[root]
    if len(live) != 1 or not isinstance(stage, Reduce) or stage.axes or len(stage.over) != 1 or stage.ordered or not stage.reducer.commutative:
        return []
    count, size = extent_of(stage.over[0], sizes), stage.reducer.dtypes[0].storage_bytes
    if not count or stage.reducer.op is None or size != array.granule_bytes or count > PART_BYTES * PARTS:
        return []
    if count * size <= array.core_memory_bytes // 2:
        return []  # one core has read it before a second launch would begin
    cores = (spec.columns or 1) * array.rows
    length = min(PART_BYTES // size, max(LANES, ceil(count / (2 * cores) / LANES) * LANES))
    length = max(length, ceil(count / PARTS / LANES) * LANES)
    parts = ceil(count / length)
    columns = decide(f"{root}.columns", min(spec.columns or 1, 1 << (ceil(parts / array.rows) - 1).bit_length()), _powers(spec), "columns of the array")
    axis, part = stage.over[0].name, f"{root}.part"
    core = ceil(parts / (columns * array.rows))
    return [
        Parts(stage=root, axis=axis, factor=length),
        Split(stage=part, axis=f"{axis}.o", factor=core * array.rows),
        Split(stage=part, axis=f"{axis}.o.i", factor=core),
        Bind(stage=part, axes=((f"{axis}.o.o", "column"), (f"{axis}.o.i.o", "row"))),
        Vector(stage=part, axis=f"{axis}.i"),
        StoreIn(stage=part, space="l1", at=f"{axis}.o.i.i", buffers=2),
        Split(stage=root, axis=f"{axis}.o", factor=parts),
        Vector(stage=root, axis=f"{axis}.o.i"),
        StoreIn(stage=root, space="l1", at=f"{axis}.o.o"),
    ]


def _powers(spec: DeviceSpec) -> list[int]:
    return [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)]
