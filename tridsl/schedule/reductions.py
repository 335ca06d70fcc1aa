"""How the loops of one reduction that is no contraction run on a device with vectors.

The lanes lie along the axis that costs least per point: one load each where memory is contiguous, one load a lane where it is not, and
along a reduced axis the lanes are combined at the end. Where lanes lie along an axis of the result and some element is read for
several results, these make a register tile: a window of a picture, a masked product, distances between points.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2, prod

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Boundary, Cast, Const, Load, Var
from tridsl.ir.op import Reduce
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import extent_of, unit_stride_axes
from tridsl.schedule.copied import accesses, panels
from tridsl.schedule.counting import counting_steps
from tridsl.schedule.decisions import Decider
from tridsl.schedule.few_rows import DEEP, WIDE, sweep_columns
from tridsl.schedule.steps import Order, Parallel, Split, Step, Unroll, Vector
from tridsl.structs import dataclass

UNKNOWN = 1024
"""Points of an axis whose size is not known: enough for every choice that needs many."""
BROADCAST, PACKING = 0.5, 4.0
"""Costs beside that of a contiguous load: an element for all lanes; an element's share of a panel's copy, per use of the panel."""
WIDEST_STEP, SHUFFLED = 4, 1
"""Elements between lanes up to which wide loads cost less than an access for each, and what picking the elements out of them costs."""
TALLEST_TILE = 8
"""Rows of a register tile: with two vectors in a row enough chains to hide an addition's latency (8) twice."""
FREE_REGISTERS = 8
"""Registers of a tile's loop that hold no results: loaded values and what is computed of them."""
PANEL_WORK, PANEL_GAIN = 100_000, 0.8
"""Points of a reduction, and the part of its cost that must remain, for which its result is kept until all of it is there."""
PANEL_DEPTH = 64
"""Terms of a sum in one panel: 64 rows of two vectors are 8 KiB."""
WINDOW, UNROLLED = 16, 80
"""Points of a window up to which its loops are written out, and vectors that the written-out body may combine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """Lanes along `axis`, at `cost` per point in units of a contiguous load; what the accesses in `packed` read is copied to be read in lanes."""

    axis: str
    cost: float
    packed: tuple[Load, ...] = ()


def reduce_steps(
    stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, whole: bool, fixed: frozenset[str], threads: bool
) -> list[Step]:
    """Steps for one reduction; `whole`: it has a phase of its own, `fixed`: axes of which it makes one point at a time."""
    counted = counting_steps(stage, spec, sizes, decide, fixed=fixed, threads=threads)
    if counted is not None:
        return counted
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    over, axes = [a.name for a in stage.over], [a.name for a in stage.axes if a.name not in fixed]
    found = {c.axis: c for c in _candidates(stage, spec, extents, axes, packable=whole)}
    best = min(found.values(), key=lambda c: c.cost).axis
    best = decide(f"{stage.name}.vector", best, (over[-1], *axes[-1:]), "the axis along which vectors lie")
    if best in over:
        return [*_parallel(stage, threads), Vector(stage=stage.name, axis=best)]
    tile = _tile_axis(stage, axes, best)
    if tile is None and not found[best].packed:
        return _columns(stage, best, spec, extents, decide, whole=whole, threads=threads)
    return _register_tile(stage, found[best], tile, spec, extents, decide, threads=threads)


def tile_axis(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int]) -> str | None:
    """The rows of the register tile that the stage has where it is computed on its own."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    axes = [a.name for a in stage.axes]
    best = min(_candidates(stage, spec, extents, axes, packable=False), key=lambda c: c.cost).axis
    return _tile_axis(stage, axes, best) if best in axes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tile:
    """A register tile: `rows` points of the axis `tall`, `width` of the axis `wide`, along which its lanes lie."""

    tall: str
    wide: str
    rows: int
    width: int


