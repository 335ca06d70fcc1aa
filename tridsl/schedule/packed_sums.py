"""Sums of products with a packed matrix of trits, where the device has the instruction that takes its bytes.

A register tile is some row blocks (registers of 16 rows) times some rows of the other factor ("tokens"): a block's bytes are unpacked
once for all tokens, a token's four terms are broadcast once for all blocks (reference/kernels.md 2.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I8, I32, TRIT, U8
from tridsl.ir.expr import Binary, Cast, Expr, Load, Var, index
from tridsl.ir.op import Op, Reduce, Stage
from tridsl.ir.packings import PACKINGS, ROWS, Packing, is_packed
from tridsl.ir.walk import substitute, variables
from tridsl.schedule.analyse import extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.planes import EXACT_TERMS, first_block
from tridsl.schedule.steps import At, Intrin, Order, Pack, Parallel, Pipeline, Planes, Split, Step, Unroll, Vector

MOST_BLOCKS = 4
"""Row blocks of a tile: beyond it there are more streams of weights than the prefetchers follow."""
MOST_TOKENS = 12
SPARE_REGISTERS = 6
"""For the codec's constants, a broadcast and the byte that is unpacked."""
AHEAD_BYTES = 2048
"""How far weights are fetched ahead of their use: 32 lines (measured: 16 are too few for one core to fill the memory's queue, 64
begin to be thrown out before they are used)."""


class PackedSum(NamedTuple):
    """`stage[…, token, m] = sum over k of W[m, k] * X[…, token, k]`, W packed; `row` is the instruction. W does not mention the token, but
    may mention other axes (`W[m, 256*b + k]`)."""

    packing: Packing
    row: Intrinsic
    weight: Load
    value: Load
    m: str
    k: str
    token: str | None


