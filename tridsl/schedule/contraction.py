"""Sums of products: matmul, batched, transposed, convolutions, whatever the index pattern.

A factor's index mentions some of the stage's axes. The vector axis `j` is one along which a factor (or the result) is
contiguous; the tile axis `i` is one that the other factor mentions and `j`'s does not, so that a register tile i x j uses each loaded
value several times (Goto's scheme; block sizes from reference/kernels.md 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.expr import Binary, Cast, Expr, Load, Var
from tridsl.ir.op import Reduce
from tridsl.ir.walk import variables
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.steps import Intrin, Order, Pack, Parallel, Split, Step, Unroll, Vector

PACKED_WORK = 200_000
"""Multiply-adds from which packing pays for itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Axes of a contraction: `vector` (j), `tile` (i, may be absent), and the two loads."""

    vector: str
    tile: str | None
    a: Load
    b: Load


def is_contraction(stage: Reduce) -> bool:
    """A commutative sum of products of two elements, over at least one output axis."""
    return (
        not stage.ordered
        and stage.reducer.op == "add"
        and len(stage.targets) == 1
        and bool(stage.axes)
        and _factors(stage.values[0]) is not None
        and _roles(stage) is not None
    )


def _factors(value: Expr) -> tuple[Load, Load] | None:
    while isinstance(value, Cast):
        value = value.a
    if not isinstance(value, Binary) or value.op != "mul":
        return None
    a, b = _element(value.a), _element(value.b)
    return None if a is None or b is None else (a, b)


def _element(factor: Expr) -> Load | None:
    while isinstance(factor, Cast):
        factor = factor.a
    return factor if isinstance(factor, Load) else None


def _roles(stage: Reduce) -> Factors | None:
    factors = _factors(stage.values[0])
    if factors is None:
        return None
    axes = [axis.name for axis in stage.axes]
    for b, a in (factors[::-1], factors):
        vector = unit_stride_axis(b)
        if vector not in axes or vector is None:
            continue
        others = _mentioned(a)
        tile = [x for x in axes if x in others and x not in _mentioned(b) and x != vector]
        if vector in others:
            continue
        return Factors(vector=vector, tile=tile[-1] if tile else None, a=a, b=b)
    return None


def _mentioned(load: Load) -> frozenset[str]:
    return frozenset(v for i in load.index for v in variables(i))


def contraction_steps(
    stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], *, threads: bool, whole: bool
) -> list[Step]:
    """Steps for one contraction stage; `whole`: it has a phase of its own (so panels may be packed)."""
    roles = _roles(stage)
    assert roles is not None
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    acc: DType = stage.reducer.dtypes[0]
    lanes = spec.lanes(acc)
    rows, columns = _tile(spec, extents.get(roles.tile or ""), extents[roles.vector], lanes)
    packed = whole and _pays(stage, roles, extents)
    if packed:
        return _packed(stage, roles, rows, columns * lanes, spec, extents, acc, threads=threads)
    return _direct(stage, roles, rows, columns * lanes, threads=threads)


def _tile(spec: DeviceSpec, tile: int | None, vector: int | None, lanes: int) -> tuple[int, int]:
    """Rows and vectors of the register tile: as near to all registers (less four) as the extents allow."""
    registers = (spec.vector_registers or 16) - 4
    columns = 2
    if vector is not None and vector <= lanes:
        columns = 1
    rows = max(1, min(registers // columns, 14) if columns == 1 else registers // columns - (registers // columns) % 2)
    rows = min(rows, 12)
    if tile is not None:
        rows = max(1, min(rows, tile))
        parts = -(-tile // rows) or 1
        rows = -(-tile // parts) or 1  # even parts: 16 rows are 8 + 8, not 12 + 4
    return rows, columns


def _pays(stage: Reduce, roles: Factors, extents: Mapping[str, int | None]) -> bool:
    """Whether the panels are read often enough, and the access is plain enough, to copy them first."""
    if roles.tile is None or len(stage.over) != 1:
        return False
    if any(not isinstance(i, Var) for load in (roles.a, roles.b) for i in load.index):
        return False
    count = 1
    for extent in extents.values():
        if extent is None:
            return True
        count *= extent
    reuse = extents[roles.tile] or 0
    return count >= PACKED_WORK and reuse >= 32 and (extents[roles.vector] or 0) >= 64


def _direct(stage: Reduce, roles: Factors, rows: int, width: int, *, threads: bool) -> list[Step]:
    name = stage.name
    axes = [a.name for a in stage.axes]
    over = [a.name for a in stage.over]
    steps: list[Step] = [Split(stage=name, axis=roles.vector, factor=width)]
    outer = [f"{a}.o" if a == roles.vector else a for a in axes]
    inner = [f"{roles.vector}.i"]
    if roles.tile is not None:
        steps.append(Split(stage=name, axis=roles.tile, factor=rows))
        outer = [f"{a}.o" if a == roles.tile else a for a in outer]
        inner = [f"{roles.tile}.i", *inner]
    steps.append(Order(stage=name, axes=(*outer, *over, *inner)))
    if threads:
        steps.append(Parallel(stage=name, axis=outer[0]))
    if roles.tile is not None:
        steps.append(Unroll(stage=name, axis=f"{roles.tile}.i"))
    return [*steps, Vector(stage=name, axis=f"{roles.vector}.i")]


def _packed(
    stage: Reduce, roles: Factors, rows: int, width: int, spec: DeviceSpec, extents: Mapping[str, int | None], acc: DType, *, threads: bool
) -> list[Step]:
    """Goto's loops: a block of B in L2, a panel of A in L1, a register tile in between."""
    name, i, j, k = stage.name, roles.tile or "", roles.vector, stage.over[0].name
    batch = [a.name for a in stage.axes if a.name not in (i, j)]
    size = acc.storage_bytes
    depth = _block((spec.l1_bytes or 32768) * 3 // 4 // (rows * size), extents[k], 8, 512)
    columns = _block((spec.l2_bytes or 1 << 20) // 2 // (depth * size), extents[j], width, 4096)
    height = _block((spec.l3_bytes or 4 << 20) // 4 // (depth * size), extents[i], rows, 1020)
    row = _instruction(roles, acc, spec)
    steps: list[Step] = [
        Split(stage=name, axis=k, factor=depth),
        Split(stage=name, axis=j, factor=columns),
        Split(stage=name, axis=f"{j}.i", factor=width),
        Split(stage=name, axis=i, factor=height),
        Split(stage=name, axis=f"{i}.i", factor=rows),
    ]
    inner: tuple[str, ...] = (f"{k}.i", f"{i}.i.i", f"{j}.i.i")
    if row is not None:
        steps.append(Split(stage=name, axis=f"{k}.i", factor=row.k))
        inner = (f"{k}.i.o", f"{i}.i.i", f"{j}.i.i", f"{k}.i.i")
    steps.append(Order(stage=name, axes=(*batch, f"{i}.o", f"{k}.o", f"{j}.o", f"{i}.i.o", f"{j}.i.o", *inner)))
    if threads:
        steps.append(Parallel(stage=name, axis=batch[0] if batch else f"{i}.i.o"))
    steps += [Unroll(stage=name, axis=f"{i}.i.i"), Vector(stage=name, axis=f"{j}.i.i")]
    steps += [
        Pack(stage=roles.a.tensor, at=f"{k}.o", reader=name),
        Pack(stage=roles.b.tensor, at=f"{j}.o", reader=name),
    ]
    return steps if row is None else [*steps, Intrin(stage=name, name=row.name)]


def _instruction(roles: Factors, acc: DType, spec: DeviceSpec) -> Intrinsic | None:
    """An exact dot-product instruction for these types. (Those of floats flush denormals: a schedule must ask for them.)"""
    for row in INTRINSICS.values():
        fits = (row.a, row.b, row.acc) == (roles.a.dtype, roles.b.dtype, acc) and row.lanes and row.k > 1
        if fits and row.feature in spec.features and not acc.is_float:
            return row
    return None


def _block(most: int, extent: int | None, step: int, limit: int) -> int:
    """A multiple of `step` up to `most`, in even parts of the extent."""
    most = max(step, min(most, limit) // step * step)
    if extent is None:
        return most
    parts = max(1, -(-extent // most))
    even = -(-extent // parts)
    return max(step, -(-even // step) * step)

