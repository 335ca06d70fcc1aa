"""Monoids that are merged in blocks by a GPU's matrix instructions: a workgroup for a block of rows, keys and values of a block in shared memory.

Both products are matrix instructions, and the weighted sum stays in the fragments of the subgroups until the last block (Dao 2023,
FlashAttention-2). Where the device reduces fragments and takes results as factors, scores, weights and what each row has stay there, too.
Elsewhere a lane has a row for what stands between the products: scores lie as [t, rows] in shared memory, so lanes next to each other read
neighbours, and weights go back there in the type of the values.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.intrinsics import FRAGMENTS_BETWEEN, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import F16
from tridsl.ir.expr import Load
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.blocked_lanes import shifted, tile_of
from tridsl.schedule.blocked_monoid import Group
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
from tridsl.structs import dataclass

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
HELD_BLOCK = 64
"""Elements merged at a time where nothing of them lies in memory: what each row has is worked on once for all of them (2048 rows and elements of 64
halves, 16 heads, on an H100, rows of a subgroup in one fragment: 102 us, 104 with 32, 145 with 16; 65, 75 under a mask; with two fragments 108 with
32, *measured*; through memory 171 and 184)."""
HELD_ROWS = 64
"""Rows of a workgroup then, up to `HELD` columns: more workgroups, which wait for each other less (94.7 us with 128, 93.4; 60.4 and 53.9 under a mask; 142
and 210 with 128 columns, whose keys and values are worth reading for more rows, *measured*)."""
HELD_TYPES = (F16,)
"""Types of factors that are types of results, too, from which they are taken: sums of products of bf16 are f32 everywhere."""
ROW_PARTS = ("start", "key", "scale", "weight")
"""Stages of a block between its products; of `OF_ELEMENTS` the loops go over its elements, too."""
OF_ELEMENTS = ("key", "weight")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tiles:
    """Rows of a subgroup are `high`, in fragments of `size` x `size`; loops over `batch` are outside."""

    batch: tuple[str, ...]
    high: int
    size: int

    def split(self, stage: str, axis: str) -> list[Step]:
        return [Split(stage=stage, axis=axis, factor=self.high), Split(stage=stage, axis=f"{axis}.i", factor=self.size)]

    def nest(self, stage: str, axis: str, tiles: tuple[str, ...], inside: tuple[str, ...], before: tuple[str, ...] = ()) -> list[Step]:
        """A stage's loops over subgroups, fragments (`before` and `tiles` besides those of the rows) and the elements of one (`inside` besides the row)."""
        own, tile = f"{axis}.o", f"{axis}.i.o"
        return [
            Order(stage=stage, axes=(*self.batch, own, *before, tile, *tiles, f"{axis}.i.i", *inside)), Bind(stage=stage, axes=((own, "subgroup.x"),)),
            *(Unroll(stage=stage, axis=name) for name in (*before, tile, *tiles)),
        ]  # fmt: skip


