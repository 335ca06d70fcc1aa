"""`unroll(i.i)`, `unroll(k.i.o, 4)`; Halide: unroll."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Kernel
from tridsl.schedule.nest import find_loop, replace_loop, require_serial, trip_bound
from tridsl.schedule.steps import Unroll
from tridsl.structs import replace

LIMIT = 64
"""Copies of a body. More would only cost compile time and instruction cache."""


def unroll(kernel: Kernel, step: Unroll, spec: DeviceSpec) -> Kernel:
    """
    before:  for i.i < 12: body                after:   unroll i.i < 12: body
    before:  for k < K reduce: body            after:   for k < K reduce, 4 a turn: body                 unroll(k, 4)

    Legal for every serial loop of at most 64 iterations (E0403). A loop without a constant bound stays serial: a size that
    becomes `dyn` later must not break a schedule that was legal for known sizes. With a number, for every serial loop: it stays one, and the
    target's compiler puts so many iterations (E0403: 2 to 64) into one turn of it, and those that are over behind it.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "unroll", step.span)
    trips = trip_bound(loop)
    if step.factor is not None:
        if not 2 <= step.factor <= LIMIT:
            raise error("E0403", f"{step.factor} iterations cannot be one turn of `{step.axis}`", step.span, help=f"say 2 to {LIMIT}: `.unroll({step.axis}, 4)`")
        factor = step.factor
        return replace_loop(kernel, loop.var, lambda found: replace(found, unrolled=factor))
    if trips is not None and trips > LIMIT:
        raise error(
            "E0403",
            f"`{step.axis}` has up to {trips} iterations, more than the {LIMIT} that may be unrolled",
            step.span,
            help=f"`.unroll({step.axis}, 8)`, or `.split({step.axis}, 8)` and unroll `{step.axis}.i`",
        )
    if trips is None:
        return kernel
    return replace_loop(kernel, loop.var, lambda found: replace(found, kind="unroll"))
