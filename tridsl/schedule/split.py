"""`split(k, 256)`; Exo: divide_loop, Halide: split."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import constant, simplify_index
from tridsl.ir.expr import Load, Var, add, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Append, Copy, For, Kernel, Store
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.schedule.nest import find_loop, replace_loop, require_serial, trip_bound
from tridsl.schedule.steps import BlockBy, Split
from tridsl.structs import replace


def split(kernel: Kernel, step: Split, spec: DeviceSpec) -> Kernel:
    """
    before:  for k < K: body(k)
    after:   for k.o < ceil(K / 256): for k.i < min(256, K - k.o*256): body(k.o*256 + k.i)

    Legal for every serial loop; the order of iterations is kept. The tail is in the inner extent. With `tail=shift` it is body(min(k.o*256,
    K - 256) + k.i) for k.i < 256, so that every tile is whole; legal where iterations write what they read from other stages, however often.
    E0403: the factor is not a positive integer. E0404: the loop is no longer serial. E0495: its last tile cannot begin earlier.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "split", step.span)
    if step.factor < 1:
        raise error("E0403", f"cannot split `{step.axis}` by {step.factor}", step.span, help="a factor is a positive integer")
    if step.tail is not None:
        _require_repeatable(kernel, loop, step)
    return replace_loop(kernel, loop.var, lambda found: divide(found, step.factor, shift=step.tail is not None))


def require_shift(loop: For, step: Split | BlockBy) -> None:
    """E0495 unless the last of the tiles can begin early enough to be whole."""
    count = constant(loop.extent)
    if step.tail != SHIFT:
        raise error("E0495", f"there is no tail `{step.tail}`", step.span, help=f"write tail={SHIFT}, or nothing")
    if count is None or count < step.factor:
        known = "is not known" if count is None else f"has only {count} iterations"
        raise error("E0495", f"no tile of {step.factor} fits into `{step.axis}`, which {known}", step.span, help="choose a smaller factor, or leave out `tail`")


def _require_repeatable(kernel: Kernel, loop: For, step: Split) -> None:
    """E0495 unless iterations that run twice write the same again: they read nothing that the caller or they themselves may have changed."""
    require_shift(loop, step)
    written = {n.target.tensor for n in walk(loop) if isinstance(n, Store)}
    others = [n for n in walk(loop) if isinstance(n, Accumulate | Append | Copy)]
    changing = written | {p.name for p in kernel.params}
    read = next((n.tensor for n in walk(loop) if isinstance(n, Load) and n.tensor in changing), None)
    if loop.reduce or loop.carried or others or read is not None:
        why = f"they read `{read}`" if read is not None else "they go on with what others began"
        raise error("E0495", f"iterations of `{step.axis}` cannot run twice: {why}", step.span, help="shift the tail of a map that reads other stages only")


SHIFT = "shift"


def divide(loop: For, factor: int, *, shift: bool = False) -> For:
    """The two loops that stand for `loop`. `shift`: the last begins early enough to be whole."""
    outer, inner = Var(name=f"{loop.var}.o"), Var(name=f"{loop.var}.i")
    width = index(factor)
    count = constant(loop.extent)
    whole = count is not None and count % factor == 0
    start = mul(outer, width)
    if shift and not whole:
        start, whole = minimum(start, sub(loop.extent, width)), True
        loop = rewrite(loop, {Store: lambda store: replace(store, again=True)})
    body = substitute(loop.body, {loop.var: add(start, inner)})
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