def by_fragments(group: Group, row: Intrinsic, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps where rows and elements fill fragments, and keys and values lie along what an instruction takes whole."""
    (scores,) = group.scores
    (d,), q, t, e = scores.terms, group.row, group.elements, group.own.name
    merge, root, score, sums = group.merge.name, group.root.name, scores.stage.name, group.sum
    known = {a.name: extent_of(a, sizes) or 0 for a in (*group.merge.axes, *group.merge.over, *scores.stage.over)}
    size = row.m
    if any(known[a] < size for a in (q, t)) or any(not known[a] or known[a] % size for a in (e, d)) or not _lies_along(scores.elements, d) or not _lies_along(group.values[0], e):
        return []
    pad = ACCESS_BYTES // row.a.storage_bytes
    held = row.a in HELD_TYPES and spec.features >= FRAGMENTS_BETWEEN and decide(f"{merge}.held", True, (False,), "whether scores and weights stay in the fragments of subgroups")

    def fits(rows: int, block: int) -> bool:
        """Whether a block of keys and values, and scores, weights and what each row has if they are not held, are within shared memory."""
        panels = sum(known[a] + pad for a in (d, e)) * row.a.storage_bytes
        between = 0 if held else (rows + SHARED_BANKS) * row.acc.storage_bytes + (rows + pad) * row.a.storage_bytes
        return block * (between + panels) + 2 * rows * row.acc.storage_bytes <= (spec.shared_bytes or 0)

    blocks = [tile_of(known[t], most, size) for most in (HELD_BLOCK, HELD_BLOCK // 2)] if held else []
    blocks.append(part_of(known[t], BLOCK, size))
    most = HELD_ROWS if held and known[e] <= HELD else ROWS
    shapes = [(tile_of(known[q], n, size), block) for n in (ROWS, ROWS // 2, ROWS // 4) if n <= most for block in blocks]
    rows = next((rows for rows, block in shapes if fits(rows, block)), 0)
    if not rows:
        return []
    others = [n for n in (32, 64, 128) if known[q] % n == 0 and any(fits(n, block) for block in blocks)]
    rows = decide(f"{merge}.block_rows", rows, others, "rows of a workgroup")
    others = [n for n in (16, 32, 64) if known[t] % n == 0 and fits(rows, n)]
    block = decide(f"{merge}.block", next(n for n in blocks if fits(rows, n)), others, "elements merged at a time")
    high = decide(f"{merge}.high", part_of(rows, HIGH if known[e] <= HELD and not held else size, size), [n for n in (16, 32, 64) if rows % n == 0], "rows of a subgroup")
    together = 1 if held else decide(f"{merge}.together", part_of(block, TOGETHER, 1), [n for n in (1, 2, 4, 8, 16, 32) if block % n == 0], "elements of a row that a lane works on together")
    ahead = decide(f"{merge}.ahead", True, (False,), "whether the next block is fetched ahead")
    tiles = _Tiles(batch=tuple(group.others), high=high, size=size)
    steps: list[Step] = [
        *(Inline(stage=name) for name in group.between),
        Split(stage=root, axis=q, factor=rows, tail=shifted(known[q], rows)),
        Order(stage=root, axes=(*group.others, f"{q}.o", f"{q}.i", e)),
        At(stage=merge, consumer=root, axis=f"{q}.o"),
        BlockBy(stage=merge, axis=t, factor=block, tail=shifted(known[t], block)),
        At(stage=score, consumer=merge, axis=f"{t}.o"),
        *(_held(group, row) if held else _shared(group, row, pad)),
        StoreIn(stage=group.wide, space="fragment"),
        *(StoreIn(stage=load.tensor, space="shared", at=f"{t}.o", pad=pad) for load in (scores.elements, group.values[0])),
        *([Pipeline(stage=merge, depth=1)] if ahead else []),
        *tiles.split(score, q), Split(stage=score, axis=t, factor=size), Split(stage=score, axis=d, factor=row.k),
        *tiles.nest(score, q, (f"{t}.o",), (f"{t}.i", f"{d}.i"), before=(f"{d}.o",)), Intrin(stage=score, name=row.name),
        *(_by_subgroups(group, tiles) if held else _by_lanes(group, part_of(rows, rows // high * (spec.matrix_lanes or 1), 1), together)),
    ]  # fmt: skip
    for stage, along in ((f"{sums}.start", f"{e}.init"), (f"{sums}.scale", e)):
        steps += [*tiles.split(stage, q), Split(stage=stage, axis=along, factor=size), *tiles.nest(stage, q, (f"{along}.o",), (f"{along}.i",))]
    steps += [*tiles.split(sums, q), Split(stage=sums, axis=e, factor=size), Split(stage=sums, axis=f"{t}.i", factor=row.k)]
    steps += [*tiles.nest(sums, q, (f"{e}.o",), (f"{e}.i", f"{t}.i.i"), before=(f"{t}.i.o",)), Intrin(stage=sums, name=row.name)]
    return [*steps, *_results(group, tiles)]


def _held(group: Group, row: Intrinsic) -> list[Step]:
    """Scores, weights and what each row has in the fragments of the subgroup that has the rows."""
    states = [target.name for target in group.merge.targets if target.name != group.wide]
    names = (group.scores[0].stage.name, group.part("key"), group.part("scale"), *states)
    return [StoreIn(stage=group.part("weight"), space="fragment", type=row.a), *(StoreIn(stage=name, space="fragment") for name in names)]


def _shared(group: Group, row: Intrinsic, pad: int) -> list[Step]:
    """Scores and weights in shared memory, rows next to each other."""
    weight, score, axes = group.part("weight"), group.scores[0].stage.name, (group.elements, group.row)
    return [
        *(Layout(stage=name, axes=axes) for name in (weight, score)),
        StoreIn(stage=weight, space="shared", type=row.a, pad=pad), StoreIn(stage=score, space="shared", pad=SHARED_BANKS),
    ]  # fmt: skip


def _by_subgroups(group: Group, tiles: _Tiles) -> list[Step]:
    """What stands between the products, where the fragments are."""
    steps: list[Step] = []
    for part in ROW_PARTS:
        stage, axis = group.part(part), f"{group.elements}.i"
        over = part in OF_ELEMENTS
        steps += [*tiles.split(stage, group.row), *([Split(stage=stage, axis=axis, factor=tiles.size)] if over else [])]
        steps += tiles.nest(stage, group.row, (f"{axis}.o",), (f"{axis}.i",)) if over else tiles.nest(stage, group.row, (), ())
    return steps


def _by_lanes(group: Group, lanes: int, together: int) -> list[Step]:
    """What stands between the products: a lane for a row."""
    steps: list[Step] = []
    for part in ROW_PARTS:
        stage, q, t = group.part(part), group.row, f"{group.elements}.i"
        over = part in OF_ELEMENTS
        steps += [Split(stage=stage, axis=q, factor=lanes), *([Split(stage=stage, axis=t, factor=together)] if over else [])]
        steps.append(Order(stage=stage, axes=(*group.others, f"{q}.i", f"{q}.o", *((f"{t}.o", f"{t}.i") if over else ()))))
        steps += [*([Unroll(stage=stage, axis=f"{t}.i")] if over else []), Bind(stage=stage, axes=((f"{q}.i", "lane.x"),))]
    return steps


def _results(group: Group, tiles: _Tiles) -> list[Step]:
    """The rows of a workgroup by its subgroups."""
    root, q, e = group.root.name, f"{group.row}.i", group.own.name
    own, tile = f"{q}.o", f"{q}.i.o"
    steps: list[Step] = [
        *tiles.split(root, q), Split(stage=root, axis=e, factor=tiles.size), Order(stage=root, axes=(own, tile, f"{e}.o", f"{q}.i.i", f"{e}.i")),
        *(Unroll(stage=root, axis=axis) for axis in (tile, f"{e}.o")),
    ]  # fmt: skip
    groups = [(f"{group.row}.o", "group.y" if group.others else "group.x")]  # those that start together have as many elements to see, under a mask too
    fused, fusing = all_fused(root, list(group.others))
    if fused:
        groups.append((fused, "group.x"))
    return [*steps, *fusing, Bind(stage=root, axes=((own, "subgroup.x"), *groups))]


def _lies_along(load: Load, axis: str) -> bool:
    return unit_stride_axis(load) == axis and load.boundary is None and load.mask is None


def part_of(extent: int, most: int, step: int) -> int:
    """The largest part of whole steps up to `most` that divides the extent."""
    return next((n for n in range(most, 0, -step) if (extent or 1) % n == 0), step)
