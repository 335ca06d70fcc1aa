"""Sums of products with a packed matrix of trits on a GPU: a workgroup for each block row, its lanes along the row.

A block of 16 rows lies in one or a few stretches of 64 bytes, 4 for each row (`ir.packings`). Four neighbouring lanes take 16 bytes
each, which are a word of each of four rows; the workgroup's other lanes take the blocks behind it. What the lanes found is added up at
the end, and the stage that reads the sum, if it is a map, is computed there: one kernel, with nothing between its loops but registers.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.op import Map, Reduce
from tridsl.ir.packings import BYTES, ROWS
from tridsl.schedule.analyse import Graph, extent_of, lone_reader
from tridsl.schedule.blocked_rows import Blocked
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.lanes import ACCESS_BYTES
from tridsl.schedule.packed_sums import PackedSum, packed_sums
from tridsl.schedule.steps import At, Bind, Inline, Intrin, Order, Planes, Split, Step, Unroll

FEW = 4
"""Times fewer lanes than wanted from which on even parts of a row are not worth it."""
LANES = 256
"""Lanes of a workgroup: with 16 rows of a few thousand bytes each, some accesses of every lane are under way together."""
MOST_TOKENS = 8
"""Tokens whose sums a lane keeps for its four rows."""
MOST_PRODUCTS = 256
"""Products of words that are written out for the accesses that a lane makes together."""
MOST_ACCESSES = 10
"""Accesses of a lane that are under way together."""


def packed_sums_gpu(graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> tuple[Blocked, ...]:
    """Steps for each such sum of known size, and for the map that alone reads it."""
    found = []
    for name, packed in packed_sums(graph.op, spec, sizes).items():
        stage = graph.stages[name]
        assert isinstance(stage, Reduce)
        extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
        if any(n is None or n < 1 for n in extents.values()):
            continue
        root = lone_reader(graph, stage)
        members = frozenset({name, *([root.name] if root else [])})
        found.append(Blocked(members=members, steps=tuple(_steps(stage, packed, root, extents, spec, decide))))
    return tuple(found)


def _steps(
    stage: Reduce, found: PackedSum, root: Map | None, extents: Mapping[str, int | None], spec: DeviceSpec, decide: Decider
) -> list[Step]:  # fmt: skip
    name, m, k, n = stage.name, found.m, found.k, found.token
    home, partial = root.name if root else name, f"{name}.planes"
    columns, quads = found.packing.columns, ROWS * BYTES // ACCESS_BYTES
    blocks = -(-(extents[k] or 0) // columns)
    most = min(LANES, spec.max_group_lanes or LANES) // quads
    across = _divisor(blocks, most, max(spec.subgroup_sizes, default=1) // quads)
    across = across if FEW * across >= min(blocks, most) else min(blocks, most)
    across = decide(f"{name}.lanes", across, [d for d in range(1, most + 1) if blocks % d == 0], "lanes along a row") if blocks > 1 else 1
    strided = blocks % across == 0  # neighbours to neighbouring lanes; otherwise a stretch of the row to each
    lane, step = (f"{k}.o.i", f"{k}.o.o") if strided else (f"{k}.o.o", f"{k}.o.i")
    tokens = 1 if n is None else extents[n] or 1
    products = found.packing.groups * BYTES
    held = _divisor(tokens, min(MOST_TOKENS, max(1, MOST_PRODUCTS // products)), 1)
    together = 1 if n is None else decide(f"{name}.tokens", held, [t for t in (1, 2, 4, 8) if tokens % t == 0], "tokens of one lane")
    ahead = 1 if not strided else _divisor(blocks // across, max(1, min(MOST_ACCESSES, MOST_PRODUCTS // (products * together))), 1)
    if strided:
        ahead = decide(f"{name}.ahead", ahead, [a for a in (1, 2, 3, 4, 7, 9) if blocks // across % a == 0], "blocks of a row that a lane fetches together")
    # the result, in block rows
    steps: list[Step] = [Planes(stage=name, parts=0)]
    steps += [Inline(stage=name), Split(stage=home, axis=m, factor=ROWS)] if root else []
    batch = [a.name for a in stage.axes if a.name not in (m, n)]
    outer = [*batch, *([f"{n}.o"] if n is not None else []), f"{m}.o"]
    if n is not None:
        steps.append(Split(stage=home, axis=n, factor=together))
    inner = [*([f"{n}.i"] if n is not None else []), f"{m}.i"]
    steps += [Order(stage=home, axes=(*outer, *inner)), At(stage=partial, consumer=home, axis=f"{m}.o")]
    # the partial sums: quads of rows, then blocks along the row, to lanes
    steps += [Split(stage=partial, axis=f"{m}.i", factor=BYTES), Split(stage=partial, axis=f"{k}.o", factor=across if strided else -(-blocks // across))]
    tile = [*([n] if n is not None else []), f"{k}.p", f"{m}.i.i"]
    around = [*batch, f"{m}.o", f"{m}.i.o", lane]
    if (extents[k] or 0) % columns == 0:
        steps.append(Split(stage=partial, axis=step, factor=ahead))
        inside = [f"{step}.i", f"{k}.g", *tile]
        steps += [Order(stage=partial, axes=(*around, f"{step}.o", *inside, f"{k}.i")), Intrin(stage=partial, name=found.row.name)]
    else:  # every product asks whether it is there
        inside = tile
        steps.append(Order(stage=partial, axes=(*around, step, f"{k}.g", f"{k}.i", *tile)))
    steps += [*(Unroll(stage=partial, axis=axis) for axis in inside), Bind(stage=partial, axes=((f"{m}.i.o", "lane.x"), (lane, "lane.y")))]
    # the result's own lanes and workgroups
    rows = (f"{m}.i", "lane.y") if across >= ROWS else (f"{m}.i", "lane.x")
    steps.append(Bind(stage=home, axes=(rows,)))
    groups = [(f"{m}.o", "group.x")]
    if outer[:-1]:
        fused, fusing = all_fused(home, outer[:-1])
        steps += fusing
        groups.append((fused, "group.y"))
    return [*steps, Bind(stage=home, axes=tuple(groups))]


def _divisor(extent: int, most: int, step: int) -> int:
    """The largest part up to `most` that divides the extent, in whole steps where there is such a part that is not far smaller."""
    parts = [n for n in range(1, max(1, most) + 1) if extent % n == 0]
    whole = [n for n in parts if n % max(1, step) == 0 and 2 * n >= parts[-1]]
    return whole[-1] if whole else parts[-1]
