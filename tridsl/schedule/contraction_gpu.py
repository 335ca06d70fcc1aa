"""Sums of products on a GPU: tiles of the result for workgroups, panels of the factors in shared memory, tiles of tiles below.

A lane's register tile is two by two groups of four neighbours, half a workgroup's tile apart, so that lanes next to each other read and
write 16 bytes next to each other (Volkov and Demmel 2008; NVIDIA, CUTLASS). Matrix instructions: a subgroup's tile is a grid of
fragments (reference/kernels.md 2.6).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Map, Reduce
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, extent_of, lone_reader, points, unit_stride_axis
from tridsl.schedule.blocked_lanes import shifted
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.lanes import ACCESS_BYTES
from tridsl.schedule.roles import Factors, is_contraction, roles_of
from tridsl.schedule.steps import At, Bind, Intrin, Order, Pad, Pipeline, Split, Step, StoreIn, Unroll, Vector
from tridsl.structs import dataclass, replace

NEIGHBOURS = 4
"""Elements of the register tile that lie side by side."""
FRAGMENTS = 4
"""Fragments of a subgroup's tile along each side: 64 x 64 results of 16 x 16 (reference/kernels.md 2.6)."""
SIDES = (128, 64, 32)
"""Rows or columns of a workgroup's tile."""
LANES = 256
"""Of a workgroup."""
FEWEST = 16
"""Rows and columns of a workgroup's tile where larger ones leave processors idle: its other lanes share the sums."""
SHARE = 8
"""Lanes that share a sum, each with every eighth part of a panel (64 x 256 x 256 on an H100: 4.6 us, 4.6 with 16, 5.1 with 4; tiles of 32 with 4 6.6,
with one 9.4, *measured*)."""
TALL, TALL_DEPTH = 256, 16
"""Rows of a workgroup's tile, and depth of its panels, where there are results enough: 16 x 8 for a lane, which then reads three elements for every
sixteen products instead of four (4096^3 on an H100: 44.4 TFLOP/s, 42.5 with depth 8; 128 rows 40.1, *measured*)."""
FAR = 2
"""Panels that lanes fetch ahead where a processor has one workgroup, so that no other one computes while this one waits (f32 1024^3 on an H100: 67.9 us, 69.2
with three, 70.3 with one; *measured*)."""
PROCESSORS = 128
"""Of a GPU that does not say how many it has: about those of the largest ones."""
LEAST = 16
"""Rows or columns from which a tile is more than padding."""
WASTE = 1.15
"""Padded over wanted points, up to which a larger tile is the better one: half as wide a tile reads each panel twice as often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Contracted:
    """Steps for a contraction, and for the `reader` that is computed with it, tile by tile, from sums that never go to memory."""

    steps: tuple[Step, ...] = ()
    reader: str | None = None


def contraction_gpu(graph: Graph, stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Contracted:
    """Steps for one contraction; none where it is no product of two whole matrices (times a batch), or one too narrow for tiles."""
    if not is_contraction(stage) or len(stage.over) != 1:
        return Contracted()
    factors = roles_of(stage)
    if factors is None or factors.tile is None or not all(_plain(load) for load in (factors.a, factors.b)):
        return Contracted()
    extents = {axis.name: extent_of(axis, sizes) for axis in (*stage.axes, *stage.over)}
    m, n, k = extents[factors.tile], extents[factors.vector], extents[stage.over[0].name]
    if not m or not n or not k or factors.a.tensor == factors.b.tensor:
        return Contracted()
    together = _instruction(stage, factors, spec, flexible=True, grouped=True)
    fitting = together is not None and together.fits([_largest(extent, 128, 64, 32) or 0 for extent in (m, n, k)])
    if fitting and decide(f"{stage.name}.together", False, (True,), "whether a workgroup's tile is one matrix, which the driver divides and reads"):
        assert together is not None
        return Contracted(steps=tuple(_by_groups(stage, factors, together, (m, n, k), decide)))
    row = _instruction(stage, factors, spec, flexible=False)
    found = _by_fragments(stage, factors, row, spec, (m, n, k), _converting(graph, stage), decide) if row is not None else Contracted()
    return found if found.steps else Contracted(steps=tuple(_by_lanes(stage, factors, spec, (m, n, k), sizes, decide)))


def _converting(graph: Graph, stage: Reduce) -> Map | None:
    """The map that makes each result of its own sum and of nothing else with axes: fragments are computed as wholes, wherever in them an element
    is."""
    reader = lone_reader(graph, stage)
    return reader if reader is not None and all(n.tensor == stage.name or not n.index for n in walk(reader.value) if isinstance(n, Load)) else None


def _plain(load: Load) -> bool:
    return load.boundary is None and load.mask is None and all(isinstance(place, Var) for place in load.index)


def _instruction(stage: Reduce, factors: Factors, spec: DeviceSpec, *, flexible: bool, grouped: bool = False) -> Intrinsic | None:
    """A matrix instruction of the device for these types. (It sums in an order of its own, as all of them do.)"""
    types = (factors.a.dtype, factors.b.dtype, stage.reducer.dtypes[0])
    rows = (row for row in INTRINSICS.values() if row.is_matrix and (row.flexible, row.grouped) == (flexible, grouped) and row.feature in spec.features)
    return next((row for row in rows if (row.a, row.b, row.acc) == types), None)


def _largest(extent: int, *sizes: int) -> int | None:
    """The first of `sizes` that divides `extent`."""
    return next((size for size in sizes if extent % size == 0), None)


def _tile(extent: int, *sizes: int) -> int:
    """The first of `sizes` that divides `extent`, or wastes little of the last tile; else the one that wastes least."""
    waste = {size: -(-extent // size) * size / extent for size in sizes}
    fits = next((size for size in sizes if waste[size] <= WASTE), None)
    return min(sizes, key=lambda size: waste[size]) if fits is None else fits


def _padding(stage: str, axes: Sequence[tuple[str, int, int]]) -> list[Step]:
    """Axes, their extents and the sizes that divide them: padded where one does not."""
    return [Pad(stage=stage, axis=axis, factor=size) for axis, extent, size in axes if extent % size]


def _filling(m: int, n: int, batch: int, spec: DeviceSpec) -> tuple[int, int]:
    """Rows and columns of a workgroup's tile: the largest with which there is a workgroup for every processor."""
    rows, columns = _tile(m, *SIDES), _tile(n, *SIDES)
    while _workgroups(m, n, rows, columns) * batch < (spec.cores or PROCESSORS) and max(rows, columns) > SIDES[-1]:
        rows, columns = (rows // 2, columns) if rows >= columns else (rows, columns // 2)
    return rows, columns


def _workgroups(m: int, n: int, rows: int, columns: int) -> int:
    return -(-m // rows) * -(-n // columns)


def _groups(stage: str, factors: Factors, batch: Sequence[str]) -> tuple[list[Step], list[str], tuple[tuple[str, str], ...]]:
    """Batch axes as one loop, and the binding of the loops over tiles."""
    fused, fusing = all_fused(stage, batch)
    bound = ((f"{factors.tile}.o", "group.y"), (f"{factors.vector}.o", "group.x"))
    return list(fusing), [fused] if fused else [], (*(((fused, "group.z"),) if fused else ()), *bound)


def _batch(stage: Reduce, factors: Factors) -> list[str]:
    return [axis.name for axis in stage.axes if axis.name not in (factors.tile, factors.vector)]


def _by_lanes(
    stage: Reduce, factors: Factors, spec: DeviceSpec, extents: tuple[int, int, int], sizes: Mapping[str, int], decide: Decider
) -> list[Step]:  # fmt: skip
    """256 x 128 or 128 x 128 results for 16 x 16 lanes, 16 x 8 or 8 x 8 each; smaller where that wastes less, or where there would be too few workgroups. What no
    tile divides is padded with zeros."""
    name, i, j, over = stage.name, factors.tile or "", factors.vector, stage.over[0].name
    m, n, k = extents
    acc = stage.reducer.dtypes[0]
    if acc.storage_bytes != 4 or (spec.max_group_lanes or 0) < LANES or min(m, n) < LEAST:
        return []
    batch = points(tuple(a for a in stage.axes if a.name not in (i, j)), sizes) or 1
    rows, columns = _filling(m, n, batch, spec)
    depth, share = _tile(k, 32, 16, 8), 1
    along = [f.tensor for f in (factors.a, factors.b) if unit_stride_axis(f) == over and f.dtype.storage_bytes == acc.storage_bytes]
    turned = along if along and decide(f"{name}.turned", True, (False,), "whether panels whose rows lie along the sum lie the other way round") else []
    if _workgroups(m, n, rows, columns) * batch < (spec.cores or PROCESSORS):
        fewest = FEWEST if k % (SHARE * NEIGHBOURS) == 0 else SIDES[-1]  # without others to share its sum, half a subgroup is left
        side = decide(f"{name}.side", fewest, [s for s in (FEWEST, SIDES[-1]) if s != fewest], "rows and columns of a workgroup's tile")
        rows, columns = min(rows, side), min(columns, side)
        most = LANES // ((rows // NEIGHBOURS) * (columns // NEIGHBOURS))
        shares = [s for s in (SHARE, 4, 2, 1, 16) if s == 1 or (s <= most and k % (s * NEIGHBOURS) == 0)]
        share = decide(f"{name}.share", shares[0], shares[1:], "lanes that share the sum of a tile")
        parts = share * rows * columns if share > 1 else 0
        most = ((spec.shared_bytes or 0) // acc.storage_bytes - parts) // (rows + columns + NEIGHBOURS * len(turned))
        depths = [d for d in (16, 32, 64, 128, 256) if d <= most and k % d == 0 == d % (share * NEIGHBOURS)]
        deep = next((d for d in (64, 32) if d in depths), max(depth, share * NEIGHBOURS))
        depth = decide(f"{name}.depth", deep, depths, "depth of the panels in shared memory")
    else:
        if rows == SIDES[0] == columns and turned and m % TALL == 0:
            enough = _workgroups(m, n, TALL, columns) * batch >= (spec.cores or PROCESSORS)
            rows = decide(f"{name}.rows", TALL if enough else rows, (rows, TALL), "rows of a workgroup's tile")
        fit = [d for d in (8, 16, 32) if spec.shared_bytes is None or d * acc.storage_bytes * (rows + columns + NEIGHBOURS * len(turned)) <= spec.shared_bytes]
        depth = min(depth, TALL_DEPTH if rows == TALL else depth, fit[-1] if fit else 8)
        depth = decide(f"{name}.depth", depth, [d for d in fit if k % d == 0], "depth of the panels in shared memory")
    ahead = decide(f"{name}.ahead", True, (False,), "whether the next panels are fetched ahead")
    alone = share == 1 and rows < TALL and _workgroups(m, n, rows, columns) * batch < 2 * (spec.cores or PROCESSORS)
    far = decide(f"{name}.far", FAR if alone else 1, (1, 3) if alone else (2, 3), "how many panels ahead they are fetched") if ahead and k // depth > 3 else int(ahead)
    lanes_y, lanes_x = min(16, rows // NEIGHBOURS), min(16, columns // NEIGHBOURS)
    steps, batches, groups = _groups(name, factors, _batch(stage, factors))
    steps = _padding(name, ((i, m, rows), (j, n, columns), (over, k, depth))) + steps
    for axis, size, lanes in ((i, rows, lanes_y), (j, columns, lanes_x)):
        steps += [
            Split(stage=name, axis=axis, factor=size),
            Split(stage=name, axis=f"{axis}.i", factor=lanes * NEIGHBOURS),
            Split(stage=name, axis=f"{axis}.i.i", factor=NEIGHBOURS),
        ]
    within, shared = f"{over}.i", []
    steps.append(Split(stage=name, axis=over, factor=depth))
    if share > 1:
        steps.append(Split(stage=name, axis=within, factor=depth // share))
        within, shared = f"{within}.i", [f"{within}.o"]
    steps.append(Split(stage=name, axis=within, factor=NEIGHBOURS))
    tile = (f"{i}.i.o", f"{i}.i.i.i", f"{j}.i.o", f"{j}.i.i.i")
    lanes_of = (f"{i}.i.i.o", f"{j}.i.i.o")
    inner = (f"{over}.o", f"{within}.o", f"{within}.i")
    bound = (*((axis, "lane.z") for axis in shared), (lanes_of[0], "lane.y"), (lanes_of[1], "lane.x"))
    steps += [
        Order(stage=name, axes=(*batches, f"{i}.o", f"{j}.o", *shared, *lanes_of, *inner, *tile)),
        Bind(stage=name, axes=(*groups, *bound)),
        *(Unroll(stage=name, axis=axis) for axis in (f"{within}.i", *tile[:-1])),
        Vector(stage=name, axis=tile[-1]),
    ]
    return [*steps, *_panels(stage, factors, _Staged(ahead=far, turned=turned, room=NEIGHBOURS))]


def _by_fragments(
    stage: Reduce, factors: Factors, row: Intrinsic, spec: DeviceSpec, extents: tuple[int, int, int], reader: Map | None, decide: Decider
) -> Contracted:  # fmt: skip
    """128 x 128 results for four subgroups, four by four fragments of 16 x 16 each; smaller where that wastes less. What no tile divides is
    padded with zeros; where a `reader` makes the results of the sums, tiles that would end outside begin early."""
    name, i, j, over = stage.name, factors.tile or "", factors.vector, stage.over[0].name
    m, n, k = extents
    access = ACCESS_BYTES // row.a.storage_bytes
    divided = m % row.m == n % row.n == k % row.k == 0
    if m < row.m or n < row.n or k < row.k or spec.matrix_lanes is None or not (divided or n % access == k % access == 0):
        return Contracted()  # rows that begin anywhere are fetched element by element, for which lanes are the faster way
    rows, columns = _tile(m, *SIDES, 16, row.m), _tile(n, *SIDES, 16, row.n)
    rows = decide(f"{name}.rows", rows, [s for s in (64, 128, 256) if m % s == 0], "rows of a workgroup's tile")
    columns = decide(f"{name}.columns", columns, [s for s in (64, 128, 256) if n % s == 0], "columns of a workgroup's tile")
    depths = [d for d in (row.k, 2 * row.k, 4 * row.k) if k % d == 0]
    depth = decide(f"{name}.depth", _tile(k, 2 * row.k, row.k), depths, "depth of the panels")
    pad = decide(f"{name}.pad", access, (0, 2 * access), "elements between the rows of a panel, against bank conflicts")
    ahead = decide(f"{name}.ahead", True, (False,), "whether the next panels are fetched ahead")
    # Further ahead takes registers that sums and fragments need, and two panels room for a second workgroup (f16 4096^3 on an H100, TFLOP/s: 308; 264 two
    # ahead; two panels of 16 terms by 256 columns 282, *measured*).
    far = decide(f"{name}.far", 1, (2, 3), "how many panels ahead they are fetched") if ahead and k // depth > 3 else int(ahead)
    bytes_of = row.a.storage_bytes * (rows * (depth + pad) + depth * (columns + pad))
    fits = far and spec.shared_bytes is not None and 2 * bytes_of <= spec.shared_bytes
    shared = decide(f"{name}.turns", 1, (2,), "panels in shared memory that take turns") if fits else 1
    across = _across(factors, over) if m % rows == n % columns == k % depth == depth % access == 0 else []
    turned = across if across and decide(f"{name}.turned", True, (False,), "whether panels of bytes that lie across the sum lie the other way round") else []
    staged = _Staged(ahead=far, shared=shared, turned=turned, pad=pad, room=pad)
    high = decide(f"{name}.high", min(FRAGMENTS * row.m, rows), [s for s in (32, 64, 128) if rows % s == 0], "rows of a subgroup's tile")
    broad = decide(f"{name}.broad", min(FRAGMENTS * row.n, columns), [s for s in (32, 64, 128) if columns % s == 0], "columns of a subgroup's tile")
    flat = decide(f"{name}.flat", True, (False,), "whether the instructions of a whole panel are written out")
    one = _instruction(stage, factors, spec, flexible=True)
    if one is not None and not one.fits((high, broad, depth)):
        one = None
    if one is not None and decide(f"{name}.whole", False, (True,), "whether a subgroup's tile is one matrix, which the driver divides"):
        row, reader = replace(one, m=high, n=broad, k=depth), None
    tiles = ((i, m, rows, high, row.m), (j, n, columns, broad, row.n))
    whole = m % rows == 0 == n % columns  # others begin early: right, and not measured on a device
    if reader is not None and m >= rows and n >= columns and decide(f"{name}.with", whole, (not whole,), f"whether `{reader.name}` is computed with the sums"):
        return Contracted(steps=tuple(_with_reader(stage, reader, factors, row, tiles, (k, depth), flat, staged)), reader=reader.name)
    steps, batch, groups = _groups(name, factors, _batch(stage, factors))
    steps = _padding(name, ((i, m, rows), (j, n, columns), (over, k, depth))) + steps
    steps += [Split(stage=name, axis=axis, factor=size) for axis, _, size, _, _ in tiles]
    within = _Fragments(stage=name, rows=f"{i}.i", columns=f"{j}.i", over=over, depth=depth, row=row)
    steps += [
        *within.split(high, broad), Order(stage=name, axes=(*batch, f"{i}.o", f"{j}.o", *within.order)),
        Bind(stage=name, axes=(*groups, *within.bound)), *within.instruction(flat),
    ]  # fmt: skip
    return Contracted(steps=(*steps, *_panels(stage, factors, staged)))


def _with_reader(
    stage: Reduce, reader: Map, factors: Factors, row: Intrinsic, tiles: Sequence[tuple[str, int, int, int, int]], depths: tuple[int, int],
    flat: bool, staged: _Staged,
) -> list[Step]:  # fmt: skip
    """The sums of a tile stay in fragments, of which the reader makes the results: nothing is written but these."""
    name, root, (i, j), over, (k, depth) = stage.name, reader.name, (factors.tile or "", factors.vector), stage.over[0].name, depths
    batch = _batch(stage, factors)
    inside = _Fragments(stage=name, rows=i, columns=j, over=over, depth=depth, row=row)
    result = _Fragments(stage=root, rows=f"{i}.i", columns=f"{j}.i", over=None, depth=0, row=row)
    high, broad = (own for *_, own, _ in tiles)
    steps = _padding(name, ((over, k, depth),))
    steps += [Split(stage=root, axis=axis, factor=size, tail=shifted(extent, size)) for axis, extent, size, _, _ in tiles]
    steps += [
        Order(stage=root, axes=(*batch, f"{i}.o", f"{j}.o", f"{i}.i", f"{j}.i")),
        At(stage=name, consumer=root, axis=f"{j}.o"), StoreIn(stage=name, space="fragment"),
        *inside.split(high, broad), Order(stage=name, axes=(*batch, *inside.order)), Bind(stage=name, axes=inside.bound), *inside.instruction(flat),
        *_panels(stage, factors, staged),
        *result.split(high, broad), Order(stage=root, axes=result.order), *result.written_out(),
    ]  # fmt: skip
    fusing, _, groups = _groups(root, factors, batch)
    return [*steps, *fusing, Bind(stage=root, axes=(*groups, *result.bound))]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fragments:
    """Loops over the fragments of a workgroup's tile: those of the subgroups, of a subgroup's fragments, of the elements of one. `rows` and
    `columns` are the loops over the tile; `over`: the sum, in panels of `depth`, where it is made here."""

    stage: str
    rows: str
    columns: str
    over: str | None
    depth: int
    row: Intrinsic

    @property
    def bound(self) -> tuple[tuple[str, str], ...]:
        return ((f"{self.rows}.o", "subgroup.y"), (f"{self.columns}.o", "subgroup.x"))

    @property
    def tile(self) -> tuple[str, ...]:
        return (f"{self.rows}.i.o", f"{self.columns}.i.o")

    @property
    def order(self) -> tuple[str, ...]:
        panel = (f"{self.over}.o", f"{self.over}.i.o") if self.over else ()
        terms = (f"{self.over}.i.i",) if self.over else ()
        return (f"{self.rows}.o", f"{self.columns}.o", *panel, *self.tile, f"{self.rows}.i.i", f"{self.columns}.i.i", *terms)

    def split(self, high: int, broad: int) -> list[Step]:
        steps: list[Step] = []
        for axis, own, fragment in ((self.rows, high, self.row.m), (self.columns, broad, self.row.n)):
            steps += [Split(stage=self.stage, axis=axis, factor=own), Split(stage=self.stage, axis=f"{axis}.i", factor=fragment)]
        if self.over:
            steps += [Split(stage=self.stage, axis=self.over, factor=self.depth), Split(stage=self.stage, axis=f"{self.over}.i", factor=self.row.k)]
        return steps

    def written_out(self, *outer: str) -> list[Step]:
        return [Unroll(stage=self.stage, axis=axis) for axis in (*outer, *self.tile)]

    def instruction(self, flat: bool) -> list[Step]:
        return [*self.written_out(*([f"{self.over}.i.o"] if flat else [])), Intrin(stage=self.stage, name=self.row.name)]


def _by_groups(stage: Reduce, factors: Factors, row: Intrinsic, extents: tuple[int, int, int], decide: Decider) -> list[Step]:
    """128 x 128 results for a workgroup, one matrix: nothing is staged, the driver does that."""
    name, i, j, over = stage.name, factors.tile or "", factors.vector, stage.over[0].name
    m, n, k = extents
    rows, columns, depth = _largest(m, 128, 64, 32) or m, _largest(n, 128, 64, 32) or n, _largest(k, 64, 32, row.k) or k
    rows = decide(f"{name}.rows", rows, [s for s in (64, 128, 256) if m % s == 0], "rows of a workgroup's tile")
    columns = decide(f"{name}.columns", columns, [s for s in (64, 128, 256) if n % s == 0], "columns of a workgroup's tile")
    depth = decide(f"{name}.depth", depth, [d for d in (row.k, 32, 64, 128) if k % d == 0], "terms of the sum that are read at a time")
    steps, batch, groups = _groups(name, factors, _batch(stage, factors))
    for axis, size in ((i, rows), (j, columns)):
        steps += [Split(stage=name, axis=axis, factor=size), Split(stage=name, axis=f"{axis}.i", factor=size)]
    tile = (f"{i}.i.o", f"{j}.i.o")  # one matrix is a tile of one
    return [
        *steps,
        Split(stage=name, axis=over, factor=depth),
        Order(stage=name, axes=(*batch, f"{i}.o", f"{j}.o", f"{over}.o", *tile, f"{i}.i.i", f"{j}.i.i", f"{over}.i")),
        Bind(stage=name, axes=groups),
        *(Unroll(stage=name, axis=axis) for axis in tile),
        Intrin(stage=name, name=row.name),
    ]


def _across(factors: Factors, over: str) -> list[str]:
    """Factors of bytes whose rows lie across the sum: an instruction takes four neighbours along it for a register, and no load from shared memory
    transposes bytes (i8 4096^3 on an H100: 468 TOP/s with B turned, 308 as it lies, *measured*; halves are transposed by the load, and lose by it)."""
    return [f.tensor for f in (factors.a, factors.b) if f.dtype.storage_bytes == 1 and unit_stride_axis(f) != over]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Staged:
    """How panels are staged: fetched so many iterations `ahead`, so many in `shared` memory that take turns. `turned`: factors whose panels lie the other
    way round, with `room` behind their rows against bank conflicts where they are filled; `pad` behind the others'."""

    ahead: int
    shared: int = 1
    turned: Sequence[str] = ()
    pad: int = 0
    room: int = 0


def _panels(stage: Reduce, factors: Factors, way: _Staged) -> list[Step]:
    at = f"{stage.over[0].name}.o"
    steps: list[Step] = []
    for load in (factors.a, factors.b):
        turned = load.tensor in way.turned
        steps.append(StoreIn(stage=load.tensor, space="shared", at=at, buffers=way.shared, pad=way.room if turned else way.pad, turned=turned))
    return [*steps, Pipeline(stage=stage.name, depth=way.ahead)] if way.ahead else steps
