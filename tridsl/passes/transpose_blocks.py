"""A copy between memory that is contiguous along different axes, cut into blocks that registers transpose.

    copy A[i, k] -> A.pack[k, i] for i < 12, k < 500          ->    for k.b < 31: copy … for i < 12, k < 16, transposed
                                                                    for i < 12: for k < 4: A.pack[k + 496, i] = A[i, k + 496]

One register is loaded for each i and stored for each k, instead of 192 elements one by one. Where the elements next to each other belong
together in the panel (four bytes for one dot-product instruction) whole groups change places; where groups are neighbours in both, each register
is stored as it was loaded.
"""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Const, Expr, Var, add, binary, both, index, minimum, mul, sub
from tridsl.ir.loop import Block, Copy, CopyAxis, For, If
from tridsl.ir.walk import substitute, variables
from tridsl.structs import dataclass, replace

WIDEST_GROUP = 64
"""Bits that move as one element."""
FEWEST_LANES = 4
SMALLEST_BLOCK = 32
"""Elements of a block below which loads and shuffles are no fewer than elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """`across`: the axis along which the source is contiguous, `lanes` elements (or groups) at a time; `along`: the target's, `rows` at a
    time; `group`: elements that are next to each other in both. `masked`: short blocks go through registers, too."""

    across: CopyAxis
    along: CopyAxis
    group: CopyAxis | None
    lanes: int
    rows: int
    masked: bool

    @property
    def axes(self) -> tuple[CopyAxis, ...]:
        """Outer ones first; along the source innermost."""
        return (self.along, self.across) if self.group is None else (self.along, self.across, self.group)

    def inside(self, names: dict[str, Expr]) -> Blocking:
        """With the loops around it under their final names."""
        group = None if self.group is None else _renamed(self.group, names)
        return replace(self, across=_renamed(self.across, names), along=_renamed(self.along, names), group=group)


def _renamed(axis: CopyAxis, names: dict[str, Expr]) -> CopyAxis:
    return replace(axis, extent=substitute(axis.extent, names))


def blocking_of(copy: Copy, contiguous: str, dtype: DType, spec: DeviceSpec) -> Blocking | None:
    """How `copy`, whose source is contiguous along the axis `contiguous` and whose target holds `dtype`, is cut; None where it is not worth it."""
    if not spec.vector_bits or copy.source.mask is not None or len(copy.axes) < 2:
        return None
    axes = {axis.var: axis for axis in copy.axes}
    if contiguous not in axes:
        return None  # along a loop around the copy
    last = [i.name for i in copy.target.index[-2:] if isinstance(i, Var)]
    if len(last) < 2 or not set(last) <= axes.keys():
        return None
    group: CopyAxis | None = None
    if last[1] == contiguous:
        group, along, width = axes[last[1]], axes[last[0]], _size(axes[last[1]])
        position = next(n for n, i in enumerate(copy.source.index) if contiguous in variables(i))
        found = [a for a in copy.axes if a.var != contiguous and normal_form(copy.source.index[position]).coefficient(a.var) == width]
        if not width or width * dtype.storage_bits > WIDEST_GROUP or len(found) != 1 or _elsewhere(copy, position, found[0].var):
            return None
        across = found[0]
        if across == along:
            return _rows(copy, across, group, width, dtype, spec)
    else:
        width, along, across = 1, axes[last[1]], axes[contiguous]
    size, rows = _span(across), _span(along)
    if not size or not rows or not _independent(along, across, group):  # unknown, or nothing to copy
        return None
    lanes = 1
    while 2 * lanes <= min(size, spec.vector_bits // (width * dtype.storage_bits)):
        lanes *= 2
    most = min(rows, lanes)
    even = max(n for n in range(1, most + 1) if rows % n == 0)
    rows = even if 2 * even >= most else most
    if lanes < FEWEST_LANES or lanes * rows < SMALLEST_BLOCK:
        return None
    masked = spec.has_masks and group is None and copy.pad is None and not copy.flipped
    return Blocking(across=across, along=along, group=group, lanes=lanes, rows=rows, masked=masked)


def _rows(copy: Copy, across: CopyAxis, group: CopyAxis, width: int, dtype: DType, spec: DeviceSpec) -> Blocking | None:
    """Groups that lie side by side in both: blocks of one row, which a register moves as they are."""
    rows = [a for a in copy.axes if a not in (across, group)]
    lanes, size = (spec.vector_bits or 0) // (width * dtype.storage_bits), _span(across)
    if not rows or size is None or size < lanes or _span(rows[-1]) is None or not _independent(rows[-1], across, group):
        return None
    return Blocking(across=across, along=rows[-1], group=group, lanes=lanes, rows=1, masked=False)


def _size(axis: CopyAxis) -> int | None:
    return int(axis.extent.value) if isinstance(axis.extent, Const) else axis.bound


def _span(axis: CopyAxis) -> int | None:
    """Elements that the panel has along the axis, copied or filled."""
    return _size(axis) if axis.bound is None else axis.bound


def _elsewhere(copy: Copy, position: int, variable: str) -> bool:
    """Whether another axis of the source moves with the variable."""
    return any(variable in variables(place) for n, place in enumerate(copy.source.index) if n != position)


def _independent(along: CopyAxis, across: CopyAxis, group: CopyAxis | None) -> bool:
    """Whether the block's own axes do not bound each other, but for a group that gets shorter at the end of the axis it lies on."""
    own = {along.var, across.var} | ({group.var} if group else set())
    if own & (variables(along.extent) | variables(across.extent)):
        return False
    if group is None or not own & variables(group.extent):
        return True
    shrinking = group.extent
    return isinstance(shrinking, Binary) and shrinking.op == "min" and own & variables(shrinking) == {across.var}


