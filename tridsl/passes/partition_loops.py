"""Split loops where clamps, masks and tails change, so that the long middle part has none. Halide: loop partitioning.

    for n.v < 120: vector w: x[max(0, n.v*16 + w - 1)]     ->    for n.v < 1: … max …
                                                                 for n.v < 119: vector w: x[(n.v + 1)*16 + w - 1]

Applied to loops directly around vector or unrolled work, where a condition costs a mask or a gather; outer loops evaluate
their clamps once a row, which costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from tridsl.dtypes import INDEX
from tridsl.ir.affine import Interval, interval, normal_form, to_expression
from tridsl.ir.expr import Binary, Const, Expr, Var, add, index, sub
from tridsl.ir.loop import Block, CopyAxis, For, If, Kernel, Stmt
from tridsl.ir.walk import substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.structs import replace

LIMIT = 400
"""Statements and expressions of a body up to which copying it is worth while."""


def partition_loops(kernel: Kernel) -> Kernel:
    """Partitions the innermost loops of constant extent."""
    ranges: dict[str, Interval] = dict.fromkeys(kernel.sizes, (0, None))
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body, ranges)) for p in kernel.phases))


def _block(block: Block, ranges: dict[str, Interval]) -> Block:
    out: list[Stmt] = []
    for statement in block:
        if isinstance(statement, For):
            extent = interval(statement.extent, ranges)[1]
            known = [n for n in (extent, statement.bound) if n is not None]
            inner = {**ranges, statement.var: (0, max(0, min(known) - 1) if known else None)}
            body = _block(statement.body, inner)
            out += _partition(replace(statement, body=body), inner)
        elif isinstance(statement, If):
            out.append(replace(statement, then=_block(statement.then, ranges), otherwise=_block(statement.otherwise, ranges)))
        else:
            out.append(statement)
    return tuple(out)


def _partition(loop: For, ranges: dict[str, Interval]) -> Block:
    if loop.kind != "serial" or not isinstance(loop.extent, Const) or not _around_straight_work(loop):
        return (loop,)
    extent = int(loop.extent.value)
    if extent < 2 or sum(1 for s in loop.body for _ in walk(s)) > LIMIT:
        return (loop,)
    low, high = 0, extent
    found = False
    for decided in _decided_parts(loop, ranges, extent):
        start, end = max(low, decided[0]), min(high, decided[1])
        if end - start > (high - low) // 2:
            low, high, found = start, end, True
    if not found or (low, high) == (0, extent):
        return (loop,)
    parts: list[Stmt] = []
    for start, end, suffix in ((0, low, ".first"), (low, high, ""), (high, extent, ".last")):
        if end > start:
            piece = replace(loop, extent=index(end - start), bound=end - start)
            piece = replace(piece, body=substitute(piece.body, {loop.var: add(Var(name=loop.var), index(start))}))
            parts += fresh((piece,), suffix) if suffix else (piece,)
    return tuple(parts)


def _around_straight_work(loop: For) -> bool:
    return any(isinstance(n, For) and n.kind in ("vector", "unroll") for s in loop.body for n in walk(s)) and not any(
        isinstance(n, For) and n.kind not in ("vector", "unroll") and not _small(n) for s in loop.body for n in walk(s)
    )


def _small(loop: For) -> bool:
    return isinstance(loop.extent, Const) and int(loop.extent.value) <= 16


def _decided_parts(loop: For, outer: dict[str, Interval], extent: int) -> list[tuple[int, int]]:
    """For each min, max, comparison or division on the variable: the longest part of the range where its answer is fixed."""
    parts: list[tuple[int, int]] = []

    def visit(block: Block, ranges: dict[str, Interval]) -> None:
        for statement in block:
            expressions: list[Expr] = []
            inner = ranges
            if isinstance(statement, For):
                expressions.append(statement.extent)
                size = statement.bound or (int(statement.extent.value) if isinstance(statement.extent, Const) else None)
                inner = {**ranges, statement.var: (0, None if size is None else size - 1)}
                visit(statement.body, inner)
            elif isinstance(statement, If):
                expressions.append(statement.condition)
                visit(statement.then, ranges)
                visit(statement.otherwise, ranges)
            for node in walk(statement) if not isinstance(statement, For | If) else (n for e in expressions for n in walk(e)):
                if isinstance(node, CopyAxis):
                    continue
                if isinstance(node, Binary) and node.op in DECIDED and node.a.dtype == INDEX:
                    part = DECIDED[node.op](_unclamped(node, loop.var), loop.var, inner if isinstance(statement, For) else ranges, extent)
                    if part is not None:
                        parts.append(part)

    visit(loop.body, outer)
    return parts


def _unclamped(node: Binary, variable: str) -> Binary:
    """`max(j - 1, 0)` of `max(min(j - 1, N - 1), 0)`: what it is where the inner clamp is decided, too."""
    inner = node.a
    if node.op not in CLAMPS or not isinstance(inner, Binary) or inner.op not in CLAMPS or inner.op == node.op:
        return node
    free = next((side for side in (inner.a, inner.b) if variable in variables(side)), inner)
    return replace(node, a=free)


def _decided(node: Binary, variable: str, ranges: dict[str, Interval], extent: int) -> tuple[int, int] | None:
    difference = normal_form(sub(node.a, node.b))
    step = difference.coefficient(variable)
    if not step or variable not in variables(node):
        return None
    rest = to_expression(difference.without([variable]))
    low, high = interval(rest, ranges)
    if low is None or high is None:
        return None
    # difference = step*v + rest; decided below where it is <= 0 (< 0 for lt, ge) throughout, above where >= 0 (> 0 for le, gt)
    least, most = (1 if node.op in ("le", "gt") else 0), (1 if node.op in ("lt", "ge") else 0)
    if step > 0:
        below = (0, (-high - most) // step + 1)
        above = (-((low - least) // step), extent)
    else:
        below = (-((-high - most) // -step), extent)
        above = (0, (low - least) // -step + 1)
    best = max((below, above), key=lambda p: min(p[1], extent) - max(p[0], 0))
    start, end = max(best[0], 0), min(best[1], extent)
    return (start, end) if end > start else None


def _one_quotient(node: Binary, variable: str, ranges: dict[str, Interval], extent: int) -> tuple[int, int] | None:
    """The part around the middle in which a division by a constant has one quotient (`(j - 1) % N` is then `j - 1`)."""
    if not isinstance(node.b, Const) or int(node.b.value) <= 0:
        return None
    divisor, form = int(node.b.value), normal_form(node.a)
    step = form.coefficient(variable)
    if not step or step < 0:
        return None
    low, high = interval(to_expression(form.without([variable])), ranges)
    if low is None or high is None:
        return None
    first = (low + step * (extent // 2)) // divisor * divisor
    start, end = max(0, -((low - first) // step)), min(extent, (first + divisor - 1 - high) // step + 1)
    return (start, end) if end > start else None


CLAMPS = ("min", "max")
DECIDED: dict[str, Callable[[Binary, str, dict[str, Interval], int], tuple[int, int] | None]] = {
    **dict.fromkeys((*CLAMPS, "lt", "le", "gt", "ge"), _decided),
    **dict.fromkeys(("floordiv", "mod"), _one_quotient),
}
"""The operations that may have one answer in a part of a loop, and where that is."""
