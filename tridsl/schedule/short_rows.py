"""Maps whose innermost axis is shorter than a register: the channels of a picture, the coordinates of points.

    for i: for j: vector c < 3: y[i, j, c] = a[i, j, c] * m[i, j]    ->    for p.o: vector p.i < 96: y[p] = a[p] * m[p // 3]

The lanes run on over whole registers; after as many as both the register's and the row's length divide, each lane is at the same place of
its row again, so what is read once for a row is a register that is loaded and spread. (A blend of 256 x 256 pixels of three bytes, on
a Golden Cove: 139 us with three lanes, 27 us like this.)
"""

from __future__ import annotations

from math import lcm

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Map
from tridsl.ir.walk import variables, walk
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.steps import Parallel, Split, Step, Vector

MOST_REGISTERS = 4
"""Registers after which a row begins at a register's first lane: the loop's body is written out for so many."""
LEAST_BITS = 16
"""Bits of the narrowest lanes that are computed in."""
BLOCK = 16384
"""Elements that a thread takes at a time."""


def short_rows(stage: Map, extent: int | None, spec: DeviceSpec) -> int | None:
    """Elements after which lanes and rows of `extent` elements come round together; None where the rows are long, or not read whole."""
    bits = max(LEAST_BITS, stage.dtype.storage_bits, *(n.dtype.storage_bits for n in walk(stage.value) if isinstance(n, Load)))
    lanes = max(1, (spec.vector_bits or 0) // bits)
    if extent is None or not 2 <= extent < lanes or len(stage.axes) < 2 or not spec.has_masks:
        return None
    period = lcm(extent, lanes)
    return period if period <= MOST_REGISTERS * lanes and all(_in_order(n, stage) for n in walk(stage.value) if isinstance(n, Load)) else None


def _in_order(load: Load, stage: Map) -> bool:
    """Whether the access is at the stage's own point in its leading axes, in all of them, or in the last one alone."""
    axes = tuple(Var(name=a.name) for a in stage.axes)
    plain = load.boundary is None and load.mask is None
    return plain and (load.index in (axes, axes[:-1], axes[-1:]) or not variables(load.index) & {a.name for a in stage.axes})


def short_row_steps(stage: Map, period: int, *, threads: bool) -> list[Step]:
    name = stage.name
    fused, steps = all_fused(name, [a.name for a in stage.axes])
    if threads:
        steps += [Split(stage=name, axis=fused, factor=BLOCK // period * period), Parallel(stage=name, axis=f"{fused}.o")]
        fused = f"{fused}.i"
    return [*steps, Split(stage=name, axis=fused, factor=period), Vector(stage=name, axis=f"{fused}.i")]
