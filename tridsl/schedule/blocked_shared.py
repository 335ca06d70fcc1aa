"""Monoids that are merged in blocks on a GPU, of some rows and many elements: workgroups share the elements, and each part serves all rows.

Both products are matrix instructions on fragments that come from memory, each element once. Between them scores and weights of a part lie in shared
memory, and lanes go along the elements of a row. Rows are padded to whole fragments. What the parts came to is merged in order
(Dao et al. 2023, "Flash-Decoding for long-context inference").
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tridsl.devices.intrinsics import Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.schedule.analyse import extent_of
from tridsl.schedule.blocked_monoid import Group
from tridsl.schedule.blocked_parts import along, grouped, lanes_of, narrow_sums, put_together
from tridsl.schedule.contraction_gpu import PROCESSORS
from tridsl.schedule.decisions import Decider
from tridsl.schedule.lanes import ACCESS_BYTES
from tridsl.schedule.rescaled_parts import BLOCK
from tridsl.schedule.steps import At, Bind, Inline, Intrin, Order, Pad, Parts, Split, Step, StoreIn, Unroll
from tridsl.structs import dataclass

ROWS = 64
"""Rows up to which a part's scores and weights fit in shared memory beside those of other workgroups."""
FEWEST = 3
"""Rows from which one part is better read for all of them than for each (2 rows of 32 heads, 4096 keys of 128 halves on an H200: 68.6 us, each its own
62.7; 8 rows 68.9 and 158.8, *measured*)."""
PARTS = (128, 256, 64)
"""Elements of a part, the best first (8 rows of 32 heads, 4096 keys of 128 halves on an H200: 65.5 us, 68.9 with 256, 72.1 with 64, *measured*)."""
SUBGROUPS = 8
"""Of a workgroup, at most: each has columns of the result, and elements of the scores."""
WRITTEN_OUT = 8
"""Fragments along the terms of a score up to which all are under way together."""
TOGETHER = 4
"""Fragments along the elements of a sum that are under way together."""
FRAGMENTS = 8
"""Of sums, in the registers of a subgroup."""
SPARE_BANKS = 4
"""Words behind each row of scores."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shape:
    """`rows`, padded; elements of a `part`; `subgroups` of a workgroup, and how many of its `lanes` go along the elements of a row."""

    rows: int
    part: int
    subgroups: int
    lanes: int


def by_shared_parts(group: Group, row: Intrinsic, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps where no part has a tail, and where as many rows as there are leave processors idle unless the elements are shared."""
    (scores,) = group.scores
    (d,), q, t, e = scores.terms, group.row, group.elements, group.own.name
    known = {a.name: extent_of(a, sizes) or 0 for a in (*group.merge.axes, *group.merge.over, *scores.stage.over)}
    size, rows = row.m, known[q]
    workgroups = prod(known[a] for a in group.others) * -(-rows // ROWS)
    if not FEWEST <= rows <= ROWS or any(known[a] < size or known[a] % size for a in (d, e)) or workgroups >= (spec.cores or PROCESSORS):
        return []
    if any(along(loads, axis, known[axis]) * row.a.storage_bytes < ACCESS_BYTES for loads, axis in (((scores.elements,), d), (group.values, e))):
        return []
    shapes = {n: shape for n in PARTS if known[t] % n == 0 and known[t] >= 2 * n and (shape := _shape(row, spec, -(-rows // size) * size, known[e], known[d], n)) is not None}
    if not shapes or not decide(f"{group.merge.name}.shared", True, (False,), "whether a part of the elements serves all rows"):
        return []
    shape = shapes[decide(f"{group.merge.name}.part", next(iter(shapes)), tuple(shapes), "elements that a workgroup merges")]
    merge, score = group.merge.name, scores.stage.name
    part, padded = f"{merge}.part", rows != shape.rows
    weight = f"{part}.weight"
    pad = ACCESS_BYTES // row.a.storage_bytes
    steps: list[Step] = [
        *(Inline(stage=name) for name in group.between),
        *(Pad(stage=name, axis=q, factor=size, kept=True) for name in (score, merge) if padded),
        Parts(stage=merge, axis=t, factor=shape.part, into=BLOCK, inside=q),
        At(stage=score, consumer=part, axis=f"{t}.o"),
        StoreIn(stage=score, space="shared", pad=SPARE_BANKS),
        StoreIn(stage=weight, space="shared", type=row.a, pad=pad),
        *([StoreIn(stage=scores.rows.tensor, space="shared", at=f"{t}.o", pad=pad)] if padded else []),
        *_scores(score, (q, t, d), [a.name for a in scores.stage.axes if a.name not in (q, t)], shape, row, known[d]),
        *_weights(part, (q, f"{t}.i"), ("key", "weight", *narrow_sums(group)), shape, size),
        *_sums(f"{part}.{group.wide.rpartition('.')[2]}", (q, e, f"{t}.i"), shape, row, known[e]),
        *grouped(part, [*group.others, f"{t}.o"]),
    ]  # fmt: skip
    width = along(group.values, e, known[e])
    lanes = lanes_of(shape.subgroups * (spec.matrix_lanes or 1), known[e], width)
    return [*steps, *put_together(group, lanes, known[t] // shape.part, known[e], width)]


def _shape(row: Intrinsic, spec: DeviceSpec, rows: int, columns: int, terms: int, part: int) -> _Shape | None:
    """How a workgroup is divided; None where parts of that length have no room, or no whole fragments for each subgroup."""
    size, lanes, pad = row.m, spec.matrix_lanes or 1, ACCESS_BYTES // row.a.storage_bytes
    high = rows // size
    possible = [n for n in range(SUBGROUPS, 0, -1) if columns % (n * size) == 0 == part % (n * size) and high * max(columns, part) <= FRAGMENTS * n * size]
    subgroups = next(iter(possible), 0)
    each, room = subgroups * lanes // size, spec.shared_bytes or 0
    held = rows * ((part + SPARE_BANKS) * row.acc.storage_bytes + (part + pad + terms + pad) * row.a.storage_bytes)
    held += (2 * rows + subgroups * lanes) * row.acc.storage_bytes  # what each row has, and what lanes combine
    if not each or part % each or held > room or subgroups * lanes > (spec.max_group_lanes or 0):
        return None
    return _Shape(rows=rows, part=part, subgroups=subgroups, lanes=each)


def _scores(stage: str, axes: tuple[str, str, str], batch: list[str], shape: _Shape, row: Intrinsic, terms: int) -> list[Step]:
    """A subgroup has neighbouring elements, for all rows."""
    q, t, d = axes
    return [
        Split(stage=stage, axis=t, factor=shape.part // shape.subgroups), Split(stage=stage, axis=f"{t}.i", factor=row.n),
        Split(stage=stage, axis=q, factor=row.m), Split(stage=stage, axis=d, factor=row.k),
        Order(stage=stage, axes=(*batch, f"{t}.o", f"{d}.o", f"{q}.o", f"{t}.i.o", f"{q}.i", f"{t}.i.i", f"{d}.i")),
        Bind(stage=stage, axes=((f"{t}.o", "subgroup.x"),)),
        *(Unroll(stage=stage, axis=axis) for axis in (*([f"{d}.o"] if terms <= WRITTEN_OUT * row.k else []), f"{q}.o", f"{t}.i.o")),
        Intrin(stage=stage, name=row.name),
    ]  # fmt: skip


def _weights(part: str, axes: tuple[str, str], stages: tuple[str, ...], shape: _Shape, size: int) -> list[Step]:
    """Lanes along the elements of as many rows as a fragment has."""
    (q, t), steps = axes, list[Step]()
    for name in stages:
        stage = f"{part}.{name}"
        steps += [
            Split(stage=stage, axis=q, factor=size), Split(stage=stage, axis=t, factor=shape.lanes),
            Order(stage=stage, axes=(f"{q}.o", f"{q}.i", f"{t}.o", f"{t}.i")),
            Unroll(stage=stage, axis=f"{t}.o"), Bind(stage=stage, axes=((f"{q}.i", "lane.y"), (f"{t}.i", "lane.x"))),
        ]  # fmt: skip
        if name != "weight":
            kept = f"{stage}.kept"
            steps += [Split(stage=kept, axis=q, factor=size), Bind(stage=kept, axes=((f"{q}.i", "lane.y"),))]
    return steps


def _sums(stage: str, axes: tuple[str, str, str], shape: _Shape, row: Intrinsic, columns: int) -> list[Step]:
    """A subgroup has some columns of all rows."""
    q, e, t = axes
    together = TOGETHER if shape.part % (TOGETHER * row.k) == 0 else 1
    return [
        Split(stage=stage, axis=q, factor=row.m), Split(stage=stage, axis=e, factor=columns // shape.subgroups), Split(stage=stage, axis=f"{e}.i", factor=row.n),
        Split(stage=stage, axis=t, factor=row.k), Split(stage=stage, axis=f"{t}.o", factor=together),
        Order(stage=stage, axes=(f"{e}.o", f"{t}.o.o", f"{t}.o.i", f"{q}.o", f"{e}.i.o", f"{q}.i", f"{e}.i.i", f"{t}.i")),
        Bind(stage=stage, axes=((f"{e}.o", "subgroup.x"),)),
        *(Unroll(stage=stage, axis=axis) for axis in (f"{t}.o.i", f"{q}.o", f"{e}.i.o")), Intrin(stage=stage, name=row.name),
    ]  # fmt: skip
