"""Unrolled loops whose end is a tail run without it wherever they are whole. Halide: loop partitioning, for the loops of a tile.

    for i.o < 9: for k: unroll i.i < min(8, 68 - i.o*8): …      ->      for i.o < 9: if 8 <= 68 - i.o*8: for k: unroll i.i < 8: …
                                                                                     else: for k: unroll i.i < min(8, 68 - i.o*8): …

Otherwise each row of the tile asks in every round whether it is there. The question moves to the innermost loop that decides the
answer, which may be shared among threads. Where only the last iteration of that loop has a tail, whose length is then known, both bodies
have constant tiles:

    for i.o < 43: for k: unroll i.i < min(12, 512 - i.o*12): …          ->      for i.o < 43: if i.o < 42: for k: unroll i.i < 12: …
                                                                                     else: for k: unroll i.i < 8: …
"""

from __future__ import annotations

from functools import partial

from tridsl.dtypes import INDEX
from tridsl.ir.affine import interval
from tridsl.ir.expr import Binary, Const, Expr, Var, binary, index
from tridsl.ir.loop import Block, For, If, Kernel
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.structs import replace

LIMIT = 100
"""Statements of a body, unrolled, up to which it is written twice."""


def whole_tiles(kernel: Kernel) -> Kernel:
    """Asks once a tile."""
    return replace(kernel, phases=rewrite(kernel.phases, {For: _visit}))


def _visit(loop: For) -> For:
    """Innermost first: what an inner loop decides has been asked there."""
    if loop.kind not in ("serial", "parallel") or loop.carried:
        return loop
    tails = list(dict.fromkeys(t for s in loop.body for n in walk(s) if isinstance(n, For) if (t := _tail(n, loop)) is not None))
    if not tails or _size(loop.body) > LIMIT:
        return loop
    body = loop.body
    for tail in tails:
        body = (_asked(body, tail, loop),)
    return replace(loop, body=body)


def _tail(inner: For, loop: For) -> Binary | None:
    """The extent of an unrolled loop around real work that `loop` decides, and no loop inside it."""
    extent = inner.extent
    if inner.kind != "unroll" or not isinstance(extent, Binary) or extent.op != "min" or loop.var not in variables(extent):
        return None
    bound = {n.var for s in loop.body for n in walk(s) if isinstance(n, For)}
    reduces = any(isinstance(n, For) and n.reduce and n.kind in ("serial", "unroll") and any(m is inner for m in walk(n)) for s in loop.body for n in walk(s))
    return extent if reduces and not bound & variables(extent) and _sides(extent) is not None else None


def _sides(extent: Binary) -> tuple[Const, Expr] | None:
    """The constant and the other side of `min(8, rest)`."""
    if isinstance(extent.a, Const) and extent.a.dtype == INDEX:
        return extent.a, extent.b
    return (extent.b, extent.a) if isinstance(extent.b, Const) and extent.b.dtype == INDEX else None


def _asked(body: Block, tail: Binary, loop: For) -> If:
    sides = _sides(tail)
    assert sides is not None
    whole, rest = sides
    then = rewrite(body, {For: partial(_whole, tail=tail, extent=whole)})
    last = _last(loop, whole, rest)
    if last is None:
        return If(condition=binary("le", whole, rest), then=then, otherwise=fresh(body, ".tail"))
    otherwise = fresh(substitute(body, {loop.var: last}), ".tail")
    return If(condition=binary("lt", Var(name=loop.var), last), then=then, otherwise=otherwise)


def _last(loop: For, whole: Const, rest: Expr) -> Const | None:
    """The last iteration of `loop`, where the tile is whole in all the others."""
    if not isinstance(loop.extent, Const) or variables(rest) != {loop.var}:
        return None
    last = int(loop.extent.value) - 1
    least, _ = interval(rest, {loop.var: (0, last - 1)})
    return index(last) if least is not None and least >= int(whole.value) else None


def _whole(loop: For, tail: Binary, extent: Const) -> For:
    return replace(loop, extent=extent) if loop.extent == tail else loop


def _size(block: Block) -> int:
    """Statements as often as unrolled loops write them."""
    total = 0
    for statement in block:
        if isinstance(statement, For):
            copies = statement.bound or (int(statement.extent.value) if isinstance(statement.extent, Const) else 1)
            total += (copies if statement.kind == "unroll" else 1) * _size(statement.body)
        elif isinstance(statement, If):
            total += _size(statement.then) + _size(statement.otherwise)
        else:
            total += 1
    return total
