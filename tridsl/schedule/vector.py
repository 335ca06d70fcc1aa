"""`vector(j.i)`; Halide: vectorize."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Append, For, Kernel
from tridsl.ir.scans import scan_of
from tridsl.ir.walk import walk
from tridsl.schedule.nest import axis_of, enclosing, find_loop, replace_loop, require_serial
from tridsl.schedule.slots import slots_in_lanes
from tridsl.schedule.steps import Vector
from tridsl.structs import replace


def vector(kernel: Kernel, step: Vector, spec: DeviceSpec) -> Kernel:
    """
    before:  for j < N: body
    after:   vector j < N: body

    Any extent: `strip_vectors` cuts it into registers with a masked tail. A reduced axis is legal, lanes hold partial results
    that are combined at the end; along a scan they combine among themselves first; the slots of a top-k shift a vector at a time once they lie in a
    core's memory (`schedule.slots`). E0405: a vector or parallel loop inside, or a vector loop around. E0408: carried
    iterations (the innermost loop of a compaction is legal, its lanes append in order), and iterations that append to lists of their own.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "vector", step.span)
    if (whole := slots_in_lanes(kernel, step.stage, loop, spec)) is not None:
        return whole
    inner = [n for s in loop.body for n in walk(s)]
    appends = any(isinstance(n, Append) for n in inner) and not any(isinstance(n, For) and n.carried for n in inner)
    if loop.carried and not appends and scan_of(loop) is None:
        raise error(
            "E0408",
            f"`{step.axis}` cannot be a vector loop: each iteration needs the one before",
            step.span,
            help="choose another axis; `order=seq` and user monoids keep their order",
        )
    if not loop.carried and any(isinstance(n, Append) for n in inner):
        raise error(
            "E0408", f"`{step.axis}` cannot be a vector loop: each iteration appends to a list of its own",
            step.span, help="choose the loop over the elements of one list",
        )  # fmt: skip
    around = [l for l in enclosing(kernel, loop.var) if l.kind == "vector"]
    inside = [n for s in loop.body for n in walk(s) if isinstance(n, For) and n.kind in ("vector", "parallel")]
    for other in (*around, *inside):
        raise error(
            "E0405",
            f"`{step.axis}` cannot be a vector loop: the {other.kind} loop `{axis_of(other.var)}` is {'around' if around else 'inside'} it",
            step.span,
            help="one loop of a nest is the vector loop; unroll the other",
        )
    return replace_loop(kernel, loop.var, lambda found: replace(found, kind="vector"))
