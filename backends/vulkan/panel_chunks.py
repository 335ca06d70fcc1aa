"""Chunks of a panel in shared memory: which of them a lane moves, from memory to its registers and on.

Chunk q*lanes + lane of the panel, in the panel's order, is the q-th of that lane: 16 bytes of a row. Of rows that are no whole 16 bytes a chunk is
less, down to one element; a chunk beyond the end of a padded tensor is zeros.

Eight lanes at a time store to all banks of shared memory. Where rows are shorter than that, and an odd number of chunks apart (padding sees to it),
rows next to each other would share banks: the eight lanes take rows as far apart as a row has chunks, 0 and 4 of four chunks each, then 1 and 5
(4096^3 on an H100: f16 308 instead of 296 TFLOP/s, i8 468 instead of 438 TOP/s; *measured*).

A panel of bytes or halves that lies the other way round than its source (`turned`) is moved in blocks: a lane fetches a word of each of
as many rows as make 16 bytes, and stores the columns of these words, 16 bytes each:

    copy B[k, j] → B.s[j, k] cooperative   →   unroll r < 16: copy B[k*16 + r, j*4 + e] → B.next[r*4 + e], e < 4
                                               unroll e < 4: copy B.next[r*4 + e] → B.s[j*4 + e, k*16 + r], r < 16

Lanes next to each other store blocks next to each other in the panel, so that its rows, an odd number of 16 bytes apart, are in different banks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod

from tridsl.backends.vulkan.collective import LANE_AXES
from tridsl.backends.vulkan.contiguous import MAX_BYTES, WORD_BYTES, Strides, is_multiple, row_major, run_start
from tridsl.backends.vulkan.lower_panels import is_turned
from tridsl.dtypes import DType, compute_type
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var, add, binary, index, mul
from tridsl.ir.loop import Block, Buffer, Copy, CopyAxis, For, If, Ref, Store
from tridsl.ir.walk import substitute, variables

MOST = 32
"""Chunks of less than 16 bytes that a lane fetches ahead of one panel."""

STORING = 8
"""Lanes whose 16 bytes each shared memory takes at a time: all of its 32 banks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One copy as `each` chunks of `width` elements for every lane, or of that many of `rows` rows. `apart`: how far apart rows are
    that lanes next to each other take; `turn`: which of the registers of a lane that panels take in turns."""

    copy: Copy
    extents: tuple[int, ...]
    width: int
    rows: int = 1
    each: int
    chunks: int
    lanes: int
    dtype: DType
    apart: int = 1
    turn: int = 0

    @property
    def name(self) -> str:
        return f"{self.copy.target.tensor}.next{self.turn or ''}"

    @property
    def held(self) -> int:
        """Elements of a chunk."""
        return self.rows * self.width


def panel_of(copy: Copy, lanes: int, tensors: Mapping[str, tuple[DType, Strides]], buffers: Mapping[str, Buffer]) -> Panel | None:
    if copy.source.tensor not in tensors or copy.target.tensor not in buffers or not copy.axes:
        return None
    if copy.source.mask is not None and copy.source.other != copy.pad:
        return None
    dtype, strides = tensors[copy.source.tensor]
    extents = tuple(int(a.extent.value) for a in copy.axes if isinstance(a.extent, Const) and a.bound in (None, a.extent.value))
    target = buffers[copy.target.tensor]
    if len(extents) != len(copy.axes) or target.dtype != dtype:
        return None
    last = copy.axes[-1].var
    if _in_blocks(copy, extents, strides, target):
        width, rows = WORD_BYTES // dtype.storage_bytes, MAX_BYTES // dtype.storage_bytes
        chunks = prod(extents) // (width * rows)
        return Panel(copy=copy, extents=extents, width=width, rows=rows, each=-(-chunks // lanes), chunks=chunks, lanes=lanes, dtype=dtype)
    width = MAX_BYTES // dtype.storage_bytes
    while not _in_chunks(copy, last, width, extents[-1], strides, target):
        width //= 2
        if not width or copy.source.mask is None:
            return None
    total = 1
    for extent in extents:
        total *= extent
    chunks = total // width
    each = -(-chunks // lanes)
    if each > MOST and width * dtype.storage_bytes < MAX_BYTES:
        return None  # so many questions, written out, take compilers longer than the fetching ahead is worth
    apart = 1 if is_turned(copy) else _rows_apart(extents, width, target)
    return Panel(copy=copy, extents=extents, width=width, each=each, chunks=chunks, lanes=lanes, dtype=dtype, apart=apart)


def _rows_apart(extents: tuple[int, ...], width: int, target: Buffer) -> int:
    """How far apart the rows are that eight lanes store to at a time: as far as no two of their chunks share banks."""
    pitch, size = target.shape[-1], target.dtype.storage_bytes
    if len(extents) < 2 or not isinstance(pitch, Const) or width * size != MAX_BYTES:
        return 1
    chunks, between = extents[-1] // width, int(pitch.value) * size / MAX_BYTES
    return chunks if chunks < STORING and STORING % chunks == 0 == extents[-2] % STORING and between % 2 == 1 else 1


def _in_blocks(copy: Copy, extents: tuple[int, ...], strides: Strides, target: Buffer) -> bool:
    """Whether the panel lies the other way round, and both its rows and those of its source are whole words of narrow elements."""
    size = target.dtype.storage_bytes
    if size >= WORD_BYTES or len(extents) != 2 or copy.source.mask is not None or not is_turned(copy):
        return False
    sides = ((copy.source.index, strides, 1, WORD_BYTES // size), (copy.target.index, row_major(target.shape), 0, MAX_BYTES // size))
    return all(extents[axis] % count == 0 and _is_run(at, along, copy.axes[axis].var, count) for at, along, axis, count in sides)


def _in_chunks(copy: Copy, last: str, width: int, extent: int, strides: Strides, target: Buffer) -> bool:
    """Whether `width` elements along the last axis are neighbours on both sides (single words of a panel that lies the other way round), and
    are all there or none of them."""
    if extent % width:
        return False
    lone = target.dtype.storage_bytes == WORD_BYTES and is_turned(copy)
    if not _is_run(copy.source.index, strides, last, width) or not (lone or _is_run(copy.target.index, row_major(target.shape), last, width)):
        return False
    return copy.source.mask is None or all(_whole(part, last, width) for part in _parts(substitute(copy.source.mask, _chunk(last, width))))


def _is_run(at: tuple[Expr, ...], strides: Strides, variable: str, count: int) -> bool:
    """Whether an access to chunks of `count` along `variable` finds each of them side by side, and aligned as a whole."""
    return run_start(substitute(at, _chunk(variable, count)), strides, variable, count) is not None


def _chunk(variable: str, count: int) -> dict[str, Expr]:
    return {variable: add(mul(Var(name="<chunk>"), index(count)), Var(name=variable))}


def _parts(condition: Expr) -> tuple[Expr, ...]:
    """The conditions that must all hold."""
    if isinstance(condition, Binary) and condition.op == "and":
        return (*_parts(condition.a), *_parts(condition.b))
    return (condition,)


def _whole(condition: Expr, last: str, width: int) -> bool:
    """Whether `i < extent` has one answer for all elements of a chunk."""
    if last not in variables(condition) or width == 1:
        return True
    if not isinstance(condition, Binary) or condition.op != "lt" or not isinstance(condition.b, Const) or int(condition.b.value) % width:
        return False
    start = normal_form(condition.a)
    rest = start.without([last])
    return start.coefficient(last) == 1 and is_multiple(rest, width)


def in_lanes(team: tuple[For, ...]) -> bool:
    return bool(team) and all(loop.kind == "lane" for loop in team)


def moves_of(panel: Panel, team: tuple[For, ...], copy: Copy, *, out: bool) -> Block:
    """The lane's chunks from memory to its registers, or (`out`) on to the panel."""
    suffix = "out" if out else "in"
    chunk, element, lane, row = (Var(name=f"{panel.name}.{part}.{suffix}") for part in ("q", "e", "t", "r"))
    me: Expr = lane
    if in_lanes(team):
        me, step = index(0), 1
        for loop in sorted(team, key=lambda l: LANE_AXES[l.binding or "lane.x"]):
            me = add(me, mul(Var(name=loop.var), index(step)))
            step *= int(loop.extent.value) if isinstance(loop.extent, Const) else 0
    number = add(mul(chunk, index(panel.lanes)), me)
    places, kept = _block(panel, copy, number, element, row) if panel.rows > 1 else (_places(panel, copy, number, element), element)
    kept = add(mul(chunk, index(panel.held)), kept)
    own = (kept,) if in_lanes(team) else (lane, kept)
    turned = out and panel.rows > 1
    axis = CopyAxis(var=row.name, extent=index(panel.rows)) if turned else CopyAxis(var=element.name, extent=index(panel.width))
    source, target = substitute(copy.source, places), substitute(copy.target, places)
    if out:
        move = Copy(axes=(axis,), target=target, source=Load(tensor=panel.name, index=own, dtype=panel.dtype))
    else:
        move = Copy(axes=(axis,), target=Ref(tensor=panel.name, index=own), source=replace(source, mask=None, other=None))
    moves: Block = (move,)
    if turned:
        moves = tuple(substitute(move, {element.name: index(column)}) for column in range(panel.width))
    elif panel.rows > 1:
        moves = (For(var=row.name, extent=index(panel.rows), bound=panel.rows, kind="unroll", body=moves),)
    if not out and source.mask is not None and copy.pad is not None:
        beyond = Store(target=Ref(tensor=panel.name, index=own), value=_nothing(copy.pad))
        zeros = For(var=f"{element.name}.none", extent=index(panel.width), bound=panel.width, kind="unroll", body=substitute((beyond,), {element.name: Var(name=f"{element.name}.none")}))
        moves = (If(condition=substitute(source.mask, {element.name: index(0)}), then=moves, otherwise=(zeros,)),)
    if panel.chunks % panel.lanes:
        moves = (If(condition=binary("lt", number, index(panel.chunks)), then=moves),)
    body = For(var=chunk.name, extent=index(panel.each), bound=panel.each, kind="unroll", body=moves)
    if not in_lanes(team):
        body = For(var=lane.name, extent=index(panel.lanes), bound=panel.lanes, kind="lane", binding="lane.x", body=(body,))
    return (body,)


