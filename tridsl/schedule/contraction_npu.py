"""Sums of products on an array of cores: tiles of the result for cores, panels of the factors shared along rows and columns.

A core multiplies m x k by k x n at a time with its matrix instruction, two by two blocks of the result in its accumulators; columns of the array
share the panels of B, rows those of A (the whole-array scheme of mlir-aie). m, n and k are the fastest that fit by `devices.array_model`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.array_model import EFFICIENCY, Product, peak_macs, seconds
from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.expr import Var
from tridsl.ir.op import Map, Reduce
from tridsl.schedule.analyse import Graph, axes_of, extent_of, pointwise
from tridsl.schedule.contraction import Factors, roles_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import At, Bind, Intrin, Order, Split, Step, StoreIn, Tile, Unroll, Vector

EXPANSION = 2
"""Blocks of the result along each side that a core's accumulators hold: each loaded block of a factor is used twice."""
SLACK_BYTES = 1024
"""Of a core's memory, left for what alignment costs."""


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
    row = next((r for r in INTRINSICS.values() if (r.a, r.b, r.acc) == (factors.a.dtype, factors.b.dtype, stage.reducer.dtypes[0]) and r.feature in spec.features), None)
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in (*stage.axes, *stage.over)}
    if row is None or not all(extents.values()):
        return []
    i, j = _sides(stage, factors)
    over = stage.over[0].name
    narrow = {t.name: t for t in graph.op.tensors}[result].dtype.storage_bytes
    columns = decide(f"{name}.columns", spec.columns or 1, [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)], "columns of the array")
    m, n, k = tile_of(row, array, (extents[i], extents[j], extents[over]), columns, narrow, result != name)
    k = decide(f"{name}.depth", k, [d for d in (row.k, 2 * row.k, 4 * row.k, 8 * row.k) if d <= k], "depth of a core's panels")
    shape = Shape(i=i, j=j, over=over, m=m, n=n, k=k, columns=columns, rows=array.rows, extents=extents)
    return _alone(name, stage, row, shape) if result == name else _followed(graph, name, result, row, shape)


class Shape:
    """Axes and tile sizes of one product."""

    __slots__ = ("columns", "extents", "i", "j", "k", "m", "n", "over", "rows")

    def __init__(self, *, i: str, j: str, over: str, m: int, n: int, k: int, columns: int, rows: int, extents: Mapping[str, int]) -> None:
        self.i, self.j, self.over, self.m, self.n, self.k, self.columns, self.rows, self.extents = i, j, over, m, n, k, columns, rows, extents


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


def tile_of(row: Intrinsic, array: ArraySpec, extents: tuple[int, int, int], columns: int, bytes_c: int, wide: bool) -> tuple[int, int, int]:
    """The fastest tile that a core holds: two panels of each factor, one of the result (and its sums, where they are wider)."""
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES
    sums = row.acc.storage_bytes if wide else 0
    macs = EFFICIENCY * (peak_macs(array, str(row.a)) or 1)
    best: tuple[float, int, tuple[int, int, int]] | None = None
    for m in _sizes(EXPANSION * row.m, extents[0], array.rows):
        for n in _sizes(EXPANSION * row.n, extents[1], columns):
            for k in _sizes(row.k, extents[2], 1):
                size = 2 * (m * k * row.a.storage_bytes + k * n * row.b.storage_bytes) + m * n * (bytes_c + sums)
                if size > room or m * n * bytes_c // 4 > array.core_length_words:
                    continue
                product = Product(
                    m=extents[0], n=extents[1], k=extents[2], tile=(m, n, k), columns=columns, rows=array.rows,
                    bytes_a=row.a.storage_bytes, bytes_b=row.b.storage_bytes, bytes_c=bytes_c, by_tiles=True,
                )  # fmt: skip
                candidate = (seconds(product, array, macs), -m * n * k, (m, n, k))
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
        StoreIn(stage=name, space="l1", at=f"{s.over}.o", buffers=2),
    ]


def _followed(graph: Graph, name: str, result: str, row: Intrinsic, s: Shape) -> list[Step]:
    """The contraction is computed in the tiles of the map behind it."""
    read = graph.readers(name)[0].load
    stage = graph.stages[name]
    names = {axis.name: place.name for axis, place in zip(axes_of(stage), read.index) if isinstance(place, Var)}
    i, j = names[s.i], names[s.j]
    batch = [axis.name for axis in axes_of(graph.stages[result]) if axis.name not in (i, j)]
    own = Shape(i=i, j=j, over=s.over, m=s.m, n=s.n, k=s.k, columns=s.columns, rows=s.rows, extents={i: s.extents[s.i], j: s.extents[s.j]})
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
        StoreIn(stage=name, space="l1", at=f"{s.over}.o", buffers=2),
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


