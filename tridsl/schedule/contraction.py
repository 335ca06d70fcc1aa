"""Sums of products: matmul, batched, transposed, convolutions, whatever the index pattern.

A factor's index mentions some of the stage's axes. The vector axis `j` is one along which a factor (or the result) is
contiguous; the tile axis `i` is one that the other factor mentions and `j`'s does not, so that a register tile i x j uses each loaded
value several times (Goto's scheme; block sizes from reference/kernels.md 2.2).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Var
from tridsl.ir.op import Reduce
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.blocks import block_of, blocks_of
from tridsl.schedule.contraction_panels import apart_columns, fetched_rows, panel_steps
from tridsl.schedule.contraction_tiles import block_instruction, tiled
from tridsl.schedule.decisions import Decider
from tridsl.schedule.few_rows import WIDE, depth_of, is_few, is_swept, sweep_columns, sweep_rows
from tridsl.schedule.roles import Factors, roles_of
from tridsl.schedule.steps import Intrin, Order, Parallel, Split, Step, Unroll, Vector

PACKED_WORK = 3_000_000
"""Multiply-adds from which packing pays for itself."""
INSTRUCTED = (30_000, 32, 16)
"""The same, and the rows and columns it takes, where packed panels are what an instruction for several products needs, or elements
change their type: i16 products of 32, 48
and 64 cubed take 0.84, 0.66 and 0.63 of the time, i8 ones 0.68, 0.51 and 0.46."""
INSTRUCTED_ROWS = 4
"""Rows from which panels of a large matrix of integers pay: without the instruction every product is one of 32-bit lanes (on a Golden
Cove 1, 2, 4 and 8 rows of 4096 x 4096 i8 take 1.3, 1.9, 3.3 and 6.3 ms where the matrix is, 2.2 to 2.6 ms with panels)."""
SHALLOW = 128
"""Terms of a panel that few rows read: it is long where the matrix is (4096 x 4096 i8, 8 rows: panels of 1408 x 704, 512 x 256 and
128 x 2048 take 3.8, 3.6 and 2.3 ms)."""
TURNED = (4_000, 16, 16)
"""The same where no factor is read in vectors as it lies: it is one dot product after the other, each of which adds up its lanes, or panels
that registers transpose (measured: rows of 16 to 200 elements take a third of the time); few rows do not pay for panels of a deep sum."""
L2_PART = 4
"""A block of B for such an instruction takes one in so many of L2. It reads 16 bytes of it a cycle, far more than comes from beyond, and pages of
4 KiB (which those of 2 MiB of a virtual machine may be to the host) share the sets of L2 as luck has it: a block of half of L2 is as fast
at best and much slower at worst (measured on a Golden Cove, i8 of 2048 cubed in fresh processes, median, worst quarter and worst, % of the
instruction's rate: blocks of 1 MiB 92.8 to 93.6, 88.5, 79 to 81; 512 KiB 92.2, 92, 90.5. 1024 cubed: 92.5, 91.0, 89.5 and 93.9, 93.2, 93.0)."""
SWEPT_PART = 8
"""The same for few rows, which read each block once or twice."""
DEEPEST, NARROW = 2048, 256
"""Terms of a panel beyond which C is hardly ever read again; columns of a block below which rows of A come from far too often."""
L1_PART = 3
"""A tile's part of a block of B, for an instruction that adds several products, takes one in so many of L1: longer sums read it from L2
while the next tile's is fetched, shorter ones load and store C more often (measured on a Golden Cove, i8 of 1024 cubed and i16 of
2048: 16 KiB take 0.97 and 0.95 of the time of 32 KiB and of 45, with half as many columns 0.98). A sum that two such parts hold is taken at once:
its results are stored once and never read again (i8 of 1024 cubed: 0.99)."""
TURN, TURNING = 4, 64
"""Terms (of an instruction's) in one turn of a register tile's loop, which is its innermost; terms from which on they are (measured on a Golden
Cove: f32 of 512, 1024 and 2048 cubed 0.96, 0.985 and 0.96 of the time of single turns, 2 in one 0.985, 0.99 and 0.975, 8 no better than 4. i8 and i16
0.98 to 0.985: the loop ends so often, every 128 times in about a thousand cycles, that a branch guessed wrong there shows, and so late that
no core foresees it)."""
TALLEST_TILE = 16
"""Rows of a register tile beyond which nobody need look: the code grows, and the reuse hardly."""
DEPTHS, COLUMNS = (64, 128, 192, 256, 384, 512, 1024, 2048), (64, 128, 256, 512, 768, 1024, 2048, 4096)
"""Sizes of packed blocks worth trying."""
FEW_ROWS = 128
"""Rows up to which the tail of a tile is a noticeable share of the work."""


def worth_packing(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int]) -> bool:
    """Whether the stage is large enough for blocks, which take a phase of its own; where its sizes are known."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    if roles_of(stage) is None or None in extents.values():
        return False
    roles = _facing(stage, spec, extents)
    if not _packable(stage, roles):
        return False
    row = _instruction(roles, stage.reducer.dtypes[0], spec)
    return _is_large(stage, roles, extents, row) or _pays(stage, roles, extents, row, spec) or is_swept(stage, roles, spec, extents)


def blocks_that_pay(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int]) -> tuple[Factors, Intrinsic] | None:
    """The roles, and the instruction for blocks that the stage is worth packing for, where it has a phase of its own or its reader's loops."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    if roles_of(stage) is None:
        return None
    roles = _facing(stage, spec, extents)
    pays = _packable(stage, roles) and _pays(stage, roles, extents, _instruction(roles, stage.reducer.dtypes[0], spec), spec)
    row = block_instruction(stage, roles, extents, spec) if pays else None
    return None if row is None else (roles, row)


