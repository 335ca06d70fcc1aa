"""`pipeline(1)`; Halide: hoist + async, CUTLASS: stages."""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Copy, For, Kernel
from tridsl.ir.walk import rewrite
from tridsl.schedule.nest import loops_of, stages, unknown_stage
from tridsl.schedule.steps import Pipeline


def pipeline(kernel: Kernel, step: Pipeline, spec: DeviceSpec) -> Kernel:
    """
    before:  for k.o: copy A -> A.shared; …                       pipeline(1)
    after:   for k.o: copy A -> A.shared (buffers = 2); …

    The copies of the innermost loop that has any are fetched `depth` iterations ahead; how (registers, a second buffer, a fifo)
    is the backend's choice. E0403: depth is not 1..3. E0418: nothing is copied in the stage's loops.
    """
    if step.stage not in stages(kernel):
        raise unknown_stage(kernel, step.stage, step.span)
    if not 1 <= step.depth <= 3:
        raise error("E0403", f"cannot fetch {step.depth} iterations ahead", step.span, help="use a depth of 1, 2 or 3")
    holding = [l for l in loops_of(kernel, step.stage) if any(isinstance(s, Copy) for s in l.body)]
    if not holding:
        raise error(
            "E0418", f"no copy stands in the loops of `{step.stage}`", step.span, help="use `.pack(…)` or `.store(…)` on its inputs first"
        )
    innermost = holding[-1]

    def deepen(loop: For) -> For:
        if loop.var != innermost.var:
            return loop
        return replace(loop, body=tuple(replace(s, buffers=step.depth + 1) if isinstance(s, Copy) else s for s in loop.body))

    return replace(kernel, phases=rewrite(kernel.phases, {For: deepen}))


