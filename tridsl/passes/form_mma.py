"""Loops that a schedule marked with an instruction become one `Mma` node.

    unroll i.i: vector j.i < 32: for k.i < 4: acc[i.i, j.i] += i32(A.pack[…, k.i]) * i32(B.pack[…, j.i, k.i])  by vpdpbssd
    ->   unroll i.i: mma vpdpbssd (j.i < 32, k.i < 4) acc[i.i, j.i] += A.pack[…] * B.pack[…]

Where a tail left the loops with another shape, or an operand is read under a mask (`pad` without a panel), the mark is dropped and
the loops stay: slower, never wrong.
"""

from __future__ import annotations

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.ir.expr import Const, Expr, Load
from tridsl.ir.loop import Accumulate, For, Kernel, Mma
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.schedule.intrin import factors_of
from tridsl.structs import replace


def form_mma(kernel: Kernel) -> Kernel:
    """Collapses every marked nest whose loops have the instruction's constant extents."""
    formed = rewrite(kernel.phases, {For: _collapse})
    return replace(kernel, phases=rewrite(formed, {Accumulate: lambda a: replace(a, intrinsic=None) if a.intrinsic else a}))


def _collapse(loop: For) -> For | Mma:
    nest, statement = _perfect(loop)
    if statement is None or statement.intrinsic is None:
        return loop
    row = INTRINSICS[statement.intrinsic]
    *free, depth = nest
    if len(nest) != row.loops or not all(isinstance(l.extent, Const) for l in nest):
        return loop
    if not depth.reduce or any(l.reduce for l in free) or (row.lanes and free[0].kind != "vector"):
        return loop  # steps behind `intrin` divided or exchanged its loops
    shape = tuple((l.var, int(l.extent.value)) for l in nest if isinstance(l.extent, Const))
    factors = factors_of(statement, row)
    if any(isinstance(n, Load) and n.mask is not None for n in walk(statement.values)):
        return loop
    if factors is None or not row.fits([n for _, n in shape]) or statement.mask is not None or statement.init:
        return loop
    a, b = _sides(factors, row, nest[0].var)
    return Mma(intrinsic=row.name, axes=shape, target=statement.targets[0], a=a, b=b, span=statement.span)


def _perfect(loop: For) -> tuple[list[For], Accumulate | None]:
    nest = [loop]
    while len(nest[-1].body) == 1:
        inner = nest[-1].body[0]
        if isinstance(inner, Accumulate):
            return nest, inner
        if not isinstance(inner, For):
            break
        nest.append(inner)
    return nest, None


def _sides(factors: tuple[Expr, Expr], row: Intrinsic, lane: str) -> tuple[Expr, Expr]:
    """The operand that the lanes walk is `b`, and without lanes the one that the rows of the result (`lane`) walk is `a`, as the row's shape has it;
    possible where both have one type."""
    a, b = factors
    walks = lane in variables(a)
    return (b, a) if walks is row.lanes and row.a == row.b else (a, b)