def contraction_steps(
    stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, threads: bool, whole: bool
) -> list[Step]:
    """Steps for one contraction stage; `whole`: it has a phase of its own (so panels may be packed)."""
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    acc: DType = stage.reducer.dtypes[0]
    roles = _facing(stage, spec, extents)
    lanes = spec.lanes(acc)
    packable = whole and _packable(stage, roles)
    row = _instruction(roles, acc, spec)
    pays = packable and _pays(stage, roles, extents, row, spec)
    blocks = block_instruction(stage, roles, extents, spec) if pays else None
    if blocks is not None and decide(f"{stage.name}.blocks", True, (True, False), f"whether {blocks.name} multiplies"):
        return tiled(stage, roles, blocks, spec, extents, decide, threads=threads)
    rows, columns = _tile(stage.name, roles, spec, extents, lanes, decide, panels=pays and row is not None)
    if packable and decide(f"{stage.name}.pack", pays, (False, True), "whether panels of the factors are copied first"):
        return _packed(stage, roles, rows, columns * lanes, spec, extents, acc, decide, threads=threads)
    if roles.strided:
        return _dot_products(stage, threads=threads)
    if whole and is_swept(stage, roles, spec, extents):
        return sweep_rows(stage, roles, rows, columns * lanes, spec, extents, decide, threads=threads)
    if whole and roles.tile is None and depth_of(stage, extents) is not None and (extents[roles.vector] or 0) >= WIDE:
        return sweep_columns(stage, roles.vector, threads=threads)
    return _direct(stage, roles, rows, columns * lanes, extents, decide, threads=threads)


def _facing(stage: Reduce, spec: DeviceSpec, extents: Mapping[str, int | None]) -> Factors:
    """The roles, turned round where only few results would lie along the lanes, and an instruction for integers needs panels anyway (a
    4096 x 4096 matrix of i8 by 8 columns: 2.4 ms, 9.1 ms with the columns in the lanes)."""
    roles = roles_of(stage)
    assert roles is not None, "the stage is no contraction"
    acc = stage.reducer.dtypes[0]
    turned = Factors(vector=roles.tile or "", tile=roles.vector, a=roles.b, b=roles.a, strided=True)
    row = _instruction(turned, acc, spec)
    if roles.strided or roles.tile is None or row is None or row.acc.is_float or (extents[roles.vector] or spec.lanes(acc)) >= spec.lanes(acc):
        return roles
    return turned if _packable(stage, turned) and is_few(stage, turned, extents) else roles


