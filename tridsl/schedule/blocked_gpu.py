"""Monoids that are merged in blocks on a GPU: a workgroup for a block of rows, keys and values of a block in shared memory.

Both products are matrix instructions. A lane has a row for what stands between them: scores lie as [t, rows] in shared memory, so lanes
next to each other read neighbours, and weights go back there in the type of the values. The weighted sum stays in the fragments of the
subgroups until the last block (Dao 2023, FlashAttention-2).
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.op import Reduce
from tridsl.schedule.analyse import Graph, extent_of, unit_stride_axis
from tridsl.schedule.blocked_lanes import by_lanes, shifted, tile_of
from tridsl.schedule.blocked_monoid import Group, blocked_group
from tridsl.schedule.blocked_parts import by_parts
from tridsl.schedule.blocked_rows import Blocked
from tridsl.schedule.blocked_shared import by_shared_parts
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.lanes import ACCESS_BYTES
from tridsl.schedule.steps import (
    At,
    Bind,
    BlockBy,
    Inline,
    Intrin,
    Layout,
    Order,
    Pipeline,
    Split,
    Step,
    StoreIn,
    Unroll,
)

ROWS = 128
"""Rows of a workgroup: a lane for each row, and every key and value is read once for all of them."""
HIGH = 32
"""Rows of a subgroup: two fragments, which use each fragment of keys and values twice."""
HELD = 64
"""Columns up to which the sums of so many rows leave registers for anything else (measured on an H100 with 128 columns: 60 TFLOP/s, 62
with one fragment of rows)."""
BLOCK = 16
"""Elements merged at a time (measured on an H100: 86 TFLOP/s, 51 with 32, whose scores take more registers)."""
TOGETHER = 4
"""Elements of its row that a lane weighs together, so that none waits for the exponential of the one before; what a lane holds for more of
them goes to memory."""
SHARED_BANKS = 8
"""Words behind each row of scores, so that the columns of a fragment lie in different banks."""


def blocked_gpu(graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> tuple[Blocked, ...]:
    """Steps for each such monoid: by the device's matrix instructions where these compute its products, whole."""
    found = []
    for stage in graph.stages.values():
        group = blocked_group(graph, stage, spec, sizes) if isinstance(stage, Reduce) else None
        if group is None or not decide(f"{stage.name}.blocks", True, (False,), "whether elements are merged a block at a time"):
            continue
        row = _instruction(group, spec)
        steps: list[Step] = []
        if row is not None:
            steps = by_shared_parts(group, row, spec, sizes, decide) or _by_fragments(group, row, spec, sizes, decide)
        steps = steps or by_lanes(group, spec, sizes, decide) or by_parts(group, spec, sizes, decide)
        if steps:
            found.append(Blocked(members=group.members, steps=tuple(steps)))
    return tuple(found)


def _instruction(group: Group, spec: DeviceSpec) -> Intrinsic | None:
    """The one for the types of rows, keys and values, when these are one."""
    if len(group.scores) != 1 or len(group.values) != 1 or len(group.scores[0].terms) != 1 or spec.matrix_lanes is None:
        return None
    kinds = {load.dtype for load in (group.scores[0].rows, group.scores[0].elements, group.values[0])}
    acc = group.merge.reducer.dtypes[0]
    fits = (r for r in INTRINSICS.values() if r.is_matrix and not r.flexible and kinds == {r.a} == {r.b} and r.acc == acc and r.feature in spec.features)
    return next((r for r in fits if r.m == r.n == r.k), None)


