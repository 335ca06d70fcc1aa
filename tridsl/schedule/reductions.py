"""How the loops of one reduction that is no contraction run on a device with vectors."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.op import Reduce
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.contraction import DEEP, WIDE, sweep_columns
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Order, Split, Step, Vector


def reduce_steps(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, whole: bool) -> list[Step]:
    """Vector along the contiguous axis: a reduced one holds partial results, an output one is tiled around the reduction."""
    over = [a.name for a in stage.over]
    axes = [a.name for a in stage.axes]
    loads = [n for v in stage.values for n in walk(v) if isinstance(n, Load)]
    votes = [unit_stride_axis(n) for n in loads]
    best = max((v for v in votes if v in over or v in axes), key=votes.count, default=over[-1])
    best = decide(f"{stage.name}.vector", best, (over[-1], *axes[-1:]), "the axis along which vectors lie")
    if best in over:
        return [Vector(stage=stage.name, axis=best)]
    lanes = spec.lanes(stage.reducer.dtypes[0])
    width = decide(f"{stage.name}.columns", 64, (n * lanes for n in (1, 2, 4, 8, 16)), "columns reduced at the same time")
    deep, wide = extent_of(stage.over[-1], sizes), extent_of(next(a for a in stage.axes if a.name == best), sizes)
    if (deep or 0) >= DEEP and (wide or 0) >= WIDE and whole:
        return sweep_columns(stage, best, threads=False)
    return _column_steps(stage, best, width)


def _column_steps(stage: Reduce, axis: str, width: int) -> list[Step]:
    over = [a.name for a in stage.over]
    return [
        Split(stage=stage.name, axis=axis, factor=width),
        Order(stage=stage.name, axes=(f"{axis}.o", *over, f"{axis}.i")),
        Vector(stage=stage.name, axis=f"{axis}.i"),
    ]
