"""Sums of products on an array of cores: tiles of the result for cores, panels of the factors shared along rows and columns.

A core multiplies m x k by k x n at a time with its matrix instruction, two by two blocks of the result in its accumulators; columns of the array
share the panels of B, rows those of A (the whole-array scheme of mlir-aie). m, n and k are the fastest that fit by `devices.array_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.array_model import Product, kernel_macs, peak_macs, seconds
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.expr import Cast, Load, Var
from tridsl.ir.op import Map, Reduce
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, pointwise, values_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import Factors, roles_of
from tridsl.schedule.steps import At, Bind, Intrin, Order, Split, Step, StoreIn, Tile, Unroll, Vector
from tridsl.structs import dataclass, replace

EXPANSION = 2
"""Blocks of the result along each side that a core's accumulators hold: each loaded block of a factor is used twice."""
RIDING = 3
"""Copies in a core of what else the map behind a product reads: one that is kept, two that come again and again (`npu.ride`)."""
SCALARS_BYTES = 256
BANK_SPARE = 8
"""Descriptors of a memory tile that stay unused where long chains have to be divided between its two halves."""
PIECES = range(1, 9)
"""Panels of a core, one behind another along K, that a memory tile can be given in one piece: longer runs in the host's memory."""


def contraction_npu(
    graph: Graph, name: str, live: Sequence[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps for one contraction, alone or behind it a map that reads each of its elements once; none where no instruction fits."""
    stage = graph.stages[name]
    array = spec.array
    assert isinstance(stage, Reduce) and array is not None
    factors = roles_of(stage)
    result = live[-1]
    if factors is None or factors.tile is None or any(load.boundary or not all(isinstance(i, Var) for i in load.index) for load in (factors.a, factors.b)):
        return []
    if result != name and not _follows(graph, name, result, live):
        return []
    row = instruction_of(name, (factors.a.dtype, factors.b.dtype, stage.reducer.dtypes[0]), spec, decide)
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in (*stage.axes, *stage.over)}
    if row is None or not all(extents.values()):
        return []
    i, j = _sides(stage, factors)
    over = stage.over[0].name
    made = {t.name: t for t in graph.op.tensors}[result].dtype
    others = _beside(graph, name, result, (i, j))
    if any(moves == (True, True) for moves, _ in others):
        return []  # a third stream to each core, with nobody to ride with
    columns = decide(f"{name}.columns", spec.columns or 1, [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)], "columns of the array")
    sums = row.acc
    if result != name and narrowable(graph, name, made):
        exact = made.is_integer
        sums = decide_sums(name, made if exact else row.acc, () if exact else (made,), decide)
    deep = {side: _deep(load, over) for load in (factors.a, factors.b) for side in (i, j) if Var(name=side) in load.index}
    cost = TileCost(
        row=row, array=array, extents=(extents[i], extents[j], extents[over]), columns=columns, result=made, sums=sums, deep=(deep[i], deep[j]),
        beside=_bytes(others, scalars=len(graph.op.params) > len(graph.op.tensors)),
        riders=(sum(moves == (True, False) for moves, _ in others), sum(moves == (False, True) for moves, _ in others)),
    )
    m, n, k = tile_of(cost)
    k = decide(f"{name}.depth", k, [d for d in (row.k, 2 * row.k, 4 * row.k, 8 * row.k) if d <= k], "depth of a core's panels")
    piece = decide(f"{name}.piece", max(pieces := cost.pieces(m, n, k)), pieces, "panels of a core that the memory tile gets in one piece")
    shape = Shape(
        i=i, j=j, over=over, m=m, n=n, k=k, columns=columns, rows=array.rows, extents=extents, piece=piece, sums=None if sums == row.acc else sums
    )
    return _alone(name, stage, row, shape) if result == name else _followed(graph, name, result, row, shape)


def instruction_of(name: str, types: tuple[DType, DType, DType], spec: DeviceSpec, decide: Decider) -> Intrinsic | None:
    """The device's matrix instruction for factors and sums of these types. One that rounds its factors to shared exponents is for the caller to choose:
    it is many times as fast where the hardware has no other, and its products have two digits."""
    exact, rounding = (
        next((r for r in INTRINSICS.values() if (r.a, r.b, r.acc) == types and not r.lanes and r.feature in spec.features and r.shares_exponent is kind), None)
        for kind in (False, True)
    )
    if exact is None or rounding is None:
        return exact
    return rounding if decide(f"{name}.shared_exponents", False, (True,), "factors are rounded to 8 bits with an exponent for every 8") else exact


def _deep(load: Load, over: str) -> bool:
    """Whether neighbours along the sum are neighbours in memory."""
    return load.index[-1] == Var(name=over)


def _beside(graph: Graph, name: str, result: str, sides: tuple[str, str]) -> list[tuple[tuple[bool, bool], int]]:
    """What else the result's stage reads: whether it moves with the rows and with the columns of the tile, and the bytes of an element."""
    if result == name:
        return []
    sums = graph.readers(name)[0].load
    axes = {axis.name: place for axis, place in zip(axes_of(graph.stages[name]), sums.index)}
    types = {t.name: t.dtype for t in graph.op.tensors}
    loads = {n.tensor: n for v in values_of(graph.stages[result]) for n in walk(v) if isinstance(n, Load) and n.tensor != name}
    return [((axes[sides[0]] in n.index, axes[sides[1]] in n.index), types[n.tensor].storage_bytes) for n in loads.values()]


def _bytes(others: list[tuple[tuple[bool, bool], int]], *, scalars: bool) -> tuple[int, int, int, int]:
    """Of a core's memory: a row, a column, an element of a tile, and by itself."""
    row, column, element, alone = (
        RIDING * sum(size for moves, size in others if moves == kind) for kind in ((True, False), (False, True), (True, True), (False, False))
    )
    return row, column, element, alone + (SCALARS_BYTES if scalars else 0)


def narrowable(graph: Graph, name: str, made: DType) -> bool:
    """Whether nobody needs more of the sums than the result's narrower type holds: a conversion is all that becomes of them."""
    stage = graph.stages[name]
    assert isinstance(stage, Reduce)
    acc = stage.reducer.dtypes[0]
    loads = list(graph.readers(name))
    return (
        made.storage_bytes < acc.storage_bytes and made.is_float == acc.is_float and stage.reducer.op == "add"
        and len(loads) == 1 and _only_converted(graph.stages[loads[0].reader], name, made)
    )  # fmt: skip


def _only_converted(reader: object, name: str, made: DType) -> bool:
    value = reader.value if isinstance(reader, Map) else None
    while isinstance(value, Cast) and value.dtype.storage_bytes >= made.storage_bytes and value.dtype.is_float == made.is_float:
        value = value.a
    return isinstance(value, Load) and value.tensor == name


def decide_sums(name: str, default: DType, others: Sequence[DType], decide: Decider) -> DType:
    """The type that a core keeps its sums in between panels. Integers wrap, so the result's own is exact; floats would be rounded once a panel, which
    is for the caller to choose (the published bf16 kernels do)."""
    found = decide(f"{name}.sums", str(default), tuple(map(str, others)), "type in which a core keeps sums between panels")
    return next(d for d in (default, *others) if str(d) == found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Axes and tile sizes of one product. `piece`: panels that memory tiles get together; `sums`: the type that sums are kept in, if another."""

    i: str
    j: str
    over: str
    m: int
    n: int
    k: int
    columns: int
    rows: int
    extents: Mapping[str, int]
    piece: int = 1
    sums: DType | None = None


def _sides(stage: Reduce, factors: Factors) -> tuple[str, str]:
    """The axis of the result's rows and of its columns: in the order of its axes, so that results are written in rows."""
    order = [axis.name for axis in stage.axes]
    first, second = sorted((factors.tile or "", factors.vector), key=order.index)
    return first, second


def _follows(graph: Graph, name: str, result: str, live: Sequence[str]) -> bool:
    stage = graph.stages[result]
    reads = graph.readers(name)
    return (
        len(live) == 2
        and isinstance(stage, Map)
        and len(reads) == 1
        and pointwise(reads[0].load, graph.stages[name], stage)
        and tuple(i.name for i in reads[0].load.index if isinstance(i, Var)) == tuple(a.name for a in axes_of(stage))
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TileCost:
    """What tiles of one product cost: `result` is the type of its elements, `sums` that of the sums that a core keeps between panels, `deep` whether
    A and B are contiguous along the sum, `beside` what else the result takes of a core's memory: bytes a row, a column, an element, and by itself;
    `riders`: how many tensors of it come along with A and with B."""

    row: Intrinsic
    array: ArraySpec
    extents: tuple[int, int, int]
    columns: int
    result: DType
    sums: DType
    deep: tuple[bool, bool] = (True, False)
    beside: tuple[int, int, int, int] = (0, 0, 0, 0)
    riders: tuple[int, int] = (0, 0)

    def fits(self, m: int, n: int, k: int) -> bool:
        """Whether a core holds two panels of each factor and the result, which shares its memory with the sums."""
        room = self.array.core_memory_bytes - self.array.core_stack_bytes
        row, column, element, fixed = self.beside
        wide = max(self.result.storage_bytes, self.sums.storage_bytes)
        size = 2 * (m * k * self.row.a.storage_bytes + k * n * self.row.b.storage_bytes) + m * n * (wide + element)
        return size + m * row + n * column + fixed <= room and m * n * self.result.storage_bytes // 4 <= self.array.core_length_words

    def pieces(self, m: int, n: int, k: int) -> tuple[int, ...]:
        """How many panels can come together: they are all of K in equal parts, and the memory tile has room and descriptors for two pieces."""
        steps = -(-self.extents[2] // k)
        return tuple(q for q in PIECES if steps % q == 0 and self._held(m, n, k, q))

    def _held(self, m: int, n: int, k: int, piece: int) -> bool:
        """Whether a memory tile has room and descriptors for two pieces of each factor, and a tile of each core's result."""
        rows = self.array.rows
        size = rows * m * n * self.result.storage_bytes
        descriptors = 2 * rows
        sides = ((-(-rows // self.columns), m * k * self.row.a.storage_bytes), (1, k * n * self.row.b.storage_bytes))
        for (parts, panel), deep, riders in zip(sides, self.deep, self.riders):
            tiles = piece if deep else 1
            size += 2 * parts * tiles * panel
            descriptors += 2 * parts * (1 + riders * tiles) + 2 * parts * tiles * (1 + riders)
        spare = BANK_SPARE if any(self.riders) else 0
        return size <= self.array.memtile_memory_bytes and descriptors + spare <= self.array.memtile_descriptors

    def seconds(self, m: int, n: int, k: int) -> float:
        """By `devices.array_model`, at the rate of kernels like the published ones."""
        a, b, c = self.row.a.storage_bytes, self.row.b.storage_bytes, self.result.storage_bytes
        run = max(self.pieces(m, n, k), default=1) * k
        product = Product(
            m=self.extents[0], n=self.extents[1], k=-(-self.extents[2] // k) * k, tile=(m, n, k), columns=self.columns, rows=self.array.rows,
            bytes_a=a, bytes_b=b, bytes_c=c, runs=(run * a if self.deep[0] else m * a, run * b if self.deep[1] else n * b, n * c),
        )  # fmt: skip
        peak = peak_macs(self.array, self.row.arithmetic) or 1
        return seconds(product, self.array, kernel_macs(self.array, peak, k, self.sums.storage_bytes))


def tile_of(cost: TileCost) -> tuple[int, int, int]:
    """The fastest tile that a core holds."""
    row, extents = cost.row, cost.extents
    best: tuple[float, int, tuple[int, int, int]] | None = None
    for m in _sizes(EXPANSION * row.m, extents[0], cost.array.rows):
        for n in _sizes(EXPANSION * row.n, extents[1], cost.columns):
            for k in _sizes(row.k, extents[2], 1):
                if not cost.fits(m, n, k):
                    break  # a deeper one is larger still
                candidate = (cost.seconds(m, n, k), -m * n * k, (m, n, k))
                best = candidate if best is None or candidate < best else best
    return best[2] if best else (EXPANSION * row.m, EXPANSION * row.n, row.k)


def _sizes(unit: int, extent: int, parts: int) -> list[int]:
    """Multiples of `unit` up to 256, none larger than what one of `parts` needs."""
    most = -(-extent // (parts * unit)) * unit
    return list(range(unit, min(256, most) + 1, unit)) or [unit]


def _alone(name: str, stage: Reduce, row: Intrinsic, s: Shape) -> list[Step]:
    """The contraction is the result."""
    batch = [axis.name for axis in stage.axes if axis.name not in (s.i, s.j)]
    steps: list[Step] = [Tile(stage=name, sizes=((s.i, s.m), (s.j, s.n))), *_dealt(name, s), Split(stage=name, axis=s.over, factor=s.k)]
    steps += _blocks(name, f"{s.i}.i", f"{s.j}.i", f"{s.over}.i", row)
    inner = _inner(f"{s.i}.i", f"{s.j}.i", f"{s.over}.i")
    return [
        *steps,
        Order(stage=name, axes=(f"{s.j}.o.o", f"{s.i}.o.o", *batch, f"{s.i}.o.i", f"{s.j}.o.i", f"{s.over}.o", *inner)),
        *_instructed(name, s, row, f"{s.i}.i", f"{s.j}.i"),
        Bind(stage=name, axes=((f"{s.j}.o.o", "column"), (f"{s.i}.o.o", "row"))),
        StoreIn(stage=name, space="l1", at=f"{s.over}.o", buffers=2, piece=s.piece),
    ]


def _followed(graph: Graph, name: str, result: str, row: Intrinsic, s: Shape) -> list[Step]:
    """The contraction is computed in the tiles of the map behind it."""
    read = graph.readers(name)[0].load
    stage = graph.stages[name]
    names = {axis.name: place.name for axis, place in zip(axes_of(stage), read.index) if isinstance(place, Var)}
    i, j = names[s.i], names[s.j]
    batch = [axis.name for axis in axes_of(graph.stages[result]) if axis.name not in (i, j)]
    own = replace(s, i=i, j=j, extents={i: s.extents[s.i], j: s.extents[s.j]})
    steps: list[Step] = [Tile(stage=result, sizes=((i, s.m), (j, s.n))), *_dealt(result, own)]
    steps.append(Order(stage=result, axes=(f"{j}.o.o", f"{i}.o.o", *batch, f"{i}.o.i", f"{j}.o.i", f"{i}.i", f"{j}.i")))
    steps.append(At(stage=name, consumer=result, axis=f"{j}.o.i"))
    steps += [Split(stage=result, axis=f"{i}.i", factor=row.m), Split(stage=result, axis=f"{j}.i", factor=row.n)]
    steps.append(Order(stage=result, axes=(f"{i}.i.o", f"{j}.i.o", f"{i}.i.i", f"{j}.i.i")))
    steps += [Split(stage=name, axis=s.over, factor=s.k), *_blocks(name, s.i, s.j, f"{s.over}.i", row)]
    alone = [axis.name for axis in axes_of(stage) if axis.name not in (s.i, s.j)]
    return [
        *steps,
        Order(stage=name, axes=(f"{s.over}.o", *alone, *_inner(s.i, s.j, f"{s.over}.i"))),
        *_instructed(name, s, row, s.i, s.j),
        Vector(stage=result, axis=f"{j}.i.i"),
        Bind(stage=result, axes=((f"{j}.o.o", "column"), (f"{i}.o.o", "row"))),
        *([StoreIn(stage=name, space="l1", type=s.sums)] if s.sums is not None else []),
        StoreIn(stage=name, space="l1", at=f"{s.over}.o", buffers=2, piece=s.piece),
    ]


def _dealt(name: str, s: Shape) -> list[Step]:
    """Columns of tiles to the columns of the array, rows to its rows, in contiguous parts."""
    return [
        Split(stage=name, axis=f"{axis}.o", factor=-(-s.extents[axis] // (size * parts)))
        for axis, size, parts in ((s.i, s.m, s.rows), (s.j, s.n, s.columns))
    ]


def _blocks(name: str, i: str, j: str, k: str, row: Intrinsic) -> list[Step]:
    steps: list[Step] = [Split(stage=name, axis=axis, factor=size) for axis, size in ((i, row.m), (j, row.n), (k, row.k))]
    return [*steps, *(Split(stage=name, axis=f"{axis}.o", factor=EXPANSION) for axis in (i, j))]


def _inner(i: str, j: str, k: str) -> tuple[str, ...]:
    return f"{i}.o.o", f"{j}.o.o", f"{k}.o", f"{i}.o.i", f"{j}.o.i", f"{i}.i", f"{j}.i", f"{k}.i"


def _instructed(name: str, s: Shape, row: Intrinsic, i: str, j: str) -> list[Step]:
    return [*(Unroll(stage=name, axis=f"{axis}.o.i") for axis in (i, j)), Intrin(stage=name, name=row.name)]