def transpose_blocks(copy: Copy, blocking: Blocking, expand: Callable[[Copy], Block]) -> Block:
    """`copy` over the blocking's axes; `expand` makes loops of the parts that are no whole block."""
    if blocking.masked:
        return _masked_blocks(copy, blocking)
    across, along = blocking.across, blocking.along
    lanes, rows = blocking.lanes, blocking.rows
    size, height = _span(across) or 0, _span(along) or 0
    row, block = Var(name=f"{along.var}.b"), Var(name=f"{across.var}.b")
    first_row = index(0) if height == rows else mul(row, index(rows))
    first = mul(block, index(lanes))
    whole = _whole(blocking, first_row, first)
    part = _part(copy, blocking, first_row, first, (rows, lanes), ".e")
    body: Block = (_block(copy, blocking, first_row, first),)
    if whole is not None:
        body = (If(condition=whole, then=body, otherwise=expand(part)),)
    count = size // lanes
    blocks: Block = (For(var=block.name, extent=index(count), bound=count, body=body),)
    if size % lanes:
        blocks += expand(_part(copy, blocking, first_row, index(count * lanes), (rows, size % lanes), ".r"))
    if height == rows:
        return blocks
    turns = height // rows
    whole_rows = For(var=row.name, extent=index(turns), bound=turns, body=blocks)
    if height % rows == 0:
        return (whole_rows,)
    return (whole_rows, *expand(_part(copy, blocking, index(turns * rows), index(0), (height % rows, size), ".f")))


