"""Index expressions in normal form, and everything that the loops' ranges decide, decided.

    for i.o < 32: for i.i < min(32, 1024 - i.o*32): x[i.o*32 + i.i]     ->    … for i.i < 32: …
    x[max(0, min(i, N - 1))] with i < N                                 ->    x[i]
"""

from __future__ import annotations

from tridsl.dtypes import INDEX
from tridsl.ir.affine import Interval, fold_ranges, interval, simplify_index
from tridsl.ir.expr import Binary, Boundary, Cast, Const, Expr, Load, Node, Select, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Copy, CopyAxis, For, If, Kernel, Mma, Ref, Stmt
from tridsl.ir.value_ranges import fits
from tridsl.ir.walk import map_children, substitute, walk
from tridsl.structs import replace

Ranges = dict[str, Interval]


def simplify(kernel: Kernel) -> Kernel:
    """Folds expressions; removes loops of no iteration and dissolves loops of one.

    A reduce loop is kept as long as an `init` hangs on it (even a sum over nothing has a value).
    """
    sizes: Ranges = dict.fromkeys(kernel.sizes, (0, None))
    phases = tuple(replace(p, body=_block(p.body, sizes)) for p in kernel.phases)
    phases = tuple(p for p in phases if p.body)
    return replace(kernel, phases=phases) if phases != kernel.phases else kernel


def _block(block: Block, ranges: Ranges) -> Block:
    out: list[Stmt] = []
    for statement in block:
        out += _statement(statement, ranges)
    return () if all(isinstance(s, Alloc) for s in out) else tuple(out)  # storage of loops that are gone


def _statement(statement: Stmt, ranges: Ranges) -> Block:
    if isinstance(statement, For):
        return _loop(statement, ranges)
    if isinstance(statement, If):
        condition = _fold(statement.condition, ranges)
        if isinstance(condition, Const):
            return _block(statement.then if condition.value else statement.otherwise, ranges)
        then, otherwise = _block(statement.then, ranges), _block(statement.otherwise, ranges)
        return (replace(statement, condition=condition, then=then, otherwise=otherwise),) if then or otherwise else ()
    if isinstance(statement, Copy):
        inner = dict(ranges)
        axes: list[CopyAxis] = []
        for axis in statement.axes:
            extent = _fold(axis.extent, inner)
            full = axis.bound is not None and extent == index(axis.bound)
            axes.append(replace(axis, extent=extent, bound=None if full else axis.bound))
            inner[axis.var] = _range(extent, axis.bound, inner)
        whole: Ranges = {**inner, **{a.var: (0, a.bound - 1) for a in axes if a.bound is not None}}  # a panel has places for what is not copied too
        beyond = whole if statement.pad is None else inner
        source = map_children(statement.source, lambda part: part if isinstance(part, Boundary) else _fold(part, beyond))  # an access even where nothing is inside
        folded = _children(replace(statement, axes=tuple(axes)), whole)
        assert isinstance(folded, Copy)
        return (replace(folded, source=source),)
    if isinstance(statement, Mma):
        return (_children(statement, {**ranges, **{v: (0, n - 1) for v, n in statement.axes}}),)
    return (_children(statement, ranges),)


def _loop(loop: For, ranges: Ranges) -> Block:
    extent = _fold(loop.extent, ranges)
    holds_init = loop.reduce and any(isinstance(n, Accumulate) and n.init for s in loop.body for n in walk(s))
    if isinstance(extent, Const) and not holds_init:
        if int(extent.value) <= 0:
            return ()
        if int(extent.value) == 1 and loop.binding is None:
            return _block(substitute(loop.body, {loop.var: index(0)}), ranges)
    inner = {**ranges, loop.var: _range(extent, loop.bound, ranges)}
    body = _block(loop.body, inner)
    if not body:
        return ()
    bound = _bound(loop, int(extent.value)) if isinstance(extent, Const) else loop.bound
    if bound is None:
        bound = interval(extent, ranges)[1]
    return (replace(loop, extent=extent, bound=bound, body=body),)


def _bound(loop: For, extent: int) -> int:
    """Iterations of a constant loop; a vector loop keeps a power of two of lanes, with a mask for what is over."""
    if loop.kind != "vector" or loop.bound is None:
        return extent
    lanes = 1
    while lanes < extent:
        lanes *= 2
    return min(lanes, loop.bound) if loop.bound >= extent else extent


def _range(extent: Expr, bound: int | None, ranges: Ranges) -> Interval:
    high = interval(extent, ranges)[1]
    known = [n for n in (high, bound) if n is not None]
    return 0, max(0, min(known) - 1) if known else None


def _children(statement: Stmt, ranges: Ranges) -> Stmt:
    def visit(node: Node) -> Node:
        if isinstance(node, Ref):
            return replace(node, index=tuple(_fold(i, ranges) for i in node.index))
        return _fold(node, ranges) if hasattr(node, "dtype") else node  # type: ignore[arg-type]

    return map_children(statement, visit)


def _fold(expression: Expr, ranges: Ranges) -> Expr:
    """Decide by ranges, then bring index parts into normal form."""
    decided = fold_ranges(expression, ranges)
    return _tidy(decided) if not isinstance(decided, Const) else decided


def _tidy(expression: Expr) -> Expr:
    if expression.dtype == INDEX and isinstance(expression, Binary) and expression.op in ("add", "sub", "mul"):
        return simplify_index(expression)
    new = map_children(expression, lambda child: _tidy(child) if hasattr(child, "dtype") else child)
    if isinstance(new, Load) and isinstance(new.mask, Const):
        if new.mask.value:
            return replace(new, mask=None, other=None)
        assert new.other is not None
        return new.other
    if isinstance(new, Select) and isinstance(new.condition, Const):
        return new.a if new.condition.value else new.b
    if isinstance(new, Cast) and isinstance(new.a, Cast) and _changes_nothing(new.a):
        return replace(new, a=new.a.a) if new.a.a.dtype != new.dtype else new.a.a
    return new


def _changes_nothing(cast: Cast) -> bool:
    """Whether an integer keeps its value in the type it is cast to."""
    return cast.dtype.is_integer and cast.a.dtype.is_integer and fits(cast.a, cast.dtype)
