"""Sums of products on an array of cores: tiles of the result for cores, panels of the factors shared along rows and columns.

A core multiplies m x k by k x n at a time with its matrix instruction, two by two blocks of the result in its accumulators; columns of the array
share the panels of B, rows those of A (the whole-array scheme of mlir-aie). m, n and k are the fastest that fit by `devices.array_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I8, TRIT, DType
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Cast, Expr, Load, Var
from tridsl.ir.op import Map, Reduce
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, pointwise, values_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import Factors, roles_of
from tridsl.schedule.steps import At, Bind, Intrin, Order, Split, Step, StoreIn, Tile, Unroll, Vector
from tridsl.schedule.tile_cost import EXPANSION, TileCost, tile_of
from tridsl.schedule.weights_npu import DECODED, Weights, weights_of
from tridsl.structs import dataclass, replace

RIDING = 3
"""Copies in a core of what else the map behind a product reads: one that is kept, two that come again and again (`npu.ride`)."""
SCALARS_BYTES = 256


def contraction_npu(
    graph: Graph, name: str, live: Sequence[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps for one contraction, alone or behind it a map that reads each of its elements once; none where no instruction fits."""
    stage = graph.stages[name]
    array = spec.array
    assert isinstance(stage, Reduce) and array is not None
    factors = roles_of(stage)
    result = live[-1]
    if factors is None or factors.tile is None or any(load.boundary or not all(_moves_alone(i, sizes) for i in load.index) for load in (factors.a, factors.b)):
        return []
    if result != name and not _follows(graph, name, result, live):
        return []
    row = instruction_of(name, (_multiplied(factors.a), _multiplied(factors.b), stage.reducer.dtypes[0]), spec, decide)
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in (*stage.axes, *stage.over)}
    if row is None or not all(extents.values()):
        return []
    i, j = _sides(stage, factors)
    over = stage.over[0].name
    weights = weights_of(graph, factors, row, j)
    if weights is None and any(load.dtype == TRIT for load in (factors.a, factors.b)):
        return []
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
    across = extents[i] <= (array.rows - 1) * row.m
    cost = TileCost(
        row=row, array=array, extents=(extents[i], extents[j], extents[over]), columns=columns, result=made, sums=sums, deep=(deep[i], deep[j]),
        beside=_bytes(others, scalars=len(graph.op.params) > len(graph.op.tensors)),
        riders=(sum(moves == (True, False) for moves, _ in others), sum(moves == (False, True) for moves, _ in others)),
        packing=weights.packing if weights is not None else None, across=across,
    )
    cost = _memory_between(name, cost, decide)
    m, n, k = tile_of(cost)
    k = decide(f"{name}.depth", k, [d for d in (cost.unit, 2 * cost.unit, 4 * cost.unit, 8 * cost.unit) if d <= k], "depth of a core's panels")
    piece = decide(f"{name}.piece", max(pieces := cost.pieces(m, n, k)), pieces, "panels of a core that the memory tile gets in one piece")
    shape = Shape(
        i=i, j=j, over=over, m=m, n=n, k=k, columns=columns, rows=array.rows, extents=extents, piece=piece, sums=None if sums == row.acc else sums,
        weights=weights, across=across, kept=next(load.tensor for load in (factors.a, factors.b) if Var(name=j) in load.index) if cost.kept else None,
        strip=cost.strip(m),
    )
    return _alone(name, stage, row, shape) if result == name else _followed(graph, name, result, row, shape)


WORTH = 0.98
"""Of the predicted time without, from which on either is used: fewer predictions have to come true without."""


def _memory_between(name: str, cost: TileCost, decide: Decider) -> TileCost:
    """The same with what saves memory, where that is possible and faster: a memory tile that keeps a factor, or strips of the other in the cores."""
    keeping, stripped = replace(cost, kept=True), replace(cost, strips=True)
    possible = [c for c in (keeping, stripped) if c.is_possible(*tile_of(c))]
    fastest = min((cost, *possible), key=lambda c: c.seconds(*tile_of(c)) * (1 if c is cost else 1 / WORTH))
    if keeping in possible and decide(f"{name}.kept", fastest is keeping, (False, True), "whether the memory tile of a column keeps its panels for all rows"):
        return keeping
    if stripped in possible and decide(f"{name}.strips", fastest is stripped, (False, True), "whether a core takes panels of rows a strip at a time"):
        return stripped
    return cost


