"""`B.pack(at=k.o, interleave=4)`; oneDNN's name for the layout: VNNI, `…16b4a`."""

from __future__ import annotations

from tridsl.diagnostics import TriError, error
from tridsl.ir.affine import constant
from tridsl.ir.expr import Binary, Expr, Load, Var, index
from tridsl.ir.loop import Alloc, Copy, CopyAxis, For, Kernel, Ref
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.nest import axis_of
from tridsl.schedule.split import divide
from tridsl.schedule.steps import Pack
from tridsl.structs import replace


def interleave(kernel: Kernel, panel: str, step: Pack) -> Kernel:
    """
    before:  alloc B.pack: i8[16, 64];     … B.pack[j.i, k.i] …                                     interleave=4
    after:   alloc B.pack: i8[16, 16, 4];  … B.pack[k.i // 4, j.i, k.i % 4] …

    The innermost axis is cut into groups that stay together, and the one before it walks from group to group: rows of the panel hold
    four terms of the sum for each column, which is how instructions for blocks (AMX) want the right factor. E0490: the panel has one
    axis only, or the innermost is no multiple of the group; or its axes lie as the tensor's (`rows`).
    """
    buffer = next(n.buffer for n in _allocations(kernel) if n.buffer.name == panel)
    group = step.interleave
    if step.rows:
        raise _refused(step, "its axes lie as the tensor's")
    width = constant(buffer.shape[-1]) if buffer.shape else None
    if group < 1 or len(buffer.shape) < 2 or width is None or width % group:
        raise _refused(step, f"its innermost axis has {width or 'no'} elements" if len(buffer.shape) > 1 else "it has fewer than two axes")

    def groups(place: tuple[Expr, ...]) -> tuple[Expr, ...]:
        *outer, across, along = place
        number, within = (Binary(op=op, a=along, b=index(group), dtype=along.dtype) for op in ("floordiv", "mod"))
        return (*outer, number, across, within)

    def allocated(node: Alloc) -> Alloc:
        if node.buffer.name != panel:
            return node
        *outer, across, _ = buffer.shape
        shape = (*outer, index(width // group), across, index(group))
        return replace(node, buffer=replace(buffer, shape=shape, padded=(True,) * len(shape)))

    def filled(copy: Copy) -> Copy:
        if copy.target.tensor != panel:
            return copy
        *outer, across, along = copy.axes
        rest = replace(copy, target=Ref(tensor=panel, index=copy.target.index[:-1]))
        first = divide(For(var=along.var, extent=along.extent, bound=along.bound, body=(rest,)), group)
        (second,) = first.body
        assert isinstance(second, For) and isinstance(second.body[0], Copy)
        number, within = (CopyAxis(var=loop.var, extent=loop.extent, bound=loop.bound) for loop in (first, second))
        place = (*rest.target.index[:-1], Var(name=number.var), rest.target.index[-1], Var(name=within.var))
        return replace(
            copy, axes=(*outer, number, across, within), target=Ref(tensor=panel, index=place), source=second.body[0].source
        )  # fmt: skip

    def read(load: Load) -> Load:
        return replace(load, index=groups(load.index)) if load.tensor == panel else load

    return replace(kernel, phases=rewrite(kernel.phases, {Alloc: allocated, Copy: filled, Load: read}))


def _allocations(kernel: Kernel) -> list[Alloc]:
    return [n for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)]


def _refused(step: Pack, why: str) -> TriError:
    return error(
        "E0490", f"the panel of `{step.stage}` at `{axis_of(step.at)}` cannot be interleaved by {step.interleave}: {why}", step.span,
        help="split the innermost loop by a multiple of the group, inside a loop that the access mentions too",
    )  # fmt: skip