def packed_sums(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> dict[str, PackedSum]:
    """The stages of `op` that the instruction of this device can take on bytes: matrices whose size is known."""
    packed = {t.name: PACKINGS[t.layout] for t in op.tensors if is_packed(t) and t.dtype == TRIT}
    row = _instruction(spec)
    if not packed or row is None:
        return {}
    found = {stage.name: _packed_sum(stage, packed, row, sizes) for stage in op.stages}
    return {name: found_ for name, found_ in found.items() if found_ is not None}


def _instruction(spec: DeviceSpec) -> Intrinsic | None:
    """Unsigned codes times signed bytes for a register of 16 lanes, or (on a GPU) values times bytes for the word of one."""
    fits = (r for r in INTRINSICS.values() if (r.b, r.acc) == (I8, I32) and not r.is_matrix and r.feature in spec.features)
    return next((r for r in fits if (r.a == U8 and spec.lanes(I32) == ROWS if r.lanes else r.a == I8)), None)


def _packed_sum(stage: Stage, packed: Mapping[str, Packing], row: Intrinsic, sizes: Mapping[str, int]) -> PackedSum | None:
    if not isinstance(stage, Reduce) or stage.ordered or stage.reducer.op != "add" or len(stage.targets) != 1 or len(stage.over) != 1:
        return None
    value = stage.values[0]
    if not isinstance(value, Binary) or value.op != "mul" or value.dtype != row.acc:
        return None
    a, b = _element(value.a), _element(value.b)
    if a is None or b is None:
        return None
    weight, other = (a, b) if a.tensor in packed else (b, a)
    if weight.tensor not in packed or other.dtype != row.b or weight.boundary is not None or other.boundary is not None:
        return None
    axes, k = [axis.name for axis in stage.axes], stage.over[0].name
    packing = packed[weight.tensor]
    if len(weight.index) != 2 or not isinstance(weight.index[0], Var):
        return None
    column = substitute(weight.index[1], {name: index(size) for name, size in sizes.items()})
    m, first = weight.index[0].name, first_block(column, k, packing)
    if m not in axes or first is None or m in variables(first) | variables(other) or other.index == () or k not in variables(other.index[-1]):
        return None
    if any(extent_of(axis, sizes) is None for axis in (*stage.axes, *stage.over) if axis.name in (m, k)):
        return None
    tokens = [a for a in axes if a != m and a not in variables(weight)]
    return PackedSum(packing, row, weight, other, m, k, tokens[-1] if tokens else None)


def _element(factor: Expr) -> Load | None:
    while isinstance(factor, Cast):
        factor = factor.a
    return factor if isinstance(factor, Load) else None


def packed_sum_steps(
    stage: Reduce, found: PackedSum, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, threads: bool
) -> list[Step]:  # fmt: skip
    """A tile of partial sums in registers for each row blocks and tokens; the result is put together from it right behind."""
    name, m, k, n = stage.name, found.m, found.k, found.token
    extents = {a.name: extent_of(a, sizes) for a in (*stage.axes, *stage.over)}
    terms, tokens_in_all = extents[k], 1 if n is None else extents[n]
    blocks_in_all = None if extents[m] is None else -(-(extents[m] or 0) // ROWS)
    parts, blocks, tokens = _tile(name, found.packing, terms, blocks_in_all, tokens_in_all, spec, decide)
    partial, offset = f"{name}.planes", f"{name}.offset"
    steps: list[Step] = [Planes(stage=name, parts=parts), Split(stage=name, axis=f"{m}.o", factor=blocks)]
    batch = [a.name for a in stage.axes if a.name not in (m, n)]
    outer, panel = [f"{m}.o.o", *batch], f"{m}.o.o"
    inner = [f"{m}.o.i", f"{m}.i"]
    if n is not None:
        held = max(1, (spec.l2_bytes or 1 << 20) // 2 // max(1, tokens * (terms or 1)))
        held = held if tokens_in_all is None else max(1, min(held, -(-tokens_in_all // tokens)))
        held = decide(f"{name}.block_tokens", held, (1, 2, 4, 8, 16, 32), "tiles of tokens whose terms stay in the second cache")
        steps += [Split(stage=name, axis=n, factor=tokens), Split(stage=name, axis=f"{n}.o", factor=held)]
        outer, panel = [f"{n}.o.o", f"{m}.o.o", *batch, f"{n}.o.i"], f"{n}.o.o"
        inner = [f"{n}.i", *inner]
    steps.append(Order(stage=name, axes=(*outer, *inner)))
    steps.append(At(stage=partial, consumer=name, axis=outer[-1]))
    tile = [*([n] if n is not None else []), f"{k}.p", f"{m}.o"]
    steps.append(Order(stage=partial, axes=(*batch, f"{k}.o", f"{k}.g", *tile, f"{m}.i", f"{k}.i")))
    steps += [Unroll(stage=partial, axis=axis) for axis in (f"{k}.g", *tile)]
    steps.append(Vector(stage=partial, axis=f"{m}.i"))
    tails = any(of is None or of % by for of, by in ((terms, found.packing.columns), (tokens_in_all, tokens)))
    many = tokens_in_all is None or tokens_in_all > tokens
    if decide(f"{name}.panel", tails or many, () if tails else (False, True), "whether the terms are copied in the order of their use"):
        steps.append(Pack(stage=found.value.tensor, at=panel, reader=name))
    steps.append(Intrin(stage=partial, name=found.row.name))
    ahead = AHEAD_BYTES // (found.packing.planes * 64)
    ahead = decide(f"{name}.ahead", ahead, (0, 4, 8, 16, 32, 64, 128), "block columns of weights fetched ahead")
    if ahead:
        steps.append(Pipeline(stage=found.weight.tensor, depth=ahead, at=f"{k}.o", reader=partial))
    if threads:
        steps.append(Parallel(stage=name, axis=f"{m}.o.o"))
    return [*steps, Vector(stage=name, axis=f"{m}.i"), Vector(stage=offset, axis=k)]


def _tile(
    name: str, packing: Packing, terms: int | None, blocks: int | None, tokens: int | None, spec: DeviceSpec, decide: Decider
) -> tuple[int, int, int]:
    """Partial sums of each result, row blocks, tokens: as many accumulators as there are registers, and no tails where possible."""
    registers = (spec.vector_registers or 32) - SPARE_REGISTERS
    wide = _even(tokens, MOST_TOKENS)
    wide = decide(f"{name}.tokens", wide, range(1, MOST_TOKENS + 1), "tokens of the register tile") if tokens != 1 else 1
    fields = packing.field_bits and terms is not None and terms < EXACT_TERMS
    possible = [p for p in (4, 2, 1) if p == 1 or (fields and p * wide < registers)]
    # one AND a code instead of a shift and an AND; where one instruction does both, partial sums only serve to hide its latency
    shifted = "gfni" in spec.features and wide > 1
    parts = decide(f"{name}.parts", 1 if shifted else possible[0], possible, "partial sums of each result")
    most = max(1, min(MOST_BLOCKS if parts > 1 or wide > 1 else 2 * MOST_BLOCKS, registers // (parts * wide + 1)))
    exact = [b for b in range(most, 0, -1) if blocks is not None and blocks % b == 0]
    return parts, decide(f"{name}.blocks", exact[0] if exact else 1, _divisors(blocks), "row blocks of the register tile"), wide


def _even(extent: int | None, most: int) -> int:
    """Even parts of `extent` up to `most`."""
    if not extent:
        return most if extent is None else 1
    return -(-extent // -(-extent // most))


def _divisors(extent: int | None) -> Iterable[int]:
    return (n for n in range(1, 2 * MOST_BLOCKS + 1) if extent is not None and extent % n == 0)
