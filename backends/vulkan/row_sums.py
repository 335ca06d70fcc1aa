"""Sums of rows that a loop goes on with, and that are read when it is over: their columns need not be put together before.

    subgroup: for r < 16: l[r] = 0
    for t: … for r: l[r] = l[r] * scale[r] … for r: for c reduce: l[r] += x[r, c]        # (a + b) * s = a*s + b*s
    subgroup: … l[r] …
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tridsl.ir.expr import Binary, Const, Expr, Load, Node
from tridsl.ir.loop import Accumulate, Alloc, Block, For, If, Stmt, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import rewrite, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSum:
    """A sum that begins as 0 at `place` in the loops `start`, the last of which walks the rows, and whose `total` the statement `reader` is the first to read."""

    start: tuple[For, ...]
    place: tuple[Expr, ...]
    reducer: Reducer
    total: str
    reader: Stmt


def row_sums(block: Block, names: frozenset[str]) -> tuple[Block, dict[str, RowSum]]:
    """Those among the buffers `names`, by name, and `block` with their totals in the place of what readers read."""
    found: dict[str, RowSum] = {}

    def visit(inner: Block) -> Block:
        for alloc in [s for s in inner if isinstance(s, Alloc) and s.buffer.name in names]:
            inner = _with_total(inner, alloc.buffer.name, found)
        return tuple(replace(s, body=visit(s.body)) if isinstance(s, For) and not any(s is one.reader for one in found.values()) else s for s in inner)

    return visit(block), found


def _with_total(block: Block, name: str, found: dict[str, RowSum]) -> Block:
    uses = [n for n, s in enumerate(block) if any(getattr(node, "tensor", "") == name for node in walk(s))]
    writing = [n for n in uses if any(_writes(node, name) for node in walk(block[n]))]
    reading = [n for n in uses if n not in writing]
    sums = [node for n in writing for node in walk(block[n]) if isinstance(node, Accumulate) and _writes(node, name)]
    path = next(_stores((block[writing[0]],), name, ()), None) if writing else None
    if not sums or not reading or reading[0] < writing[-1] or path is None or any(s.reducer.op != "add" for s in sums):
        return block
    loops, start = path
    stores = [node for n in writing for node in walk(block[n]) if isinstance(node, Store) and node.target.tensor == name]
    loads = sum(1 for n in writing for node in walk(block[n]) if isinstance(node, Load) and node.tensor == name)
    scaled = [s for s in stores if s is not start and _is_scaled(s, name)]
    if not loops or not isinstance(start.value, Const) or start.value.value != 0 or len(scaled) + 1 < len(stores) or loads != len(scaled):
        return block
    total = f"{name}.total"
    read = {n: rewrite(block[n], {Load: lambda l: replace(l, tensor=total) if l.tensor == name else l}) for n in reading}
    found[name] = RowSum(start=loops, place=start.target.index, reducer=sums[0].reducer, total=total, reader=read[reading[0]])
    return tuple(read.get(n, s) for n, s in enumerate(block))


def _writes(node: Node, name: str) -> bool:
    targets = node.targets if isinstance(node, Accumulate) else (node.target,) if isinstance(node, Store) else ()
    return any(target.tensor == name for target in targets)


def _is_scaled(store: Store, name: str) -> bool:
    """`x[i] = x[i] * y`."""
    value = store.value
    if not isinstance(value, Binary) or value.op != "mul" or store.mask is not None:
        return False
    return any(isinstance(side, Load) and side.tensor == name and side.index == store.target.index for side in (value.a, value.b))


def _stores(block: Block, name: str, around: tuple[For, ...]) -> Iterator[tuple[tuple[For, ...], Store]]:
    """The stores to it, each with the loops around it."""
    for statement in block:
        match statement:
            case For(body=body):
                yield from _stores(body, name, (*around, statement))
            case If(then=then, otherwise=otherwise):
                yield from _stores((*then, *otherwise), name, around)
            case Store(target=target) if target.tensor == name:
                yield around, statement
