"""Monoids that are merged in blocks on an array of cores: a core for a block of rows, keys and values streamed past it.

Both products are matrix instructions; scores, weights and states stay in the core until the last block. What stands between the products goes along a
row at a time, so those buffers lie in rows, not in the instruction's blocks (`schedule.panel_blocks`). Heads go to columns, whose cores share their
keys and values, and blocks of rows to the cores of a column.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import lcm

from tridsl.devices.intrinsics import Intrinsic
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.op import Reduce
from tridsl.ir.walk import variables
from tridsl.schedule.analyse import Graph, extent_of
from tridsl.schedule.blocked_monoid import Group, blocked_group
from tridsl.schedule.blocked_rows import Blocked
from tridsl.schedule.contraction_npu import instruction_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import At, Bind, BlockBy, Inline, Intrin, Order, Split, Step, StoreIn, Unroll, Vector
from tridsl.schedule.tile_cost import EXPANSION
from tridsl.structs import dataclass, replace

ROWS = 64
"""Rows of a core's block, and elements merged at a time: as many as fit up to these."""
STATES = 6
"""Numbers of a row besides its scores and sums: two states, what a block adds to them, and what alignment costs."""
SLACK_BYTES = 1024
LANES = 16
"""Elements of a vector of f32: rows of scores are whole ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """Extents of the axes by name, and the instructions of the products: of each score, and of the weighted sum. `together`: rows that share their keys
    where not all do."""

    known: Mapping[str, int]
    scores: tuple[Intrinsic, ...]
    sums: Intrinsic
    together: int = 0

    @property
    def rows(self) -> int:
        return EXPANSION * lcm(*(row.m for row in (*self.scores, self.sums)))

    @property
    def elements(self) -> int:
        return lcm(*(EXPANSION * row.n for row in self.scores), self.sums.k, LANES)


def blocked_npu(graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> tuple[Blocked, ...]:
    """Steps for each such monoid whose products the array has instructions for. (What is too large for a core, the limits name.)"""
    found = []
    for stage in graph.stages.values():
        whole = blocked_group(graph, stage, spec, sizes) if isinstance(stage, Reduce) else None
        group = _on_the_array(whole) if whole is not None else None
        steps = _steps(group, spec, spec.array, sizes, decide) if group is not None and spec.array is not None else []
        if group is not None and steps:
            found.append(Blocked(members=group.members, steps=tuple(steps)))
    return tuple(found)


def _steps(group: Group, spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    acc = group.merge.reducer.dtypes[0]
    axes = (*group.merge.axes, *group.merge.over, *(a for s in group.scores for a in s.stage.over))
    known = {a.name: extent_of(a, sizes) or 0 for a in axes}
    scores = [instruction_of(s.stage.name, (s.rows.dtype, s.elements.dtype, acc), spec, decide) for s in group.scores]
    value = group.values[0].dtype
    rounds = value != acc and decide(f"{group.merge.name}.round_weights", True, (False,), "whether weights are rounded to the type of the values they multiply")
    sums = instruction_of(group.sum, (value if rounds else acc, value, acc), spec, decide)
    if sums is None or not all(known.values()):
        return []
    rows = tuple(row for row in scores if row is not None)
    if len(rows) < len(scores):
        return []
    together = 0
    if group.grouped is not None and known[group.row] == 1 and group.grouped[1] <= ROWS:  # one step of decoding: the heads that share keys are rows
        axis, together = group.grouped
        group = replace(group, row=axis, grouped=None)
    return _shaped(group, _Sizes(known=known, scores=rows, sums=sums, together=together), spec, array, decide)


def _on_the_array(group: Group) -> Group | None:
    """The part of the group that one design can be: two sums for a score need more streams than a core has, so such scores come from memory."""
    if len(group.values) != 1:
        return None
    if len(group.scores) == 1 and len(group.scores[0].terms) == 1:
        return group
    return replace(group, scores=(), between=()) if group.between else None


def _shaped(group: Group, s: _Sizes, spec: DeviceSpec, array: ArraySpec, decide: Decider) -> list[Step]:
    q, t, e = group.row, group.elements, group.own.name
    merge, root, sums, weight = group.merge.name, group.root.name, group.sum, group.part("weight")
    tile = _tile(group, s, array, decide)
    steps: list[Step] = [*(Inline(stage=name) for name in group.between), Split(stage=root, axis=q, factor=tile.rows)]
    around, dealt = _dealt(group, s, tile, spec, array, decide)
    steps += [*dealt, At(stage=merge, consumer=root, axis=around), BlockBy(stage=merge, axis=t, factor=tile.elements)]
    for scores, row in zip(group.scores, s.scores):
        steps.append(At(stage=scores.stage.name, consumer=merge, axis=f"{t}.o"))
        steps += _product(scores.stage.name, (q, t, scores.terms[0]), row, group.others)
    if s.sums.a != group.merge.reducer.dtypes[0]:
        steps.append(StoreIn(stage=weight, space="l1", type=s.sums.a))
    steps += _product(sums, (q, e, f"{t}.i"), s.sums, group.others)
    steps += [Vector(stage=group.part(part), axis=f"{t}.i") for part in ("key", "weight")]
    steps += [
        Vector(stage=group.part("start"), axis=q), Vector(stage=group.part("scale"), axis=q),
        Vector(stage=f"{sums}.start", axis=f"{e}.init"), Vector(stage=f"{sums}.scale", axis=e),
        Vector(stage=root, axis=e if tile.whole(s, e) else f"{e}.i"),
    ]  # fmt: skip
    return [*steps, StoreIn(stage=merge, space="l1", at=f"{t}.o", buffers=2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tile:
    """What a core works on: `rows`, `width` of their sums, and how many elements are merged at a time."""

    rows: int
    elements: int
    width: int

    def whole(self, s: _Sizes, own: str) -> bool:
        return self.width >= s.known[own]


def _tile(group: Group, s: _Sizes, array: ArraySpec, decide: Decider) -> _Tile:
    """Rows and elements near to a square, the most that fits; whole sums where any fit, else a part of their width: the weights are made for each."""
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES
    q, t, e = group.row, group.elements, group.own.name
    unit = EXPANSION * s.sums.n
    heights = [s.together] if s.together else _multiples(s.rows, s.known[q], array.rows)
    possible = [(r, b) for r in heights for b in _multiples(s.elements, s.known[t], 1)]
    widths = list(dict.fromkeys(_up(-(-s.known[e] // parts), unit) for parts in range(1, -(-s.known[e] // unit) + 1)))
    fitting = ((w, [(r, b) for r, b in possible if _bytes(group, s, r, b, w) <= room]) for w in widths)
    width, shapes = next(((w, fits) for w, fits in fitting if fits), (widths[-1], possible[:1]))
    most = max(shapes, key=lambda shape: (min(shape), shape))
    rows = decide(f"{group.merge.name}.block_rows", most[0], sorted({r for r, b in shapes if b == most[1]}), "rows of a core's block")
    elements = decide(f"{group.merge.name}.block", most[1], sorted({b for r, b in shapes if r == rows}), "elements merged at a time")
    return _Tile(rows=rows, elements=elements, width=width)


def _multiples(unit: int, extent: int, parts: int) -> list[int]:
    """Up to `ROWS`, none larger than what one of `parts` needs."""
    most = -(-extent // (parts * unit)) * unit
    return list(range(unit, min(max(ROWS, unit), most) + 1, unit)) or [unit]


def _up(count: int, unit: int) -> int:
    return -(-count // unit) * unit


def _bytes(group: Group, s: _Sizes, rows: int, block: int, width: int) -> int:
    """Of a core's memory: the rows' factors and result, two blocks of keys and of values, scores, weights and states."""
    acc: DType = group.merge.reducer.dtypes[0]
    wide, rows = _up(width, LANES), _up(rows, s.rows)
    moving = rows * wide * group.root.dtype.storage_bytes
    streamed = block * wide * group.values[0].dtype.storage_bytes
    for scores, row in zip(group.scores, s.scores):
        depth = _up(s.known[scores.terms[0]], row.k)
        moving += rows * depth * scores.rows.dtype.storage_bytes
        streamed += block * depth * scores.elements.dtype.storage_bytes
    between = block * ((len(group.scores) or 2) * acc.storage_bytes + s.sums.a.storage_bytes)
    return moving + 2 * streamed + rows * (between + (wide + STATES) * acc.storage_bytes)


def _dealt(group: Group, s: _Sizes, tile: _Tile, spec: DeviceSpec, array: ArraySpec, decide: Decider) -> tuple[str, list[Step]]:
    """The loop inside which a core merges, and the steps that give cores their rows: heads to columns where there are as many and all that is streamed
    moves with them, otherwise blocks of rows to columns too. Heads that share keys are neighbours; so are the blocks of a
    column's cores, which see as many elements under a mask. Parts of the width are the last to be dealt."""
    root, q, e = group.root.name, group.row, group.own.name
    most = spec.columns or 1
    columns = decide(f"{group.merge.name}.columns", most, [n for n in (1, 2, 4, 8) if n <= most], "columns of the array")
    steps: list[Step] = []
    heads: list[str] = []
    counts = {}
    for axis in group.others:
        together = group.grouped[1] if group.grouped and group.grouped[0] == axis else 1
        if together > 1:
            steps.append(Split(stage=root, axis=axis, factor=together))
            heads += [f"{axis}.o", f"{axis}.i"]
            counts[f"{axis}.o"] = -(-s.known[axis] // together)
        else:
            heads.append(axis)
            counts[axis] = s.known[axis]
    blocks, parts = -(-s.known[q] // tile.rows), -(-s.known[e] // tile.width)
    streamed = (*(scores.elements for scores in group.scores), *group.values)
    moving = [axis for axis in counts if all(axis.partition(".")[0] in variables(load.index) for load in streamed)]
    dealt = max(moving, key=lambda axis: counts[axis], default=None)
    rows = 1 if s.together else min(array.rows, blocks)  # more streams of keys than one to a column have no channels
    if dealt is not None and (counts[dealt] >= columns or blocks <= array.rows):
        steps.append(Split(stage=root, axis=dealt, factor=-(-counts[dealt] // columns)))
        column, heads[heads.index(dealt)] = f"{dealt}.o", f"{dealt}.i"
        row, own_blocks = _hands_out(root, f"{q}.o", blocks, rows, steps)
    elif blocks % rows:
        core = -(-blocks // (columns * rows))
        steps += [Split(stage=root, axis=f"{q}.o", factor=core * rows), Split(stage=root, axis=f"{q}.o.i", factor=core)]
        column, row, own_blocks = f"{q}.o.o", f"{q}.o.i.o", f"{q}.o.i.i"
    else:
        row, own_blocks = _hands_out(root, f"{q}.o", blocks, rows, steps)
        column, own_blocks = _hands_out(root, own_blocks, blocks // rows, min(columns, blocks // rows), steps)
    inner = [own_blocks]
    own = [e] if parts == 1 else [f"{e}.i"]
    if parts > 1:
        steps.append(Split(stage=root, axis=e, factor=tile.width))
        inner.append(f"{e}.o")
    if parts > 1 and blocks == 1:
        steps.append(Split(stage=root, axis=f"{e}.o", factor=-(-parts // array.rows)))
        inner[-1:] = [row, f"{e}.o.i"]
        row = f"{e}.o.o"
    steps.append(Order(stage=root, axes=(column, row, *heads, *inner, f"{q}.i", *own)))
    return inner[-1], [*steps, Bind(stage=root, axes=((column, "column"), (row, "row")))]


def _hands_out(stage: str, axis: str, count: int, parts: int, steps: list[Step]) -> tuple[str, str]:
    """The loop over `parts` and the one inside each: every part gets each `parts`-th iteration where that comes out even, else neighbours."""
    even = count % parts == 0
    steps.append(Split(stage=stage, axis=axis, factor=parts if even else -(-count // parts)))
    return (f"{axis}.i", f"{axis}.o") if even else (f"{axis}.o", f"{axis}.i")


def _product(stage: str, axes: tuple[str, str, str], row: Intrinsic, batch: tuple[str, ...]) -> list[Step]:
    """Blocks of the instruction, two by two in its accumulators."""
    m, n, k = axes
    steps: list[Step] = [Split(stage=stage, axis=axis, factor=size) for axis, size in ((m, row.m), (n, row.n), (k, row.k))]
    steps += [Split(stage=stage, axis=f"{axis}.o", factor=EXPANSION) for axis in (m, n)]
    inner = (f"{m}.o.o", f"{n}.o.o", f"{k}.o", f"{m}.o.i", f"{n}.o.i", f"{m}.i", f"{n}.i", f"{k}.i")
    return [*steps, Order(stage=stage, axes=(*batch, *inner)), *(Unroll(stage=stage, axis=f"{axis}.o.i") for axis in (m, n)), Intrin(stage=stage, name=row.name)]