def register_tile(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Tile | None:
    """That of the stage where it is computed from what lies in memory as it is."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    axes = [a.name for a in stage.axes]
    wide = min(_candidates(stage, spec, extents, axes, packable=False), key=lambda c: c.cost).axis
    tall = _tile_axis(stage, axes, wide) if wide in axes else None
    if tall is None:
        return None
    lanes, extent = spec.lanes(stage.reducer.dtypes[0]), extents[wide]
    if extent is not None and extent < lanes:
        return None
    rows, columns, _ = _tile_shape(stage, wide, tall, spec, extents, decide)
    columns = columns if extent is None else min(columns, extent // lanes)  # each row of the tile is whole registers
    return Tile(tall=tall, wide=wide, rows=rows, width=columns * lanes)


def tile_steps(stage: Reduce, tile: Tile, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps for a reduction of which one register tile is made at a time."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    window = _tile_shape(stage, tile.wide, tile.tall, spec, extents, decide)[2]
    outer = [a.name for a in stage.axes if a.name not in (tile.tall, tile.wide)]
    steps: list[Step] = [Order(stage=stage.name, axes=(*outer, *(a.name for a in stage.over), tile.tall, tile.wide))]
    steps += [Unroll(stage=stage.name, axis=a) for a in (*window, tile.tall)]
    return [*steps, Vector(stage=stage.name, axis=tile.wide)]


def worth_a_panel(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int]) -> bool:
    """Whether the stage is much cheaper in a phase of its own, where it may copy what it would not read in lanes otherwise."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    if None in extents.values() or prod(n or 0 for n in extents.values()) < PANEL_WORK:
        return False
    axes = [a.name for a in stage.axes]
    alone = min(_candidates(stage, spec, extents, axes, packable=True), key=lambda c: c.cost)
    inside = min(c.cost for c in _candidates(stage, spec, extents, axes, packable=False))
    return bool(alone.packed) and alone.cost - _shared_by_a_tile(stage, alone, axes) < PANEL_GAIN * inside


def _shared_by_a_tile(stage: Reduce, lanes: Lanes, axes: list[str]) -> float:
    """What the rows of a register tile save of the loads of its lanes, per point."""
    tile = _tile_axis(stage, axes, lanes.axis)
    return sum(1 - 1 / TALLEST_TILE for n in accesses(stage) if tile is not None and lanes.axis in _mentioned(n) and tile not in _mentioned(n))


def _candidates(
    stage: Reduce, spec: DeviceSpec, extents: Mapping[str, int | None], axes: list[str], *, packable: bool
) -> list[Lanes]:
    """Every axis that lanes can lie along; of equal ones the innermost reduced axis comes first."""
    over = [a.name for a in stage.over]
    loads = accesses(stage)
    lanes = spec.lanes(stage.reducer.dtypes[0])
    size = {name: max(1, UNKNOWN if extent is None else extent) for name, extent in extents.items()}
    terms = prod(size[o] for o in over)
    work = sum(1 for v in stage.values for n in walk(v) if not isinstance(n, Load | Var | Const | Cast | Boundary))
    found: list[Lanes] = []
    for axis in (*reversed(over), *reversed(axes)):
        cost, packed = float(max(1, work)), list[Load]()
        for load in loads:
            if axis not in _mentioned(load):
                cost += BROADCAST
            elif axis in unit_stride_axes(load):
                cost += 1
            elif (step := _step(load, axis)) is not None:
                cost += step + SHUFFLED
            else:
                reuse = prod(size[a] for a in axes if a not in _mentioned(load))
                copied = 1 + lanes * PACKING / reuse
                plain = load.boundary is None and all(isinstance(i, Var) for i in load.index)
                if packable and axis in axes and plain and copied < lanes:
                    packed.append(load)
                    cost += copied
                else:
                    cost += lanes
        used = size[axis] / ceil(size[axis] / lanes)
        combined = len(stage.reducer.dtypes) * (2 * log2(max(lanes, 2)) + 4) / terms if axis in over else 0.0
        found.append(Lanes(axis=axis, cost=cost / used + combined, packed=tuple(packed)))
    return found


def _step(load: Load, axis: str) -> int | None:
    """Elements from one lane's to the next, where these are few enough to be read by wide loads and picked out of them."""
    if load.boundary is not None or any(axis in variables(i) for i in load.index[:-1]):
        return None
    step = normal_form(load.index[-1]).coefficient(axis)
    return step if step is not None and 1 < step <= WIDEST_STEP else None


def _mentioned(load: Load) -> frozenset[str]:
    return frozenset(v for i in load.index for v in variables(i))


def _tile_axis(stage: Reduce, axes: list[str], lanes: str) -> str | None:
    """The axis whose points use what is loaded several times: first of all the vectors, else the single elements, or a window that
    the next row's overlaps."""
    loads = accesses(stage)
    best: tuple[float, str] | None = None
    for axis in reversed(axes):
        if axis == lanes:
            continue
        gain = 0.0
        for load in loads:
            if axis not in _mentioned(load):
                gain += 1 if lanes in _mentioned(load) else BROADCAST
            elif any(axis in variables(i) and variables(i) & {o.name for o in stage.over} for i in load.index):
                gain += BROADCAST
        if gain and (best is None or gain > best[0]):
            best = gain, axis
    return None if best is None else best[1]


def _parallel(stage: Reduce, threads: bool, axis: str | None = None) -> list[Step]:
    return [Parallel(stage=stage.name, axis=axis or stage.axes[0].name)] if threads and stage.axes else []


def _columns(
    stage: Reduce, axis: str, spec: DeviceSpec, extents: Mapping[str, int | None], decide: Decider, *, whole: bool, threads: bool
) -> list[Step]:
    """Every element is read once: columns side by side, or blocks of rows added to a stretch of results."""
    name, over = stage.name, [a.name for a in stage.over]
    lanes = spec.lanes(stage.reducer.dtypes[0])
    width = decide(f"{name}.columns", 64, (n * lanes for n in (1, 2, 4, 8, 16)), "columns reduced at the same time")
    if (extents[over[-1]] or 0) >= DEEP and (extents[axis] or 0) >= WIDE and whole:
        steps: list[Step] = sweep_columns(stage, axis, threads=False)
    else:
        steps = [
            Split(stage=name, axis=axis, factor=width),
            Order(stage=name, axes=(f"{axis}.o", *over, f"{axis}.i")),
            Vector(stage=name, axis=f"{axis}.i"),
        ]
    outer = stage.axes[0].name
    return [*steps, *_parallel(stage, threads, f"{outer}.o" if outer == axis else outer)]


def _register_tile(
    stage: Reduce, lanes: Lanes, tile: str | None, spec: DeviceSpec, extents: Mapping[str, int | None], decide: Decider, *,
    threads: bool,
) -> list[Step]:  # fmt: skip
    name, axis, over = stage.name, lanes.axis, [a.name for a in stage.over]
    width = spec.lanes(stage.reducer.dtypes[0])
    rows, columns, window = _tile_shape(stage, axis, tile, spec, extents, decide)
    steps: list[Step] = [Split(stage=name, axis=axis, factor=columns * width)]
    if tile is not None:
        steps.append(Split(stage=name, axis=tile, factor=rows))
    cut = (axis, tile)
    outer = [f"{a.name}.o" if a.name in cut else a.name for a in stage.axes]
    inner = [f"{a}.i" for a in (tile, axis) if a is not None]
    places = [*outer, *over]
    if lanes.packed:  # a panel of part of the innermost reduced axis serves all rows
        *rest, deep = over
        depth = min(extents[deep] or PANEL_DEPTH, PANEL_DEPTH)
        steps.append(Split(stage=name, axis=deep, factor=max(1, depth)))
        outer = [a for a in outer if a != f"{tile}.o"]
        places = [*outer, *rest, f"{deep}.o", *([f"{tile}.o"] if tile is not None else []), f"{deep}.i"]
        window = [f"{deep}.i"] if window[:1] == [deep] else []
    steps.append(Order(stage=name, axes=(*places, *inner)))
    steps += _parallel(stage, threads, outer[0])
    steps += [Unroll(stage=name, axis=a) for a in (*window, *inner[:-1])]
    steps.append(Vector(stage=name, axis=inner[-1]))
    return [*steps, *panels(stage, lanes.packed, f"{over[-1]}.o")]


def _tile_shape(
    stage: Reduce, axis: str, tile: str | None, spec: DeviceSpec, extents: Mapping[str, int | None], decide: Decider
) -> tuple[int, int, list[str]]:
    """Rows and vectors of the register tile, and the reduced axes whose loops are written out."""
    name, width, extent = stage.name, spec.lanes(stage.reducer.dtypes[0]), extents[axis]
    columns = 1 if extent is not None and extent <= width else 2
    columns = decide(f"{name}.vectors", columns, (1, 2, 4), "vectors in a row of the register tile")
    registers = max(1, ((spec.vector_registers or 16) - FREE_REGISTERS) // len(stage.reducer.dtypes))
    window = _window([a.name for a in stage.over], extents)
    written = prod(max(1, extents[a] or 1) for a in window)
    most = min(TALLEST_TILE, max(1, registers // columns), max(1, UNROLLED // (columns * written)))
    rows = _even(most, extents.get(tile or ""))
    if tile is not None:
        rows = decide(f"{name}.rows", rows, (1, 2, 4, 6, 8, 12), "rows of the register tile")
    return rows, columns, window


def _window(over: list[str], extents: Mapping[str, int | None]) -> list[str]:
    """The innermost reduced axes whose points are few enough to be written out."""
    found: list[str] = []
    count = 1
    for axis in reversed(over):
        count *= max(1, extents[axis] or UNKNOWN)
        if count > WINDOW:
            break
        found.append(axis)
    return found


def _even(most: int, extent: int | None) -> int:
    """Rows in even parts: 9 rows are 5 + 4, not 8 + 1."""
    if extent is None or extent < 1:
        return most
    return ceil(extent / ceil(extent / most))