def _dot_products(stage: Reduce, *, threads: bool) -> list[Step]:
    """Rows of both factors are contiguous: each result is a dot product of two of them."""
    steps: list[Step] = [Parallel(stage=stage.name, axis=stage.axes[0].name)] if threads else []
    return [*steps, Vector(stage=stage.name, axis=stage.over[-1].name)]


def _tile(
    name: str, roles: Factors, spec: DeviceSpec, extents: Mapping[str, int | None], lanes: int, decide: Decider, *, panels: bool
) -> tuple[int, int]:
    """Rows and vectors of the register tile. `panels`: of packed elements as they are, whose copies are fastest where no tile is short (i8,
    64 cubed: 8 x 2 vectors take 0.6 of the time of 12 x 2). Four vectors in a row ask twice as much of L2 as two: 4 x 4 take 1.01 to
    1.2 of the time of 8 x 2 (i8, 96 to 2048 cubed), 0.99 at 512 only."""
    tile, vector = extents.get(roles.tile or ""), extents[roles.vector]
    registers = spec.vector_registers or 16
    widest = 4 if vector is None else max(1, min(4, -(-vector // lanes)))
    columns = 1 if vector is not None and vector <= lanes else 2
    columns = decide(f"{name}.vectors", columns, range(1, widest + 1), "vectors in a row of the register tile")
    rows = _rows(registers - 4, tile, columns, whole=panels)
    if roles.tile is not None:
        most = min(registers // columns, TALLEST_TILE, TALLEST_TILE if tile is None else max(1, tile))
        rows = decide(f"{name}.rows", rows, range(1, most + 1), "rows of the register tile")
    return rows, columns


def _rows(registers: int, tile: int | None, columns: int, *, whole: bool) -> int:
    """As near to all registers (less four) as the extents allow. `whole`: no tile shorter than the others, however many there are."""
    rows = max(1, min(registers // columns, 14) if columns == 1 else registers // columns - (registers // columns) % 2)
    rows = min(rows, 12)
    if tile is not None:
        rows = max(1, min(rows, tile))
        exact = [n for n in range(rows, rows // 2, -1) if tile % n == 0]
        if exact and (whole or tile <= FEW_ROWS):
            return exact[0]  # no tail: 64 rows are eight times 8
        parts = -(-tile // rows) or 1
        rows = -(-tile // parts) or 1  # even parts: 16 rows are 8 + 8, not 12 + 4
    return rows


def _packable(stage: Reduce, roles: Factors) -> bool:
    """Whether the access is plain enough to copy panels."""
    return roles.tile is not None and all(isinstance(i, Var) for load in (roles.a, roles.b) for i in load.index)


def _pays(stage: Reduce, roles: Factors, extents: Mapping[str, int | None], row: Intrinsic | None, spec: DeviceSpec) -> bool:
    """Whether panels are faster than the factors where they are."""
    if row is not None and not row.acc.is_float and is_few(stage, roles, extents):
        return (extents[roles.tile or ""] or 0) >= (2 if roles.strided else INSTRUCTED_ROWS)
    if is_swept(stage, roles, spec, extents):
        return False
    return _is_large(stage, roles, extents, row) and not _is_near(stage, roles, extents, row, spec)


def _is_large(stage: Reduce, roles: Factors, extents: Mapping[str, int | None], row: Intrinsic | None) -> bool:
    """Whether panels would be read often enough to copy them first. Only packed ones feed an instruction that adds several products, and
    only packed elements are widened once each."""
    over = [extents[axis.name] for axis in stage.over]
    reuse, columns = extents[roles.tile or ""], extents[roles.vector]
    if reuse is None or columns is None or None in over:
        return True
    plain = (PACKED_WORK, 32, 64) if not roles.strided else TURNED
    least, rows, width = plain if _as_they_are(roles, row) else INSTRUCTED
    return reuse * columns * prod(n or 0 for n in over) >= least and reuse >= rows and columns >= width


def _is_near(stage: Reduce, roles: Factors, extents: Mapping[str, int | None], row: Intrinsic | None, spec: DeviceSpec) -> bool:
    """Whether both factors may be read where they are: B in vectors and from a part of L2, A along the sum."""
    if not _as_they_are(roles, row) or roles.strided or unit_stride_axis(roles.a) != stage.over[-1].name:
        return False
    sizes = [extents[name] for name in (roles.vector, *(axis.name for axis in stage.over))]
    return None not in sizes and prod(n or 0 for n in sizes) * roles.b.dtype.storage_bytes <= (spec.l2_bytes or 1 << 20) // 4


def _as_they_are(roles: Factors, row: Intrinsic | None) -> bool:
    return row is None and _panel_type(roles.b.dtype, row) is None


def _direct(
    stage: Reduce, roles: Factors, rows: int, width: int, extents: Mapping[str, int | None], decide: Decider, *, threads: bool
) -> list[Step]:
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
        shared = decide(f"{name}.parallel", outer[0], outer, "the loop that threads share")
        steps.append(Parallel(stage=name, axis=shared))
    if roles.tile is not None:
        turns = [Unroll(stage=name, axis=over[-1], factor=TURN)] if _turns(extents, roles.vector, over[-1], width) else []
        steps += [*turns, Unroll(stage=name, axis=f"{roles.tile}.i")]
    return [*steps, Vector(stage=name, axis=f"{roles.vector}.i")]


def _turns(extents: Mapping[str, int | None], vector: str, k: str, width: int) -> bool:
    """Whether a tile's loop without panels makes several terms a turn: it is long, and no vector is in part (a copy of the tile's sums
    for each mask is more than there are registers: f32 of 200 cubed 1.33 times as long)."""
    return (extents[k] or 0) >= TURNING and (extents[vector] or 1) % width == 0


def _packed(
    stage: Reduce, roles: Factors, rows: int, width: int, spec: DeviceSpec, extents: Mapping[str, int | None], acc: DType,
    decide: Decider, *, threads: bool,
) -> list[Step]:  # fmt: skip
    """A block of B in L2, a few rows of A, a register tile in between.

    Each panel of A meets the whole block before the next, so it is read from near and the block streams from L2, one row of the tile's
    width for as many multiply-adds as the tile has. (Goto's order keeps a panel of B in L1 and streams A.) Rows of A that are
    contiguous along the sum are read where they are; others, and those that change their type, are packed, one panel for L1 at a time.
    """
    name, i, j = stage.name, roles.tile or "", roles.vector
    k = max(reversed(stage.over), key=lambda axis: extents[axis.name] or 0).name
    rest = [a.name for a in stage.over if a.name != k]  # panels are of one reduced axis, for each point of the others
    batch = [a.name for a in stage.axes if a.name not in (i, j)]
    row = _instruction(roles, acc, spec)
    if row is not None and not decide(f"{name}.instruction", _is_faster(row, spec), (True, False), f"whether {row.name} multiplies"):
        row = None
    size = (_panel_type(roles.b.dtype, row) or roles.b.dtype).storage_bytes
    plain = row is None and _panel_type(roles.a.dtype, row) is None and unit_stride_axis(roles.a) == k
    packs_rows = decide(f"{name}.pack_rows", not plain, (True, False) if plain else (), "whether the rows of A are copied too")
    step = 16 * (row.k if row else 1) if packs_rows else 1  # whole blocks of a transposing copy
    swept = is_swept(stage, roles, spec, extents)
    block = (spec.l2_bytes or 1 << 20) // (SWEPT_PART if swept else L2_PART if row else 2) // size
    near = (spec.l1_bytes or 32768) // 4 // (rows * size) if packs_rows else min(DEEPEST, block // min(extents[j] or NARROW, NARROW))
    near = near if row is None else min(near, _tile_depth((spec.l1_bytes or 32768) // (width * size), extents[k], step))
    if swept:
        near = SHALLOW
    depth = block_of(near, extents[k], step, DEEPEST)
    depth = decide(f"{name}.depth", depth, blocks_of(DEPTHS, extents[k], step), "terms of the sum per panel")
    columns = block_of(block // depth, extents[j], width, 4096)
    apart = apart_columns(columns, extents[j], width, spec) if threads and not batch else None
    columns = apart or columns
    columns = decide(f"{name}.block_columns", columns, blocks_of(COLUMNS, extents[j], width), "columns of a packed block")
    steps: list[Step] = [
        Split(stage=name, axis=k, factor=depth),
        Split(stage=name, axis=j, factor=columns),
        Split(stage=name, axis=f"{j}.i", factor=width),
        Split(stage=name, axis=i, factor=rows),
    ]
    inner: tuple[str, ...] = (f"{k}.i", f"{i}.i", f"{j}.i.i")
    if row is not None:
        steps.append(Split(stage=name, axis=f"{k}.i", factor=row.k))
        inner = (f"{k}.i.o", f"{i}.i", f"{j}.i.i", f"{k}.i.i")
    steps.append(Order(stage=name, axes=(*batch, f"{j}.o", *rest, f"{k}.o", f"{i}.o", f"{j}.i.o", *inner)))
    if threads:
        shared = (*batch[:1], *([f"{j}.o"] if apart else []), f"{i}.o")
        steps.append(Parallel(stage=name, axis=decide(f"{name}.parallel", shared[0], shared, "the loop that threads share")))
    steps += [Unroll(stage=name, axis=inner[0], factor=TURN), Unroll(stage=name, axis=f"{i}.i"), Vector(stage=name, axis=f"{j}.i.i")]
    kinds = (_panel_type(roles.a.dtype, row), _panel_type(roles.b.dtype, row))
    lying = row is not None and unit_stride_axis(roles.a) == k  # one broadcast reads the terms of an instruction, wherever rows begin
    steps += panel_steps(stage, roles, f"{i}.o" if packs_rows else None, f"{k}.o", kinds, lying=lying)
    if packs_rows:
        steps += fetched_rows(name, roles, rows, extents[i], f"{i}.o", name, decide)
    return steps if row is None else [*steps, Intrin(stage=name, name=row.name)]


def _tile_depth(lines: int, extent: int | None, step: int) -> int:
    """Terms of a tile's part of a block, where L1 holds `lines` of them: all of the sum (in steps) where twice the part holds it."""
    part, whole = lines // L1_PART, -(-(extent or 0) // step) * step
    return whole if 0 < whole <= 2 * part else part


def _panel_type(dtype: DType, row: Intrinsic | None) -> DType | None:
    """Elements are widened once each as they are packed, not at every use, unless an instruction multiplies them as they are."""
    wide = compute_type(dtype)
    return None if row is not None or wide == dtype else wide


def _instruction(roles: Factors, acc: DType, spec: DeviceSpec) -> Intrinsic | None:
    """A dot-product instruction for these types."""
    for row in INTRINSICS.values():
        fits = (row.a, row.b, row.acc) == (roles.a.dtype, roles.b.dtype, acc) and row.lanes and row.k > 1
        if fits and row.feature in spec.features:
            return row
    return None


def _is_faster(row: Intrinsic, spec: DeviceSpec) -> bool:
    """Those of integers are exact and fast everywhere. `vdpbf16ps` takes denormals for zeros, and does less per cycle than two f32
    multiply-adds on some chips (a quarter of a register's products on Golden Cove): it serves where a chip's facts say that it is faster."""
    if not row.acc.is_float:
        return True
    return (spec.peak_bf16_ops_per_second_per_core or 0) > (spec.peak_f32_ops_per_second_per_core or 0)
