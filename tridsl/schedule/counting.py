"""Counts of several conditions on the same narrow elements: a histogram with few bins, the numbers above each of some thresholds.

    h[b] = count[i](x[i] // 16 == b)     ->    for i.o: unroll b: h[b] += ones of the mask x[i.o*64 + 0..64] // 16 == b

A count for each lane would be 64 bits wide; the mask of a register's elements has a bit for each, and the ones in it are counted at once.
(65536 bytes, 16 bins, on a Golden Cove: 99 us with the bins in the lanes, 12 us bin by bin, 7 us like this.)
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.counts import counted_condition
from tridsl.ir.expr import Load
from tridsl.ir.op import Reduce
from tridsl.ir.walk import variables
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.copied import accesses
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Order, Parallel, Split, Step, Unroll, Vector

NARROW_BITS = 16
"""Elements of which a register has at least four times as many as of counts."""
UNROLLED = 16
"""Conditions whose counts all have a general register; more are counted one after the other, over a stretch at a time."""
STRETCH_BYTES = 8192
"""A small part of the nearest cache: it is read again for each condition."""


def counting_steps(
    stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, fixed: frozenset[str], threads: bool
) -> list[Step] | None:
    """Steps for a count that `fixed` axes have a point of, None where it is another kind of reduction."""
    deep = stage.over[-1].name
    moving = [n for n in accesses(stage) if deep in _mentioned(n)]
    narrow = all(unit_stride_axis(n) == deep and n.dtype.storage_bits <= NARROW_BITS for n in moving)
    if not spec.has_masks or counted_condition(stage) is None or not moving or not narrow:
        return None
    read = frozenset[str]().union(*map(_mentioned, moving))
    bins = next((a for a in reversed(stage.axes) if a.name not in read | fixed), None)
    count = None if bins is None else extent_of(bins, sizes)
    if bins is None or count is None:
        return None
    if not decide(f"{stage.name}.counted", True, (False,), "whether the ones of masks are counted"):
        return None
    size = max(n.dtype.storage_bytes for n in moving)
    few = count <= UNROLLED
    step = (spec.vector_bits or 0) // (8 * size) if few else STRETCH_BYTES // size
    outer = [a.name for a in stage.axes if a.name != bins.name]
    over = [*(a.name for a in stage.over[:-1]), f"{deep}.o"]
    steps: list[Step] = [
        Split(stage=stage.name, axis=deep, factor=step),
        Order(stage=stage.name, axes=(*outer, *over, bins.name, f"{deep}.i")),
    ]
    if threads and outer:
        steps.append(Parallel(stage=stage.name, axis=outer[0]))
    steps += [Unroll(stage=stage.name, axis=bins.name)] if few else []
    return [*steps, Vector(stage=stage.name, axis=f"{deep}.i")]


def _mentioned(load: Load) -> frozenset[str]:
    return frozenset(v for i in load.index for v in variables(i))
