"""Sums of products by an instruction for blocks (AMX): a few tiles of sums, panels of both factors laid out as the instruction loads them.

The order of the loops is that of other packed products (`schedule.contraction`): a panel of the left factor meets the whole block of
the right one. Two by two tiles of sums need one load for each instruction, in half of its time: a load is 16 lines, two a cycle, an
instruction 16 cycles (Intel, Optimization Reference Manual 248966, chapter on AMX).
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.op import Reduce
from tridsl.schedule.analyse import unit_stride_axis
from tridsl.schedule.blocks import block_of, blocks_of
from tridsl.schedule.contraction_panels import apart_columns, panel_steps
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import Factors
from tridsl.schedule.steps import Intrin, Order, Parallel, Split, Step, Unroll, Vector
from tridsl.structs import dataclass

TILES = 2
"""Tiles of sums along each side: with two of each factor all eight registers."""
BROAD = 512
"""Columns of a block that the terms of a panel leave room for: the sums are read and written again for each panel, the left factor is
read again for each block, and both come from beyond L2."""
DEEPEST = 2048
"""Terms of a panel beyond which the sums are hardly ever read again."""
DEPTHS, COLUMNS = (256, 512, 1024, 2048), (128, 256, 512, 1024, 2048)
"""Sizes of packed blocks worth trying."""


def block_instruction(stage: Reduce, roles: Factors, extents: Mapping[str, int | None], spec: DeviceSpec) -> Intrinsic | None:
    """One of the device's for these types, where the product has a block of it each way; what is over is filled up with zeros."""
    deepest = max((extents[axis.name] or DEEPEST for axis in stage.over), default=0)
    types = (roles.a.dtype, roles.b.dtype, stage.reducer.dtypes[0])
    for row in INTRINSICS.values():
        sides = ((extents[roles.tile or ""] or row.m) >= row.m, (extents[roles.vector] or row.n) >= row.n, deepest >= row.k)
        if row.is_matrix and row.feature in spec.features and (row.a, row.b, row.acc) == types and all(sides):
            return row
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelSizes:
    """Rows of a panel of the left factor, columns of one of the right factor and of their block, and the terms of both."""

    rows: int
    width: int
    columns: int
    depth: int


def panel_sizes(roles: Factors, row: Intrinsic, spec: DeviceSpec, extents: Mapping[str, int | None], k: str, *, broad: int = BROAD) -> PanelSizes:
    """`broad`: columns that a block must have room for."""
    i, j = roles.tile or "", roles.vector
    rows, width = (size * (1 if extents[axis] is not None and (extents[axis] or 0) <= size else TILES) for axis, size in ((i, row.m), (j, row.n)))
    block = (spec.l2_bytes or 1 << 20) // 2 // row.b.storage_bytes
    depth = block_of(block // broad, extents[k], row.k, DEEPEST)
    return PanelSizes(rows=rows, width=width, columns=block_of(block // depth, extents[j], width, COLUMNS[-1]), depth=depth)


def packs_rows(name: str, roles: Factors, row: Intrinsic, rows: int, extents: Mapping[str, int | None], k: str, decide: Decider) -> bool:
    """Whether the left factor is copied: its rows may be loaded where they are if every block is whole."""
    whole = all((extents[axis] or 1) % size == 0 for axis, size in ((roles.tile or "", rows), (k, row.k))) and unit_stride_axis(roles.a) == k
    return decide(f"{name}.pack_rows", True, (False,) if whole else (), "whether the rows of A are copied too")


def tiled(
    stage: Reduce, roles: Factors, row: Intrinsic, spec: DeviceSpec, extents: Mapping[str, int | None], decide: Decider, *, threads: bool
) -> list[Step]:
    """Steps for a contraction with a phase of its own, whose factors may be copied."""
    name, i, j = stage.name, roles.tile or "", roles.vector
    k = max(reversed(stage.over), key=lambda axis: extents[axis.name] or 0).name
    rest = [a.name for a in stage.over if a.name != k]
    batch = [a.name for a in stage.axes if a.name not in (i, j)]
    panels = panel_sizes(roles, row, spec, extents, k)
    rows, width = panels.rows, panels.width
    depth = decide(f"{name}.depth", panels.depth, blocks_of(DEPTHS, extents[k], row.k), "terms of the sum per panel")
    columns = panels.columns
    apart = apart_columns(columns, extents[j], width, spec) if threads and not batch else None
    columns = decide(f"{name}.block_columns", apart or columns, blocks_of(COLUMNS, extents[j], width), "columns of a packed block")
    steps: list[Step] = [
        Split(stage=name, axis=k, factor=depth),
        Split(stage=name, axis=j, factor=columns),
        Split(stage=name, axis=f"{j}.i", factor=width),
        Split(stage=name, axis=i, factor=rows),
        Split(stage=name, axis=f"{k}.i", factor=row.k),
        Split(stage=name, axis=f"{j}.i.i", factor=row.n),
        Split(stage=name, axis=f"{i}.i", factor=row.m),
    ]
    tile, block = (f"{i}.i.o", f"{j}.i.i.o"), (f"{i}.i.i", f"{j}.i.i.i", f"{k}.i.i")
    steps.append(Order(stage=name, axes=(*batch, f"{j}.o", *rest, f"{k}.o", f"{i}.o", f"{j}.i.o", f"{k}.i.o", *tile, *block)))
    if threads:
        shared = (*batch[:1], *([f"{j}.o"] if apart else []), f"{i}.o")
        steps.append(Parallel(stage=name, axis=decide(f"{name}.parallel", shared[0], shared, "the loop that threads share")))
    steps += [*(Unroll(stage=name, axis=axis) for axis in (*tile, block[0])), Vector(stage=name, axis=block[1])]
    copied = f"{i}.o" if packs_rows(name, roles, row, rows, extents, k, decide) else None
    steps += panel_steps(stage, roles, copied, f"{k}.o", interleave=row.interleave)
    return [*steps, Intrin(stage=name, name=row.name)]
