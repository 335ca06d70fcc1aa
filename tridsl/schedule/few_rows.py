"""Products of a few rows with a large matrix, and sums over the rows of one: what takes the time is to read the matrix, once.

A few of its rows at a time are swept over a stretch of columns that is as wide as the results of the stretch fit into L2, so that every
page and every stream of the prefetchers serves many vectors. What a row needs next is asked for a short way ahead: hardware stops
fetching at the end of a page, and a core that multiplies has fewer loads in flight than one that only reads.

Rows whose length is a multiple of a page (most are) use the same lines of L1 at the same time, more than a set has, and come to the ends
of their pages together. So each is fetched one tile further ahead than the one before it, where L1 holds what then waits there to be read,
and in the next rows of the matrix behind its end (measured, f32 x 4096 x 4096 on an Emerald Rapids, from the last cache and from memory: of
4 rows 0.83 and 0.92 of the time without, of 8 0.87 and 0.97, of 16 0.90 and 0.89).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Var
from tridsl.ir.op import Reduce
from tridsl.schedule.blocks import block_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import Factors, factors_of
from tridsl.schedule.steps import Order, Pack, Parallel, Pipeline, Split, Step, Unroll, Vector

DEEP, WIDE = 256, 256
"""Terms of a sum and columns from which a matrix that is read once is swept in blocks."""
FEWEST, MOST = 32, 64
"""Rows below which panels of the matrix are never read often enough to copy it first, and up to which they are not where it lies beyond L2
(4096 x 4096 f32 on a Golden Cove: 16, 32 and 64 rows take 0.59, 0.63 and 0.82 of the time that they take with panels)."""
COLUMNS = 1024
"""The narrowest stretch that a thread is given: a page of f32."""
DEPTHS, SEVERAL = (16, 32), (8, 16, 32, 64)
"""Rows of the matrix swept together, for one register tile and for several; others worth trying. The results are loaded and stored once
for so many, and so many streams are followed."""
AHEAD_BYTES = 384
"""How far ahead of itself a row is fetched: 256 to 640 took the same time, 1024 a tenth more, not at all a quarter more."""
STAGGERED, STAGGERED_BYTES = 16, 256
"""Rows swept together where each is fetched a tile further ahead than the one before it, and how far ahead the first one is."""
ROWS = 8
"""Rows that are added to a stretch of results in one go."""


def is_few(stage: Reduce, roles: Factors, extents: Mapping[str, int | None]) -> bool:
    """Whether few rows meet a matrix that is large both ways."""
    rows, columns = extents[roles.tile or ""] if roles.tile else None, extents[roles.vector]
    return rows is not None and rows <= MOST and columns is not None and columns >= WIDE and depth_of(stage, extents) is not None


def is_swept(stage: Reduce, roles: Factors, spec: DeviceSpec, extents: Mapping[str, int | None]) -> bool:
    """Whether the product has so few rows that it is better to sweep over the other factor where it is."""
    if roles.strided or not is_few(stage, roles, extents):
        return False
    rows, size = extents[roles.tile or ""] or 0, _bytes(stage, roles, extents)
    near = size is not None and size <= (spec.l2_bytes or 1 << 20)
    as_it_is = compute_type(roles.b.dtype) == roles.b.dtype
    return rows < FEWEST or (as_it_is and not near)


def depth_of(stage: Reduce, extents: Mapping[str, int | None]) -> str | None:
    """The reduced axis that is long enough to be cut into blocks."""
    return next((a.name for a in reversed(stage.over) if (extents[a.name] or 0) >= DEEP), None)


def sweep_rows(
    stage: Reduce, roles: Factors, rows: int, width: int, spec: DeviceSpec, extents: Mapping[str, int | None], decide: Decider, *, threads: bool
) -> list[Step]:  # fmt: skip
    """Steps for a product that `is_swept`; a register tile has `rows` rows of `width` results."""
    name, i, j, depth = stage.name, roles.tile or "", roles.vector, depth_of(stage, extents) or ""
    height, columns = extents[i] or rows, extents[j] or width
    rest = [a.name for a in stage.axes if a.name not in (i, j)]
    over = [a.name for a in stage.over if a.name != depth]
    several = height > rows
    stretch = (spec.l2_bytes or 1 << 20) // 4 // (height * stage.reducer.dtypes[0].storage_bytes)
    if threads and not rest:
        stretch = min(stretch, max(COLUMNS, -(-columns // (spec.cores or 1))))
    size, tile = _bytes(stage, roles, extents), width * roles.b.dtype.storage_bytes
    beyond = size is None or size > (spec.l2_bytes or size)
    ahead = decide(f"{name}.prefetch", beyond, (False, True), "whether the rows of B are prefetched")
    stays = STAGGERED * (STAGGERED_BYTES + STAGGERED // 2 * tile) <= (spec.l1_bytes or 0) // 2
    staggered = ahead and decide(f"{name}.stagger", stays, (False, True), "whether each row is fetched further ahead than the one before")
    usual = STAGGERED if staggered else DEPTHS[several]
    deep = decide(f"{name}.depth", usual, SEVERAL, "rows of the matrix that are swept together")
    tiles, inner = (f"{i}.o",) if several else (), f"{i}.i" if several else i
    steps: list[Step] = [
        Split(stage=name, axis=j, factor=block_of(stretch, columns, width, columns + width)),
        Split(stage=name, axis=f"{j}.i", factor=width),
        Split(stage=name, axis=depth, factor=deep),
        *([Split(stage=name, axis=i, factor=rows)] if several else []),
        Order(stage=name, axes=(*rest, f"{j}.o", *over, f"{depth}.o", f"{j}.i.o", *tiles, f"{depth}.i", inner, f"{j}.i.i")),
    ]
    if threads:
        steps.append(Parallel(stage=name, axis=rest[0] if rest else f"{j}.o"))
    steps += [Unroll(stage=name, axis=inner), Vector(stage=name, axis=f"{j}.i.i")]
    wide = compute_type(roles.a.dtype)
    packs = all(isinstance(place, Var) for place in roles.a.index) and (several or wide != roles.a.dtype)
    if decide(f"{name}.pack_rows", packs, (False, True) if packs else (), "whether the rows of A are copied"):
        place = None if roles.a.tensor != roles.b.tensor else 0 if factors_of(stage.values[0]) == (roles.a, roles.b) else 1
        kind = None if wide == roles.a.dtype or not wide.is_float else wide
        steps.append(Pack(stage=roles.a.tensor, at=f"{depth}.o", reader=name, place=place, type=kind))
    if ahead:
        turns = max(1, (STAGGERED_BYTES if staggered else AHEAD_BYTES) // tile)
        row = f"{depth}.i" if staggered else None
        steps.append(Pipeline(stage=roles.b.tensor, depth=turns, at=f"{j}.i.o", reader=name, around=f"{depth}.o", stagger=row))
    return steps


def _bytes(stage: Reduce, roles: Factors, extents: Mapping[str, int | None]) -> int | None:
    """Of the matrix, for one point of the axes that both factors have; None where an extent is not known."""
    sizes = [extents[name] for name in (roles.vector, *(axis.name for axis in stage.over))]
    return None if None in sizes else prod(n or 0 for n in sizes) * roles.b.dtype.storage_bytes


def sweep_columns(stage: Reduce, axis: str, *, threads: bool) -> list[Step]:
    """A reduction over the rows of a matrix: eight rows at a time are added to a stretch of results that stays in L1."""
    name = stage.name
    rest = [a.name for a in stage.axes if a.name != axis]
    *over, depth = [a.name for a in stage.over]
    steps: list[Step] = [
        Split(stage=name, axis=axis, factor=COLUMNS),
        Split(stage=name, axis=depth, factor=ROWS),
        Order(stage=name, axes=(*rest, f"{axis}.o", *over, f"{depth}.o", f"{axis}.i", f"{depth}.i")),
    ]
    if threads:
        steps.append(Parallel(stage=name, axis=rest[0] if rest else f"{axis}.o"))
    return [*steps, Unroll(stage=name, axis=f"{depth}.i"), Vector(stage=name, axis=f"{axis}.i")]
