"""`tile(i=12, j=32)`; Halide: tile."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.loop import Kernel
from tridsl.schedule.nest import axis_of, loops_of
from tridsl.schedule.order import order
from tridsl.schedule.split import split
from tridsl.schedule.steps import Order, Split, Tile


def tile(kernel: Kernel, step: Tile, spec: DeviceSpec) -> Kernel:
    """
    before:  for i: for j: body
    after:   for i.o: for j.o: for i.i < 12: for j.i < 32: body

    Legal when each split is and the loops may be reordered so (E0403, E0404, E0406, E0407).
    """
    for axis, factor in step.sizes:
        kernel = split(kernel, Split(stage=step.stage, axis=axis, factor=factor, span=step.span), spec)
    names = [axis for axis, _ in step.sizes]
    have = [axis_of(loop.var) for loop in loops_of(kernel, step.stage)]
    wanted = [f"{n}.o" for n in names] + [f"{n}.i" for n in names]
    if [a for a in have if a in wanted] == wanted:
        return kernel
    return order(kernel, Order(stage=step.stage, axes=tuple(wanted), span=step.span), spec)
