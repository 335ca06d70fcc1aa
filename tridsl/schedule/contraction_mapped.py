"""Products by blocks that a map reads point by point (a conversion, an activation, a bias): the sums of a few tiles become results while
they are near.

    for j.o: pack B: for i.o: pack A: for j.i.o:  sum of 32 x 32 in L1, by tiles;  C[32 x 32] = f(sum)

All terms of a sum are added at once, so this is for sums that fit one panel.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.intrinsics import Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Var
from tridsl.ir.op import Map, Reduce
from tridsl.schedule.analyse import Graph, extent_of, pointwise
from tridsl.schedule.blocked_rows import Blocked
from tridsl.schedule.contraction import blocks_that_pay
from tridsl.schedule.contraction_panels import panel_steps
from tridsl.schedule.contraction_tiles import PanelSizes, packs_rows, panel_sizes
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import Factors, is_contraction
from tridsl.schedule.steps import At, Intrin, Order, Parallel, Split, Step, Unroll, Vector

NARROW = 256
"""Columns of a block from which the left factor is not read again too often, where sums that lie in memory meanwhile are the alternative."""


def mapped_products(graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> tuple[Blocked, ...]:
    """Steps for each such product and its reader."""
    found = []
    for stage in graph.stages.values():
        reader = _reader(graph, stage)
        if reader is None or not isinstance(stage, Reduce) or len(stage.over) != 1:
            continue
        chosen = blocks_that_pay(stage, spec, sizes)
        if chosen is None:
            continue
        roles, row = chosen
        extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
        panels = panel_sizes(roles, row, spec, extents, stage.over[0].name, broad=NARROW)
        terms = extents[stage.over[0].name]
        whole = terms is not None and terms <= panels.depth
        if whole and decide(f"{stage.name}.mapped", True, (False,), f"whether `{reader.name}` is made of each tile of sums"):
            steps = _steps(stage, reader, roles, row, panels, extents, decide)
            found.append(Blocked(members=frozenset({stage.name, reader.name}), steps=tuple(steps)))
    return tuple(found)


def _reader(graph: Graph, stage: object) -> Map | None:
    """The only reader of the stage, where it is a map over its points, in their order."""
    if not isinstance(stage, Reduce) or not is_contraction(stage) or graph.is_result(stage.name) or graph.before_update(stage.name):
        return None
    reads = graph.readers(stage.name)
    reader = graph.stages.get(min((r.reader for r in reads), default=""))
    if not isinstance(reader, Map) or len({r.reader for r in reads}) != 1 or len(reader.axes) != len(stage.axes):
        return None
    own = tuple(Var(name=a.name) for a in reader.axes)
    return reader if all(pointwise(r.load, stage, reader) and r.load.index == own for r in reads) else None


def _steps(
    stage: Reduce, reader: Map, roles: Factors, row: Intrinsic, panels: PanelSizes, extents: Mapping[str, int | None], decide: Decider
) -> list[Step]:
    names = {own.name: theirs.name for own, theirs in zip(stage.axes, reader.axes)}
    name, root, k = stage.name, reader.name, stage.over[0].name
    i, j = roles.tile or "", roles.vector
    over, across = names[i], names[j]
    batch = [a.name for a in reader.axes if a.name not in (over, across)]
    tile, block = (f"{i}.o", f"{j}.o"), (f"{i}.i", f"{j}.i", f"{k}.i")
    copied = f"{over}.o" if packs_rows(name, roles, row, panels.rows, extents, k, decide) else None
    return [
        Split(stage=root, axis=across, factor=panels.columns), Split(stage=root, axis=f"{across}.i", factor=panels.width),
        Split(stage=root, axis=over, factor=panels.rows),
        Order(stage=root, axes=(*batch, f"{across}.o", f"{over}.o", f"{across}.i.o", f"{over}.i", f"{across}.i.i")),
        Parallel(stage=root, axis=batch[0] if batch else f"{over}.o"), Vector(stage=root, axis=f"{across}.i.i"),
        At(stage=name, consumer=root, axis=f"{across}.i.o"),
        Split(stage=name, axis=k, factor=row.k), Split(stage=name, axis=i, factor=row.m), Split(stage=name, axis=j, factor=row.n),
        Order(stage=name, axes=(f"{k}.o", *tile, *block)),
        *(Unroll(stage=name, axis=axis) for axis in (*tile, block[0])), Vector(stage=name, axis=block[1]),
        *panel_steps(stage, roles, copied, f"{across}.o", interleave=row.interleave, reader=root),
        Intrin(stage=name, name=row.name),
    ]  # fmt: skip
