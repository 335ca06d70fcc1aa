"""Scans, compactions and long reductions on a GPU: their axis in parts, enough of them for every lane."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.ir.expr import Load
from tridsl.ir.op import Axis, Compact, Reduce, Scan
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import extent_of, points
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Parts, Step

PART = 64
"""Elements that one lane scans: a few lines of memory, and ten million elements make 150,000 lanes."""
FEW = 256
"""Parts whose carries one lane adds up in less time than two more kernels take to start."""
LEVELS = 2
"""Divisions of an axis of unknown length: 64^3 elements and a lane that adds up the rest."""
REDUCED = 1 << 14
"""Elements that a workgroup reduces before what it found goes to another."""
BUSY = 1 << 12
"""Results from which on a workgroup for each fills the device."""


def running_parts(stage: Scan | Compact, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """The axis of a scan or compaction divided until little is left to carry."""
    if not _known(stage.along):
        return []
    count = extent_of(stage.along, sizes)
    name, axis, steps = stage.name, stage.along.name, list[Step]()
    part = decide(f"{name}.part", PART, (16, 32, 128, 256, 0), "elements that one lane runs over (0: all)")
    while part and (count > FEW if count is not None else len(steps) < LEVELS):
        steps.append(Parts(stage=name, axis=axis, factor=part))
        name, axis = f"{name}.carry", f"{axis}.o"
        count = None if count is None else -(-count // part)
    return steps


def reduced_parts(stage: Reduce, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """A long reduction to few results: workgroups share it."""
    first = stage.over[0]
    total, length, results = points(stage.over, sizes), extent_of(first, sizes), points(stage.axes, sizes)
    free = not stage.ordered and stage.reducer.commutative and len({t.axes for t in stage.targets}) == 1
    if not free or not _known(first) or total is None or length is None or results is None:
        return []
    if total <= REDUCED or results > BUSY:
        return []
    part = decide(f"{stage.name}.part", max(1, REDUCED * length // total), (0,), f"points of `{first.name}` that one workgroup reduces (0: all)")
    return [Parts(stage=stage.name, axis=first.name, factor=part)] if part and part < length else []


def _known(axis: Axis) -> bool:
    """Whether the axis has its length before the kernel runs."""
    return not any(isinstance(n, Load) for bound in (axis.lo, axis.hi) for n in walk(bound))
