"""Copies become loops, for devices that have nothing better.

The innermost loop runs where both sides are contiguous, as a vector loop (unless one is around it already); when they are
contiguous along different axes (a transposing pack) it runs along the source, with scalar stores: strided reads would miss a
cache line each.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.dtypes import compute_type
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Cast, Const, Expr, Load, Var, add, index, sub
from tridsl.ir.loop import Block, Copy, CopyAxis, For, Kernel, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, variables


def expand_copies(kernel: Kernel) -> Kernel:
    """Expands every copy that is not cooperative."""
    contiguous = {
        p.name: p.strides is None or (bool(p.strides) and p.strides[-1] == index(1)) for p in kernel.params if isinstance(p, Tensor)
    }

    def expand(copy: Copy, in_lanes: bool) -> Copy | Block:
        return copy if copy.cooperative else _expand(copy, contiguous.get(copy.source.tensor, True), in_lanes)

    def lanes(loop: For) -> For:
        """Copies inside a vector loop: each lane makes its own, one element at a time."""
        return rewrite(loop, {Copy: lambda copy: expand(copy, True)}) if loop.kind == "vector" else loop

    phases = rewrite(kernel.phases, {For: lanes})
    return replace(kernel, phases=rewrite(phases, {Copy: lambda copy: expand(copy, False)}))


def _expand(copy: Copy, contiguous: bool, in_lanes: bool) -> Block:
    last = copy.axes[-1].var if copy.axes else ""
    along = _contiguous_axis(copy.source.index) if contiguous else None
    axes = list(copy.axes)
    vector = along is not None and along == last and not in_lanes
    if along is not None and not vector and _movable(along, axes):
        axes.sort(key=lambda axis: axis.var == along)
    return _nest(copy, axes, vector, {}, False)


def _contiguous_axis(place: tuple[Expr, ...]) -> str | None:
    """The copy variable along which the source's last axis advances by one."""
    if not place:
        return None
    poly = normal_form(place[-1])
    steps = [m[0].name for m, c in poly.terms if c == 1 and len(m) == 1 and isinstance(m[0], Var)]
    others = {v for i in place[:-1] for v in variables(i)}
    inner = [v for v in steps if v not in others]
    return inner[-1] if inner else None


def _movable(variable: str, axes: list[CopyAxis]) -> bool:
    """No other axis's extent mentions it, so it may go innermost."""
    return not any(variable in variables(axis.extent) for axis in axes)


def _nest(copy: Copy, axes: list[CopyAxis], vector: bool, done: dict[str, Expr], filling: bool) -> Block:
    if not axes:
        value: Expr = copy.source
        if filling:
            assert copy.pad is not None
            value = copy.pad
        if isinstance(value, Load) and compute_type(value.dtype) != value.dtype:
            value = Cast(a=value, dtype=compute_type(value.dtype))
        elif isinstance(value, Const) and compute_type(value.dtype) != value.dtype:
            value = replace(value, dtype=compute_type(value.dtype))
        return (substitute(Store(target=copy.target, value=value), done),)
    axis, rest = axes[0], axes[1:]
    kind = "vector" if vector and not rest else "serial"
    suffix = ".fill" if filling else ""
    name = f"{axis.var}{suffix}"
    if filling:
        extent = index(axis.bound) if axis.bound is not None else substitute(axis.extent, done)
        inner = _nest(copy, rest, vector, {**done, axis.var: Var(name=name)}, True)
        return (For(var=name, extent=extent, bound=axis.bound, kind=kind, body=inner),)  # type: ignore[arg-type]
    extent = substitute(axis.extent, done)
    inner = _nest(copy, rest, vector, {**done, axis.var: Var(name=name)}, False)
    loops: list[For] = [For(var=name, extent=extent, bound=axis.bound, kind=kind, body=inner)]  # type: ignore[arg-type]
    if axis.bound is not None and copy.pad is not None and extent != index(axis.bound):
        tail = f"{axis.var}.pad"
        beyond = _nest(copy, [replace(a, var=a.var) for a in rest], vector, {**done, axis.var: add(extent, Var(name=tail))}, True)
        beyond = _renamed(beyond, f".{len(axes)}")
        loops.append(For(var=tail, extent=sub(index(axis.bound), extent), bound=axis.bound, kind=kind, body=beyond))  # type: ignore[arg-type]
    return tuple(loops)


def _renamed(block: Block, suffix: str) -> Block:
    """Fill loops of different tails need names of their own."""
    def rename(loop: For) -> For:
        return replace(loop, var=loop.var + suffix, body=substitute(loop.body, {loop.var: Var(name=loop.var + suffix)}))

    return rewrite(block, {For: rename})
