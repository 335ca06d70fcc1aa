"""`split(k, 256)`; Exo: divide_loop, Halide: split."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import constant, simplify_index
from tridsl.ir.expr import Var, add, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import For, Kernel
from tridsl.ir.walk import substitute
from tridsl.schedule.nest import find_loop, replace_loop, require_serial, trip_bound
from tridsl.schedule.steps import Split
from tridsl.structs import replace


def split(kernel: Kernel, step: Split, spec: DeviceSpec) -> Kernel:
    """
    before:  for k < K: body(k)
    after:   for k.o < ceil(K / 256): for k.i < min(256, K - k.o*256): body(k.o*256 + k.i)

    Legal for every serial loop; the order of iterations is kept. The tail is in the inner extent.
    E0403: the factor is not a positive integer. E0404: the loop is no longer serial.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "split", step.span)
    if step.factor < 1:
        raise error("E0403", f"cannot split `{step.axis}` by {step.factor}", step.span, help="a factor is a positive integer")
    return replace_loop(kernel, loop.var, lambda found: divide(found, step.factor))


def divide(loop: For, factor: int) -> For:
    """The two loops that stand for `loop`."""
    outer, inner = Var(name=f"{loop.var}.o"), Var(name=f"{loop.var}.i")
    width = index(factor)
    body = substitute(loop.body, {loop.var: add(mul(outer, width), inner)})
    count = constant(loop.extent)
    whole = count is not None and count % factor == 0
    extent = width if whole else minimum(width, simplify_index(sub(loop.extent, mul(outer, width))))
    trips = trip_bound(loop)
    within = replace(loop, var=inner.name, extent=extent, bound=factor, body=body)
    return replace(
        loop,
        var=outer.name,
        extent=simplify_index(ceildiv(loop.extent, width)),
        bound=None if trips is None else -(-trips // factor),
        body=(within,),
    )
