"""Monoids that are merged in blocks on a GPU, without matrix instructions: a register tile for each of 16 x 16 lanes.

Scores of a block of rows and elements are in shared memory, as [t, rows], and so are weights, keys and values; the weighted sum is in the
lanes' registers until the last block. Lanes take every 16th row and column, so that what lanes next to each other read lies side by side.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.schedule.analyse import extent_of
from tridsl.schedule.blocked_monoid import Group
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.split import SHIFT
from tridsl.schedule.steps import At, Bind, BlockBy, Inline, Layout, Order, Split, Step, StoreIn, Unroll

LANES = 16
"""Lanes along the rows, and along elements or columns."""
ROWS = (64, 32, 16)
"""Rows of a workgroup: the most that shared memory has room for."""
BLOCK = 32
"""Elements merged at a time."""
AGAIN = 0.25
"""Of the rows, what may be made twice for larger tiles (measured on an H100 with 2000 rows: those of 80, which divide them, take twice as long
as the same work in tiles of 128)."""
DEPTH = 4
"""Terms of a score that are written out."""


def by_lanes(group: Group, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """None where tiles do not divide rows, elements and columns, or a block of keys and values does not fit."""
    if len(group.scores) != 1 or len(group.values) != 1 or len(group.scores[0].terms) != 1 or (spec.max_group_lanes or 0) < LANES * LANES:
        return []
    (scores,) = group.scores
    (d,), q, t, e = scores.terms, group.row, group.elements, group.own.name
    known = {a.name: extent_of(a, sizes) or 0 for a in (*group.merge.axes, *group.merge.over, *scores.stage.over)}
    held = group.merge.reducer.dtypes[0].storage_bytes
    if known[q] < LANES or known[t] < BLOCK or any(known[a] < step or known[a] % step for a, step in ((e, LANES), (d, DEPTH))):
        return []

    def fits(rows: int) -> bool:
        """Whether scores and weights, a block of keys and values, and what each row has are within shared memory."""
        panels = sum((known[a] + 1) * load.dtype.storage_bytes for a, load in ((d, scores.elements), (e, group.values[0])))
        return BLOCK * (2 * (rows + 1) * held + panels) + 4 * rows * held <= (spec.shared_bytes or 0)

    possible = [n for n in ROWS if n <= known[q] and fits(n)]
    if not possible:
        return []
    merge, root, score, sums = group.merge.name, group.root.name, scores.stage.name, group.sum
    whole = [n for n in possible if n == tile_of(known[q], n, LANES)]
    rows = decide(f"{merge}.block_rows", (whole or possible)[0], possible, "rows of a workgroup")
    batch = list(group.others)
    weight = group.part("weight")
    steps: list[Step] = [
        *(Inline(stage=name) for name in group.between),
        Split(stage=root, axis=q, factor=rows, tail=shifted(known[q], rows)),
        Order(stage=root, axes=(*batch, f"{q}.o", f"{q}.i", e)),
        At(stage=merge, consumer=root, axis=f"{q}.o"),
        BlockBy(stage=merge, axis=t, factor=BLOCK, tail=shifted(known[t], BLOCK)),
        At(stage=score, consumer=merge, axis=f"{t}.o"),
        Layout(stage=weight, axes=(t, q)),
        Layout(stage=score, axes=(t, q)),
        StoreIn(stage=weight, space="shared", pad=1),
        StoreIn(stage=score, space="shared", pad=1),
        *(StoreIn(stage=load.tensor, space="shared", at=f"{t}.o", pad=1) for load in (scores.elements, group.values[0])),
    ]
    # scores, and sums of values: every 16th row and column
    steps += [
        *_tile(score, q, t), Split(stage=score, axis=d, factor=DEPTH),
        Order(stage=score, axes=(*batch, f"{q}.i", f"{t}.i", f"{d}.o", f"{d}.i", f"{q}.o", f"{t}.o")),
        Unroll(stage=score, axis=f"{d}.i"), *_bound(score, q, t),
    ]  # fmt: skip
    for stage, along in ((f"{sums}.start", f"{e}.init"), (f"{sums}.scale", e), (sums, e)):
        over = [f"{t}.i"] if stage == sums else []
        steps += [*_tile(stage, q, along), Order(stage=stage, axes=(*batch, f"{q}.i", f"{along}.i", *over, f"{q}.o", f"{along}.o")), *_bound(stage, q, along)]
    # weights: a lane for a row
    for part in ("start", "key", "scale", "weight"):
        stage, over = group.part(part), [f"{t}.i"] if part in ("key", "weight") else []
        steps += [
            Split(stage=stage, axis=q, factor=LANES),
            Order(stage=stage, axes=(*batch, f"{q}.o", f"{q}.i", *over)),
            Bind(stage=stage, axes=((f"{q}.o", "lane.y"), (f"{q}.i", "lane.x"))),
        ]
    # the result
    inner = f"{q}.i"
    steps += [*_tile(root, inner, e), Order(stage=root, axes=(f"{inner}.i", f"{e}.i", f"{inner}.o", f"{e}.o")), *_bound(root, inner, e)]
    groups = [(f"{q}.o", "group.y" if batch else "group.x")]
    fused, fusing = all_fused(root, batch)
    steps += fusing
    return [*steps, Bind(stage=root, axes=(*groups, *(((fused, "group.x"),) if fused else ())))]


def tile_of(extent: int, most: int, step: int) -> int:
    """Rows of a tile, whole steps up to `most`: so many that few rows are made twice."""
    sizes = [n for n in range(most, 0, -step) if n <= extent]
    return next((n for n in sizes if -(-extent // n) * n <= (1 + AGAIN) * extent), sizes[-1] if sizes else step)


def shifted(extent: int, tile: int) -> str | None:
    """The tail of a loop that tiles do not divide."""
    return SHIFT if extent % tile else None


def _tile(stage: str, row: str, column: str) -> list[Step]:
    return [Split(stage=stage, axis=axis, factor=LANES) for axis in (row, column)]


def _bound(stage: str, row: str, column: str) -> list[Step]:
    unrolled = [Unroll(stage=stage, axis=f"{axis}.o") for axis in (row, column)]
    return [*unrolled, Bind(stage=stage, axes=((f"{row}.i", "lane.y"), (f"{column}.i", "lane.x")))]
