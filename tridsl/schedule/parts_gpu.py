"""Scans, compactions and long reductions on a GPU: parts of their axis for workgroups, whose lanes take neighbours together.

A part is some accesses of 16 bytes for each lane of a workgroup. Of a scan or compaction each part is reduced first, then one
workgroup scans what the parts came to, then each part is scanned from there on: the elements are read twice, whatever the device
promises about workgroups that wait for each other (Sengupta et al. 2007, reduce-then-scan). Floats are added in the order of the
schedule: lanes as a tree, the parts one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Expr, Load
from tridsl.ir.op import Axis, Compact, Reduce, Scan
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import axes_of, extent_of, points, unit_stride_axis, values_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.lanes import access_width
from tridsl.schedule.steps import Bind, Parts, Split, Step, Vector

LANES = 256
"""Lanes of a workgroup."""
ACCESSES = 4
"""Accesses that each lane makes to a part: fewer parts to combine, and enough workgroups for ten million elements."""
FILLING, MANY_ACCESSES = 512, (16, 8)
"""Workgroups that keep a device busy, and accesses of a lane to a part of a reduction while there are as many: argmax of 10^7 f32 takes 49.1, 44.6 and
43.6 us on an H100 with 4, 8 and 16 accesses (610 workgroups), a sum of 2^26 100.2, 98.8 and 97.7 (*measured*)."""
FEW = 256
"""Points that one lane runs over in less time than two more kernels take to start."""
SPREAD = 64
"""Elements that one lane runs over where neighbours along the axis are no neighbours in memory."""
LEVELS = 2
"""Divisions of such an axis of unknown length: 64^3 elements and a lane that adds up the rest."""
BUSY = 1 << 12
"""Results from which on a workgroup for each fills the device."""


def running_parts(stage: Scan | Compact, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """The axis of a scan or compaction in parts, each for the lanes of a workgroup."""
    if not _known(stage.along):
        return []
    count = extent_of(stage.along, sizes)
    if count is not None and count <= FEW:
        return []
    values = values_of(stage)
    if not _along_memory(values, stage.along) or (isinstance(stage, Scan) and not _in_registers(stage)):
        return _spread(stage, count, decide)
    name, axis = stage.name, stage.along.name
    width = _width(values, [t.dtype for t in stage.targets] if isinstance(stage, Scan) else [stage.dtype])
    lanes = decide(f"{name}.lanes", _most(spec), [n for n in (128, 512, 1024) if n <= (spec.max_group_lanes or 128)], "lanes of a workgroup")
    part = decide(f"{name}.part", lanes * width * ACCESSES, [lanes * width * n for n in (1, 2, 8, 16)], "elements that a workgroup runs over")
    outer = [a.name for a in axes_of(stage)]
    ordered = isinstance(stage, Scan) and not stage.reducer.commutative
    return [
        Parts(stage=name, axis=axis, factor=part),
        *_shared(f"{name}.part", outer, f"{axis}.o", f"{axis}.i", width, lanes, ordered=ordered),
        *_shared(f"{name}.carry", outer, None, f"{axis}.o", _carried(stage), lanes),
        *_shared(name, outer, f"{axis}.o", f"{axis}.i", width, lanes),
    ]


def reduced_parts(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """A long reduction to few results: workgroups share it."""
    first = stage.over[0]
    total, length, results = points(stage.over, sizes), extent_of(first, sizes), points(stage.axes, sizes)
    free = not stage.ordered and stage.reducer.commutative and len({t.axes for t in stage.targets}) == 1
    if not free or not _known(first) or total is None or length is None or results is None or results > BUSY:
        return []
    lanes, width = _most(spec), _width(stage.values, ())
    whole = lanes * width * ACCESSES
    if total <= 2 * whole:
        return []
    accesses = next((n for n in MANY_ACCESSES if total * results >= FILLING * lanes * width * n), ACCESSES)
    least = max(1, whole * length // total)
    part = max(1, lanes * width * accesses * length // total)
    others = [n for n in (least, 2 * least, 4 * least, 0) if n != part]
    part = decide(f"{stage.name}.part", part, others, f"points of `{first.name}` that one workgroup reduces (0: all)")
    if not part or part >= length:
        return []
    steps: list[Step] = [Parts(stage=stage.name, axis=first.name, factor=part)]
    if len(stage.over) > 1 or not _along_memory(stage.values, first):
        return steps
    return [*steps, *_shared(f"{stage.name}.part", [a.name for a in stage.axes], f"{first.name}.o", f"{first.name}.i", width, lanes)]


def _shared(stage: str, outer: Sequence[str], parts: str | None, axis: str, width: int, lanes: int, *, ordered: bool = False) -> list[Step]:
    """The loops of one phase: every part (of every row) for a workgroup, its elements for the lanes, neighbours together. `ordered`: a
    reduction of elements that may not change places."""
    steps: list[Step] = []
    if width > 1:
        steps.append(Split(stage=stage, axis=axis, factor=width))
        steps += [] if ordered else [Vector(stage=stage, axis=f"{axis}.i")]
        axis = f"{axis}.o"
    steps += [Split(stage=stage, axis=axis, factor=lanes), Bind(stage=stage, axes=((f"{axis}.i", "lane.x"),))]
    around = [*outer, *((parts,) if parts else ())]
    if not around:
        return steps
    fused, fusing = all_fused(stage, around)
    steps += fusing
    return [*steps, Bind(stage=stage, axes=((fused, "group.x"),))]


def _spread(stage: Scan | Compact, count: int | None, decide: Decider) -> list[Step]:
    """The axis divided until little is left to carry, a lane for each part."""
    name, axis, steps = stage.name, stage.along.name, list[Step]()
    part = decide(f"{name}.part", SPREAD, (16, 32, 128, 256, 0), "elements that one lane runs over (0: all)")
    while part and (count > FEW if count is not None else len(steps) < LEVELS):
        steps.append(Parts(stage=name, axis=axis, factor=part))
        name, axis = f"{name}.carry", f"{axis}.o"
        count = None if count is None else -(-count // part)
    return steps


def _along_memory(values: Sequence[Expr], axis: Axis) -> bool:
    """Whether what is read lies along the axis (what is read nowhere lies anywhere)."""
    loads = [n for value in values for n in walk(value) if isinstance(n, Load) and axis.name in _names(n)]
    return all(unit_stride_axis(load) == axis.name and load.boundary is None for load in loads)


def _names(load: Load) -> set[str]:
    return {n.name for place in load.index for n in walk(place) if hasattr(n, "name")}


def _in_registers(stage: Scan) -> bool:
    """Whether every result has all of the axes, so that one running value serves a row."""
    return all(set(t.axes) == {a.name for a in (*stage.axes, stage.along)} for t in stage.targets)


def _width(values: Sequence[Expr], results: Sequence[DType]) -> int:
    """Elements of one access: 16 bytes of the widest type that is read or written."""
    return access_width((*(n.dtype for value in values for n in walk(value) if isinstance(n, Load)), *results))


def _carried(stage: Scan | Compact) -> int:
    """Neighbours among what the parts came to."""
    states = stage.reducer.dtypes if isinstance(stage, Scan) else ()
    return access_width((compute_type(t) for t in states), without=8)


def _most(spec: DeviceSpec) -> int:
    return min(LANES, spec.max_group_lanes or 128)


def _known(axis: Axis) -> bool:
    """Whether the axis has its length before the kernel runs."""
    return not any(isinstance(n, Load) for bound in (axis.lo, axis.hi) for n in walk(bound))
