"""A loop whose last iteration has a shorter register tile gets a body of its own for it.

    for i.o < 43: … for k: unroll i.i < min(12, 512 - i.o*12): acc[i.i] += A[i.o*12 + i.i, k] * …
    ->  for i.o < 43: if i.o < 42: … for k: unroll i.i < 12: …   else: … for k: unroll i.i < 8: …

Rows of a panel are padded and may be computed for nothing; rows of a tensor may not even be read, and a question about each of them in
the innermost loop costs more than the rows. Both bodies have constant tiles.
"""

from __future__ import annotations

from tridsl.ir.affine import Interval, interval
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, binary, index
from tridsl.ir.loop import Accumulate, Alloc, Copy, For, If, Kernel, Phase
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.passes.simplify import simplify
from tridsl.structs import replace

TAIL = ".tail"
"""What the names of a last iteration's own body end with."""
LIMIT = 400
"""Statements and expressions of a body up to which copying it is worth while."""


def version_tails(kernel: Kernel) -> Kernel:
    """Every such loop of constant extent."""
    panels = {n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    ranges: dict[str, Interval] = {}
    for loop in (n for p in kernel.phases for n in walk(p) if isinstance(n, For)):  # parents first
        high = [n for n in (interval(loop.extent, ranges)[1], loop.bound) if n is not None]
        ranges[loop.var] = (0, max(0, min(high) - 1) if high else None)
    versioned = tuple(
        p if _may_be_empty(p, ranges) else rewrite(p, {For: lambda loop: _version(loop, panels)}) for p in kernel.phases
    )
    return simplify(replace(kernel, phases=versioned)) if versioned != kernel.phases else kernel


def _may_be_empty(phase: Phase, ranges: dict[str, Interval]) -> bool:
    """Whether a reduction may have no term: its result is then started outside its loops, from one place."""
    return any(isinstance(n, For) and n.reduce and (interval(n.extent, ranges)[0] or 0) < 1 for n in walk(phase))


def _version(loop: For, panels: set[str]) -> For:
    if loop.kind not in ("serial", "parallel") or loop.reduce or not isinstance(loop.extent, Const):
        return loop
    count = int(loop.extent.value)
    if count < 2 or not any(_asks(n, loop, count, panels) for s in loop.body for n in walk(s)):
        return loop
    parts = [n for s in loop.body for n in walk(s)]
    if len(parts) > LIMIT or any(isinstance(n, Copy | If) for n in parts):
        return loop
    here = Var(name=loop.var)
    last = fresh(substitute(loop.body, {loop.var: index(count - 1)}), TAIL)
    most = rewrite(loop.body, {Binary: lambda e: _unclamped(e, loop.var, count)})
    return replace(loop, body=(If(condition=binary("lt", here, index(count - 1)), then=most, otherwise=last),))


def _asks(node: object, loop: For, count: int, panels: set[str]) -> bool:
    """A reduction over a tile that is whole but in the last iteration, from memory that ends there."""
    if not isinstance(node, For) or not node.reduce:
        return False
    rows = [n for n in walk(node) if isinstance(n, For) and n.kind == "unroll" and loop.var in variables(n.extent)]
    read = [n for s in rows for n in walk(s) if isinstance(n, Load) and n.tensor not in panels and any(r.var in variables(n) for r in rows)]
    whole = all(isinstance(_in_all_but_the_last(r.extent, loop.var, count), Const) for r in rows)
    return bool(rows and read and whole) and any(isinstance(n, Accumulate) for n in walk(node))


def _in_all_but_the_last(extent: Expr, variable: str, count: int) -> Expr:
    return _unclamped(extent, variable, count) if isinstance(extent, Binary) else extent


def _unclamped(expression: Binary, variable: str, count: int) -> Expr:
    """A minimum with a constant that is the constant before the last iteration."""
    constant, other = expression.a, expression.b
    if expression.op != "min" or not isinstance(constant, Const) or variables(other) != {variable}:
        return expression
    low, _ = interval(other, {variable: (0, count - 2)})
    return constant if low is not None and low >= int(constant.value) else expression
