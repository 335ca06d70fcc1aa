"""The blocks that panels of a core's memory are made of: those of a matrix instruction's operands, and registers whose sides are exchanged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Cast, Expr, Load
from tridsl.ir.loop import Accumulate, For, Phase, Ref, Store
from tridsl.ir.walk import variables, walk
from tridsl.schedule.intrin import factors_of
from tridsl.schedule.nest import trip_bound
from tridsl.schedule.panel_accesses import Access

REGISTER_BYTES = (64, 128)
"""What a core's functions hold in one register, or in two side by side."""


def blocks_of(phase: Phase, accesses: Sequence[tuple[str, Access]]) -> dict[str, dict[int, int]]:
    """Of each tensor that has some: by axis, in the order in which they lie in memory."""
    blocks: dict[str, dict[int, int]] = {}
    for _, access in accesses:
        statement = access.statement
        if access.writes and isinstance(statement, Store):
            blocks |= _exchanged(statement, access.around)
        if not isinstance(statement, Accumulate) or statement.intrinsic is None:
            continue
        row = INTRINSICS[statement.intrinsic]
        factors = factors_of(statement, row)
        if row.lanes or factors is None:
            continue
        m, n, k = (loop.var for loop in access.around[-3:])
        sizes = {m: row.m, n: row.n, k: row.k}
        first, second = factors
        if not isinstance(first, Load) or not isinstance(second, Load):
            continue
        a, b = (first, second) if any(m in variables(i) for i in first.index) else (second, first)
        for tensor, place, own in ((a.tensor, a.index, (m, k)), (b.tensor, b.index, (k, n)), (statement.targets[0].tensor, statement.targets[0].index, (m, n))):
            order = own
            if k in own and own[0] in variables(place[-1]):
                order = own[::-1]  # as it lies in memory: the core exchanges the sides of a block
            axes = ((next(d for d, i in enumerate(place) if v in variables(i)), v) for v in order)
            blocks[tensor] = {d: sizes[v] for d, v in axes if _in_steps(place[d], v, sizes[v])}
    blocks = {tensor: own for tensor, own in blocks.items() if not _in_rows(own, [a for t, a in accesses if t == tensor])}
    for node in walk(phase):
        sums = next((n for n in walk(node.value) if isinstance(n, Load) and n.tensor in blocks), None) if isinstance(node, Store) else None
        if isinstance(node, Store) and sums is not None:  # what is read and written together lies in the same blocks
            places: list[Ref | Load] = [node.target, *(n for n in walk(node.value) if isinstance(n, Load))]
            for other in places:
                shift = len(other.index) - len(sums.index)
                beside = all(d + shift >= 0 and variables(sums.index[d]) <= variables(other.index[d + shift]) for d in blocks[sums.tensor])
                if other.tensor not in blocks and beside:
                    blocks[other.tensor] = {d + shift: size for d, size in blocks[sums.tensor].items()}
    return blocks


def blocks_last(blocks: Mapping[int, int], extents: Sequence[int]) -> tuple[int, ...]:
    """The order of a panel's axes in which blocks of two of them follow one another along the rows of a block, with no other axis (of a window) between:
    fewer dimensions to walk; nothing where that is so."""
    rows = next(iter(blocks))
    if len(blocks) < 2 or all(extents[d] == 1 or d in blocks for d in range(rows + 1, len(extents))):
        return ()
    return (*(d for d in range(len(extents)) if d != rows), rows)


def _in_steps(place: Expr, own: str, size: int) -> bool:
    """Whether all other loops move along an axis by whole blocks. (Windows that slide over it begin anywhere.)"""
    return all(f % size == 0 for m, f in normal_form(place).terms if not any(own in variables(atom) for atom in m))


def _in_rows(blocks: dict[int, int], accesses: Sequence[Access]) -> bool:
    """Whether vectors go along an axis of the tensor otherwise than in blocks: then it lies in rows, of which the instruction's blocks are gathered."""

    def crosses(place: Expr, loop: For, size: int) -> bool:
        moving, count = variables(place), trip_bound(loop) or 0
        return loop.kind == "vector" and loop.var in moving and (count > size or (count < size and len(moving) == 1))

    return any(crosses(access.place[d], loop, size) for access in accesses for d, size in blocks.items() for loop in access.around)


def _exchanged(store: Store, around: tuple[For, ...]) -> dict[str, dict[int, int]]:
    """Blocks of two tensors whose last axes are each other's, where the two innermost loops make a register of each: the core exchanges its sides."""
    value = store.value
    while isinstance(value, Cast):
        value = value.a
    if not isinstance(value, Load) or len(around) < 2 or not value.index or not store.target.index:
        return {}
    outer, inner = around[-2:]
    sides = [trip_bound(loop) for loop in (outer, inner)]
    if None in sides or (sides[0] or 0) * (sides[1] or 0) * value.dtype.storage_bytes not in REGISTER_BYTES:
        return {}
    along, across = variables(value.index[-1]), variables(store.target.index[-1])
    if not (outer.var in along and inner.var in across and inner.var not in along and outer.var not in across):
        return {}
    found = {}
    for tensor, place, order in ((value.tensor, value.index, (inner, outer)), (store.target.tensor, store.target.index, (outer, inner))):
        found[tensor] = {next(d for d, i in enumerate(place) if loop.var in variables(i)): trip_bound(loop) or 0 for loop in order}
    return found