def _by_fragments(group: Group, row: Intrinsic, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    (scores,) = group.scores
    (d,), q, t, e = scores.terms, group.row, group.elements, group.own.name
    merge, root, score, sums = group.merge.name, group.root.name, scores.stage.name, group.sum
    known = {a.name: extent_of(a, sizes) for a in (*group.merge.axes, *group.merge.over, *scores.stage.over)}
    size = row.m
    if any((known[a] or 0) < size for a in (q, t)) or any(not known[a] or (known[a] or 0) % size for a in (e, d)) or not _lies_along(scores.elements, d) or not _lies_along(group.values[0], e):
        return []
    pad = ACCESS_BYTES // row.a.storage_bytes

    def fits(rows: int, block: int) -> bool:
        """Whether scores and weights, a block of keys and values, and what each row has are within shared memory."""
        panels = sum((known[a] or 0) + pad for a in (d, e)) * row.a.storage_bytes
        scores = (rows + SHARED_BANKS) * row.acc.storage_bytes + (rows + pad) * row.a.storage_bytes
        return block * (scores + panels) + 2 * rows * row.acc.storage_bytes <= (spec.shared_bytes or 0)

    blocks = [_part(known[t], BLOCK, size)]
    shapes = [(tile_of(known[q] or 0, n, size), block) for n in (ROWS, ROWS // 2, ROWS // 4) for block in blocks]
    rows = next((rows for rows, block in shapes if fits(rows, block)), 0)
    if not rows:
        return []
    others = [n for n in (32, 64, 128) if (known[q] or 1) % n == 0 and any(fits(n, block) for block in blocks)]
    rows = decide(f"{merge}.block_rows", rows, others, "rows of a workgroup")
    others = [n for n in (16, 32, 64) if (known[t] or 1) % n == 0 and fits(rows, n)]
    block = decide(f"{merge}.block", next(n for n in blocks if fits(rows, n)), others, "elements merged at a time")
    high = decide(f"{merge}.high", _part(rows, HIGH if (known[e] or 0) <= HELD else size, size), [n for n in (16, 32, 64) if rows % n == 0], "rows of a subgroup")
    together = decide(f"{merge}.together", _part(block, TOGETHER, 1), [n for n in (1, 2, 4, 8, 16, 32) if block % n == 0], "elements of a row that a lane works on together")
    ahead = decide(f"{merge}.ahead", True, (False,), "whether the next block is fetched ahead")
    lanes = _part(rows, rows // high * (spec.matrix_lanes or 1), 1)
    weight = group.part("weight")
    steps: list[Step] = [
        *(Inline(stage=name) for name in group.between),
        Split(stage=root, axis=q, factor=rows, tail=shifted(known[q] or 0, rows)),
        Order(stage=root, axes=(*group.others, f"{q}.o", f"{q}.i", e)),
        At(stage=merge, consumer=root, axis=f"{q}.o"),
        BlockBy(stage=merge, axis=t, factor=block, tail=shifted(known[t] or 0, block)),
        At(stage=score, consumer=merge, axis=f"{t}.o"),
        Layout(stage=weight, axes=(t, q)),
        Layout(stage=score, axes=(t, q)),
        StoreIn(stage=weight, space="shared", type=row.a, pad=pad),
        StoreIn(stage=score, space="shared", pad=SHARED_BANKS),
        StoreIn(stage=group.wide, space="fragment"),
        *(StoreIn(stage=load.tensor, space="shared", at=f"{t}.o", pad=pad) for load in (scores.elements, group.values[0])),
        *([Pipeline(stage=merge, depth=1)] if ahead else []),
    ]
    batch = list(group.others)

    def subgroup_rows(stage: str, axis: str) -> tuple[list[Step], str, str, str]:
        """Rows of a subgroup, in fragments."""
        split: list[Step] = [Split(stage=stage, axis=axis, factor=high), Split(stage=stage, axis=f"{axis}.i", factor=size)]
        return split, f"{axis}.o", f"{axis}.i.o", f"{axis}.i.i"

    # scores
    split, own, tile, inside = subgroup_rows(score, q)
    steps += [
        *split, Split(stage=score, axis=t, factor=size), Split(stage=score, axis=d, factor=row.k),
        Order(stage=score, axes=(*batch, own, f"{d}.o", tile, f"{t}.o", inside, f"{t}.i", f"{d}.i")),
        Bind(stage=score, axes=((own, "subgroup.x"),)),
        *(Unroll(stage=score, axis=axis) for axis in (f"{d}.o", tile, f"{t}.o")),
        Intrin(stage=score, name=row.name),
    ]  # fmt: skip
    # weights: a lane for a row
    for part in ("start", "key", "scale", "weight"):
        stage, over = group.part(part), part in ("key", "weight")
        steps += [Split(stage=stage, axis=q, factor=lanes), *([Split(stage=stage, axis=f"{t}.i", factor=together)] if over else [])]
        steps.append(Order(stage=stage, axes=(*batch, f"{q}.i", f"{q}.o", *((f"{t}.i.o", f"{t}.i.i") if over else ()))))
        steps += [*([Unroll(stage=stage, axis=f"{t}.i.i")] if over else []), Bind(stage=stage, axes=((f"{q}.i", "lane.x"),))]
    # sums
    for stage in (f"{sums}.start", f"{sums}.scale", sums):
        split, own, tile, inside = subgroup_rows(stage, q)
        along = f"{e}.init" if stage.endswith(".start") else e
        steps += [*split, Split(stage=stage, axis=along, factor=size)]
        order = [*batch, own, tile, f"{along}.o", inside, f"{along}.i"]
        if stage == sums:
            steps.append(Split(stage=stage, axis=f"{t}.i", factor=row.k))
            order = [*batch, own, f"{t}.i.o", tile, f"{e}.o", inside, f"{e}.i", f"{t}.i.i"]
        steps += [Order(stage=stage, axes=tuple(order)), Bind(stage=stage, axes=((own, "subgroup.x"),))]
        steps += [Unroll(stage=stage, axis=axis) for axis in (*([f"{t}.i.o"] if stage == sums else []), tile, f"{along}.o")]
    steps.append(Intrin(stage=sums, name=row.name))
    # the result
    split, own, tile, inside = subgroup_rows(root, f"{q}.i")
    steps += [
        *split, Split(stage=root, axis=e, factor=size), Order(stage=root, axes=(own, tile, f"{e}.o", inside, f"{e}.i")),
        *(Unroll(stage=root, axis=axis) for axis in (tile, f"{e}.o")),
    ]  # fmt: skip
    groups = [(f"{q}.o", "group.y" if batch else "group.x")]  # those that start together have as many elements to see, under a mask too
    fused, fusing = all_fused(root, batch)
    steps += fusing
    if fused:
        groups.append((fused, "group.x"))
    return [*steps, Bind(stage=root, axes=((own, "subgroup.x"), *groups))]


def _lies_along(load: Load, axis: str) -> bool:
    return unit_stride_axis(load) == axis and load.boundary is None and load.mask is None


def _part(extent: int | None, most: int, step: int) -> int:
    """The largest part of whole steps up to `most` that divides the extent."""
    return next((n for n in range(most, 0, -step) if (extent or 1) % n == 0), step)