def _masked_blocks(copy: Copy, blocking: Blocking) -> Block:
    """Blocks over all of both axes; those that are not whole say how much there is of them."""
    starts: list[Expr] = []
    loops: list[tuple[str, int]] = []
    whole: Expr | None = None
    for axis, length in ((blocking.along, blocking.rows), (blocking.across, blocking.lanes)):
        count = ceil((_span(axis) or 0) / length)
        starts.append(index(0) if count == 1 else mul(Var(name=f"{axis.var}.b"), index(length)))
        loops += [(f"{axis.var}.b", count)] if count > 1 else []
        if not (isinstance(axis.extent, Const) and int(axis.extent.value) % length == 0):
            whole = both(whole, binary("le", add(starts[-1], index(length)), axis.extent))
    body: Block = (_block(copy, blocking, *starts),)
    if whole is not None:
        limits = ((blocking.along, blocking.rows), (blocking.across, blocking.lanes))
        left = [minimum(index(n), binary("max", index(0), sub(a.extent, start))) for (a, n), start in zip(limits, starts)]
        block = _block(copy, blocking, *starts, suffix=".s")
        axes = tuple(replace(axis, extent=extent, bound=n) for axis, extent, (_, n) in zip(block.axes, left, limits))
        room = all((_span(a) or 0) % n == 0 for a, n in limits)  # what idle lanes compute of it should be no denormal numbers
        short = replace(block, axes=axes, pad=Const(value=0, dtype=copy.source.dtype) if room else None)
        body = (If(condition=whole, then=body, otherwise=(short,)),)
    for name, count in reversed(loops):
        body = (For(var=name, extent=index(count), bound=count, body=body),)
    return body


def _whole(blocking: Blocking, first_row: Expr, first: Expr) -> Expr | None:
    """Whether every element of the block is copied; None where that is always so."""
    condition: Expr | None = None
    for axis, start, length in ((blocking.along, first_row, blocking.rows), (blocking.across, first, blocking.lanes)):
        if axis.extent != index(_span(axis) or 0):
            condition = both(condition, binary("le", add(start, index(length)), axis.extent))
    group = blocking.group
    if group is not None and not isinstance(group.extent, Const):  # a minimum falls towards one end: both ends tell
        for place in (first, add(first, index(blocking.lanes - 1))):
            extent = substitute(group.extent, {blocking.across.var: place})
            condition = both(condition, binary("le", index(group.bound or 0), extent))
    return condition


def _block(copy: Copy, blocking: Blocking, first_row: Expr, first: Expr, *, suffix: str = ".t") -> Copy:
    """A whole block."""
    axes, places = [], {}
    for axis, start, length in ((blocking.along, first_row, blocking.rows), (blocking.across, first, blocking.lanes)):
        axes.append(CopyAxis(var=f"{axis.var}{suffix}", extent=index(length)))
        places[axis.var] = add(start, Var(name=f"{axis.var}{suffix}"))
    if blocking.group is not None:
        axes.append(CopyAxis(var=f"{blocking.group.var}.t", extent=index(_size(blocking.group) or 0)))
        places[blocking.group.var] = Var(name=f"{blocking.group.var}.t")
    return replace(
        copy, axes=tuple(axes), target=substitute(copy.target, places), source=substitute(copy.source, places), pad=None, transposed=True
    )


def _part(copy: Copy, blocking: Blocking, first_row: Expr, first: Expr, lengths: tuple[int, int], suffix: str) -> Copy:
    """The same elements as a copy with its tails."""
    places: dict[str, Expr] = {}
    axes = []
    for axis, start, length in ((blocking.along, first_row, lengths[0]), (blocking.across, first, lengths[1])):
        left = binary("max", index(0), sub(axis.extent, start))
        bound = length if axis.bound is not None else None
        axes.append(CopyAxis(var=f"{axis.var}{suffix}", extent=minimum(index(length), left), bound=bound))
        places[axis.var] = add(start, Var(name=f"{axis.var}{suffix}"))
    if blocking.group is not None:
        group = blocking.group
        axes.append(CopyAxis(var=f"{group.var}{suffix}", extent=substitute(group.extent, places), bound=group.bound))
        places[group.var] = Var(name=f"{group.var}{suffix}")
    return replace(copy, axes=tuple(axes), target=substitute(copy.target, places), source=substitute(copy.source, places))