def _multiplied(load: Load) -> DType:
    """What the elements of a factor are when they are multiplied."""
    return I8 if load.dtype == TRIT else load.dtype


def instruction_of(name: str, types: tuple[DType, DType, DType], spec: DeviceSpec, decide: Decider) -> Intrinsic | None:
    """The device's matrix instruction for factors and sums of these types, or for wider ones that the factors become. One that rounds its factors to shared exponents is for the caller to choose:
    it is many times as fast where the hardware has no other, and its products have two digits."""
    wider = next((r for r in INTRINSICS.values() if r.widens and r.takes(*types[:2]) and r.acc == types[2] and r.feature in spec.features), None)
    exact, rounding = (
        next((r for r in INTRINSICS.values() if (r.a, r.b, r.acc) == types and not r.lanes and r.feature in spec.features and r.shares_exponent is kind), None)
        for kind in (False, True)
    )
    if exact is None or rounding is None:
        return exact or wider
    return rounding if decide(f"{name}.shared_exponents", False, (True,), "factors are rounded to 8 bits with an exponent for every 8") else exact


def _deep(load: Load, over: str) -> bool:
    """Whether neighbours along the sum are neighbours in memory."""
    return over in variables(load.index[-1])


def _moves_alone(place: Expr, sizes: Mapping[str, int]) -> bool:
    """Whether one loop moves a place, an element at a time, from wherever it begins."""
    moving = [(monomial, factor) for monomial, factor in normal_form(place).terms if not {v for atom in monomial for v in variables(atom)} <= set(sizes)]
    return [(len(monomial), isinstance(monomial[0], Var), factor) for monomial, factor in moving] == [(1, True, 1)]



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
    """Axes and tile sizes of one product. `piece`: panels that memory tiles get together; `sums`: the type that sums are kept in, if another; `weights`: the factor that comes
    packed; `across`: there are too few rows for the array's, so that all of its cores have columns of their own; `kept`: the factor of
    the columns, where a memory tile keeps it for all rows; `strip`: blocks of rows that come at a time, 0: all."""

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
    weights: Weights | None = None
    across: bool = False
    kept: str | None = None
    strip: int = 0

    def inner(self, i: str, j: str, k: str) -> tuple[str, ...]:
        """The loops of a core's product, in blocks; strips of rows one after the other."""
        rows = (f"{i}.o.o.o", f"{i}.o.o.i") if self.strip > 1 else (f"{i}.o.o",)
        return *rows, f"{j}.o.o", f"{k}.o", f"{i}.o.i", f"{j}.o.i", f"{i}.i", f"{j}.i", f"{k}.i"

    def cut(self, name: str, i: str) -> list[Step]:
        return [Split(stage=name, axis=f"{i}.o.o", factor=self.strip)] if self.strip > 1 else []

    def stored(self, name: str, i: str) -> Step:
        strips = self.inner(i, self.j, self.over)[0] if self.strip else None
        return StoreIn(stage=name, space="l1", at=f"{self.over}.o", buffers=2, piece=self.piece, kept=self.kept, strips=strips)

    def dealt(self, name: str) -> list[Step]:
        """Columns of tiles to the columns of the array, rows to its rows, in contiguous parts; of few rows the columns to both."""
        if not self.across:
            return [
                Split(stage=name, axis=f"{axis}.o", factor=-(-self.extents[axis] // (size * parts)))
                for axis, size, parts in ((self.i, self.m, self.rows), (self.j, self.n, self.columns))
            ]
        core = -(-self.extents[self.j] // (self.n * self.columns * self.rows))
        return [Split(stage=name, axis=f"{self.j}.o", factor=core * self.rows), Split(stage=name, axis=f"{self.j}.o.i", factor=core)]

    @property
    def grid(self) -> tuple[str, str]:
        """The loops over the array's columns and rows."""
        return f"{self.j}.o.o", f"{self.j}.o.i.o" if self.across else f"{self.i}.o.o"

    @property
    def tiles(self) -> tuple[str, str]:
        """The loops over the tiles of a core."""
        if self.across:
            return f"{self.i}.o", f"{self.j}.o.i.i"
        rows, columns = f"{self.i}.o.i", f"{self.j}.o.i"
        return (rows, columns) if self.kept is None else (columns, rows)

    def bind(self, name: str) -> Step:
        column, row = self.grid
        return Bind(stage=name, axes=((column, "column"), (row, "row")))

    def staged(self) -> list[Step]:
        """What is said of packed weights before all else: a stage is their copy."""
        return [] if self.weights is None else [StoreIn(stage=self.weights.tensor, space=DECODED)]

    def decoded(self, name: str, outer: Sequence[str], inner: Sequence[str], row: Intrinsic) -> list[Step]:
        """A panel of them decoded, before the loops of the product are cut into blocks: then what it holds is plain to see."""
        if self.weights is None:
            return []
        return [Order(stage=name, axes=(*outer, f"{self.over}.o", *inner, f"{self.over}.i")), *self.weights.steps(name, self.over, row)]


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


def _alone(name: str, stage: Reduce, row: Intrinsic, s: Shape) -> list[Step]:
    """The contraction is the result."""
    batch = [axis.name for axis in stage.axes if axis.name not in (s.i, s.j)]
    steps: list[Step] = [*s.staged(), Tile(stage=name, sizes=((s.i, s.m), (s.j, s.n))), *s.dealt(name), Split(stage=name, axis=s.over, factor=s.k)]
    outer = (*s.grid, *batch, *s.tiles)
    steps += s.decoded(name, outer, (f"{s.i}.i", f"{s.j}.i"), row)
    steps += [*_blocks(name, f"{s.i}.i", f"{s.j}.i", f"{s.over}.i", row), *s.cut(name, f"{s.i}.i")]
    inner = s.inner(f"{s.i}.i", f"{s.j}.i", f"{s.over}.i")
    return [
        *steps,
        Order(stage=name, axes=inner if s.weights is not None else (*outer, f"{s.over}.o", *inner)),
        *_instructed(name, s, row, f"{s.i}.i", f"{s.j}.i"),
        s.bind(name),
        s.stored(name, f"{s.i}.i"),
    ]


def _followed(graph: Graph, name: str, result: str, row: Intrinsic, s: Shape) -> list[Step]:
    """The contraction is computed in the tiles of the map behind it."""
    read = graph.readers(name)[0].load
    stage = graph.stages[name]
    names = {axis.name: place.name for axis, place in zip(axes_of(stage), read.index) if isinstance(place, Var)}
    i, j = names[s.i], names[s.j]
    batch = [axis.name for axis in axes_of(graph.stages[result]) if axis.name not in (i, j)]
    own = replace(s, i=i, j=j, extents={i: s.extents[s.i], j: s.extents[s.j]})
    steps: list[Step] = [*s.staged(), Tile(stage=result, sizes=((i, s.m), (j, s.n))), *own.dealt(result)]
    steps.append(Order(stage=result, axes=(*own.grid, *batch, *own.tiles, f"{i}.i", f"{j}.i")))
    steps.append(At(stage=name, consumer=result, axis=own.tiles[-1]))
    steps += [Split(stage=result, axis=f"{i}.i", factor=row.m), Split(stage=result, axis=f"{j}.i", factor=row.n)]
    steps.append(Order(stage=result, axes=(f"{i}.i.o", f"{j}.i.o", f"{i}.i.i", f"{j}.i.i")))
    alone = [axis.name for axis in axes_of(stage) if axis.name not in (s.i, s.j)]
    steps += [Split(stage=name, axis=s.over, factor=s.k), *s.decoded(name, (), (*alone, s.i, s.j), row)]
    steps += [*_blocks(name, s.i, s.j, f"{s.over}.i", row), *s.cut(name, s.i)]
    inner, strips = s.inner(s.i, s.j, f"{s.over}.i"), int(s.strip > 0)
    return [
        *steps,
        Order(stage=name, axes=(*(() if s.weights is not None else (f"{s.over}.o",)), *inner[:strips], *alone, *inner[strips:])),
        *_instructed(name, s, row, s.i, s.j),
        Vector(stage=result, axis=f"{j}.i.i"),
        own.bind(result),
        *([StoreIn(stage=name, space="l1", type=s.sums)] if s.sums is not None else []),
        s.stored(name, s.i),
    ]


def _blocks(name: str, i: str, j: str, k: str, row: Intrinsic) -> list[Step]:
    steps: list[Step] = [Split(stage=name, axis=axis, factor=size) for axis, size in ((i, row.m), (j, row.n), (k, row.k))]
    return [*steps, *(Split(stage=name, axis=f"{axis}.o", factor=EXPANSION) for axis in (i, j))]


def _instructed(name: str, s: Shape, row: Intrinsic, i: str, j: str) -> list[Step]:
    return [*(Unroll(stage=name, axis=f"{axis}.o.i") for axis in (i, j)), Intrin(stage=name, name=row.name)]