def _places(panel: Panel, copy: Copy, number: Expr, element: Expr) -> dict[str, Expr]:
    """Where an element of a chunk is along the axes of `copy`: the last one is walked first."""
    places: dict[str, Expr] = {}
    per_row, left = panel.extents[-1] // panel.width, number
    places[copy.axes[-1].var] = add(mul(binary("mod", left, index(per_row)), index(panel.width)), element)
    left = _row(panel, binary("floordiv", left, index(per_row)))
    for position in range(len(panel.extents) - 2, -1, -1):
        places[copy.axes[position].var] = binary("mod", left, index(panel.extents[position])) if position else left
        left = binary("floordiv", left, index(panel.extents[position]))
    return places


def _row(panel: Panel, number: Expr) -> Expr:
    """The row that is the `number`-th in the lanes' order: within as many as eight lanes store to."""
    if panel.apart == 1:
        return number
    together = index(STORING // panel.apart)
    first, place = (binary(op, number, index(STORING)) for op in ("floordiv", "mod"))
    near, far = binary("floordiv", place, together), binary("mod", place, together)
    return add(add(mul(first, index(STORING)), mul(far, index(panel.apart))), near)


def _block(panel: Panel, copy: Copy, number: Expr, element: Expr, row: Expr) -> tuple[dict[str, Expr], Expr]:
    """Where an element of a block is along both axes of `copy`, and in the block: the rows, side by side in the panel, are walked first."""
    across = index(panel.extents[0] // panel.rows)
    rows, columns = (add(mul(place, index(count)), own) for place, count, own in (
        (binary("mod", number, across), panel.rows, row), (binary("floordiv", number, across), panel.width, element),
    ))  # fmt: skip
    return {copy.axes[0].var: rows, copy.axes[1].var: columns}, add(mul(row, index(panel.width)), element)


def _nothing(pad: Expr) -> Expr:
    """The padding in its compute type."""
    wide = compute_type(pad.dtype)
    return pad if wide == pad.dtype else Cast(a=pad, dtype=wide)
