"""Sums and the result that they become share a core's memory: `C[i, j] = bf16(sum[i, j])`, walked from the first element to the last.

An element of the result is never wider than its sum, so it is written where sums were that have been read already.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Cast, Const, Expr, Load, add, index, mul
from tridsl.ir.loop import Block, Buffer, Copy, For, Ref, Stmt, Store
from tridsl.ir.walk import walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """`result` lies where `sums` begin. `drain`: the statement that makes one of the other; `same`: it changes nothing, as both have one type."""

    sums: str
    result: str
    drain: Stmt
    same: bool


def shared_in(block: Block, leaving: Mapping[str, Copy], buffers: Mapping[str, Buffer]) -> tuple[Shared, ...]:
    """Pairs of panels among `buffers`, those in memory that `block` allocates. `leaving`: the copies of panels out of the core, by panel."""
    found = []
    for name in leaving:
        result = buffers.get(name)
        writers = [(n, s) for n, s in enumerate(block) if any(isinstance(r, Ref) and r.tensor == name for r in walk(s)) and not isinstance(s, Copy)]
        if result is None or len(writers) != 1:
            continue
        place, drain = writers[0]
        nest, store = _nest(drain)
        if store is None or store.mask is not None:
            continue
        loads = [n for n in walk(store.value) if isinstance(n, Load)]
        for sums in {n.tensor for n in loads} & set(buffers):
            used_later = any(isinstance(n, Load | Ref) and n.tensor == sums for s in block[place + 1 :] for n in walk(s))
            reads = [n for n in loads if n.tensor == sums]
            if used_later or sums in leaving or not _covers(buffers[sums], result):
                continue
            if all(_behind(nest, store.target, result, n, buffers[sums]) for n in reads):
                same = buffers[sums].dtype == result.dtype and _plain(store.value, buffers[sums])
                found.append(Shared(sums=sums, result=name, drain=drain, same=same))
                break
    return tuple(found)


def _nest(statement: Stmt) -> tuple[tuple[For, ...], Store | None]:
    nest: list[For] = []
    while isinstance(statement, For) and len(statement.body) == 1 and isinstance(statement.extent, Const):
        nest.append(statement)
        statement = statement.body[0]
    return tuple(nest), statement if isinstance(statement, Store) else None


def _covers(sums: Buffer, result: Buffer) -> bool:
    return sums.space == result.space and sums.shape == result.shape and sums.dtype.storage_bytes >= result.dtype.storage_bytes


def _behind(nest: tuple[For, ...], target: Ref, result: Buffer, load: Load, sums: Buffer) -> bool:
    """Whether each element is read where it is written, in the order of memory."""
    here, there = (normal_form(_address(b, at)) for b, at in ((result, target.index), (sums, load.index)))
    if here != there or load.mask is not None:
        return False
    moving = [(here.coefficient(loop.var), int(loop.extent.value)) for loop in nest if isinstance(loop.extent, Const) and int(loop.extent.value) > 1]
    if len(here.terms) != len(moving):
        return False
    reach = 0
    for factor, count in reversed(moving):
        if factor is None or factor <= reach:
            return False
        reach += factor * (count - 1)
    return True


def _address(buffer: Buffer, at: tuple[Expr, ...]) -> Expr:
    total: Expr = index(0)
    for i, n in zip(at, buffer.shape):
        total = add(mul(total, n), i)
    return total


def _plain(value: Expr, sums: Buffer) -> bool:
    """Whether `value` is the sum itself, widened at most on the way."""
    while isinstance(value, Cast) and value.dtype.is_float == sums.dtype.is_float and value.dtype.storage_bytes >= sums.dtype.storage_bytes:
        value = value.a
    return isinstance(value, Load) and value.tensor == sums.name
