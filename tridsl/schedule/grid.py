"""`grid(columns=4, rows=4)`: the device array of an NPU."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, ceildiv, index
from tridsl.ir.loop import Kernel
from tridsl.schedule.bind import bind
from tridsl.schedule.nest import axis_of, loops_of, stages, unknown_stage
from tridsl.schedule.split import split
from tridsl.schedule.steps import Bind, Grid, Split

_KINDS = {"columns": "column", "rows": "row"}


def grid(kernel: Kernel, step: Grid, spec: DeviceSpec) -> Kernel:
    """
    before:  for j.o < 32: for i.o < 16: …            grid(columns=4, rows=4)
    after:   column j.o.o < 4: for j.o.i < 8: row i.o.o < 4: for i.o.i < 4: …

    The stage's outermost independent loops are dealt out to columns, then rows, in contiguous parts. E0403: a count is not positive.
    E0413: an axis other than columns and rows. E0419: fewer such loops than axes, or an extent that is not known yet.
    """
    if step.stage not in stages(kernel):
        raise unknown_stage(kernel, step.stage, step.span)
    free = [l for l in loops_of(kernel, step.stage) if l.kind == "serial" and not l.reduce and not l.carried]
    if len(free) < len(step.axes):
        raise error("E0419", f"stage `{step.stage}` has only {len(free)} independent loops", step.span, help="name fewer grid axes")
    for (name, count), loop in zip(step.axes, free):
        if name not in _KINDS:
            raise error("E0413", f"a grid has no `{name}`", step.span, help="use columns and rows")
        if count < 1:
            raise error("E0403", f"a grid cannot have {count} {name}", step.span, help="a count is a positive integer")
        extent = simplify_index(ceildiv(loop.extent, index(count)))
        if not isinstance(extent, Const):
            raise error(
                "E0419", f"the extent of `{axis_of(loop.var)}` is not known, so it cannot be dealt to {count} {name}", step.span,
                help="give the sizes, or split the loop by a constant number of parts",
            )  # fmt: skip
        axis = axis_of(loop.var)
        kernel = split(kernel, Split(stage=step.stage, axis=axis, factor=max(1, int(extent.value)), span=step.span), spec)
        kernel = bind(kernel, Bind(stage=step.stage, axes=((f"{axis}.o", _KINDS[name]),), span=step.span), spec)
    return kernel
