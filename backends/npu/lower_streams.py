"""Where tiles come from and go to: how each panel of a core is a part of a tensor, which cores share it, and which column's edge moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.borders import Border, border_of
from tridsl.backends.npu.design import Dimension, HostTensor, Place
from tridsl.backends.npu.dimensions import fitted, merged
from tridsl.backends.npu.lower_program import Moved, Program, affine_of, refuse
from tridsl.devices.array_model import kept_parts
from tridsl.devices.spec import ArraySpec
from tridsl.ir.affine import evaluate_index, simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Var, add, index, mul
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor
from tridsl.ir.walk import substitute, variables

FIRST_CORE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One stream of tiles: `cores` that get (or the one that makes) it, and where its first tile begins in the tensor."""

    cores: tuple[Place, ...]
    offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """The parts of a tensor that go through one column, in the order in which each round of tiles moves them.

    `walk`: loops over tiles, then parts, then the box of a tile, as they lie in the tensor. `core_order`: the dimensions that walk a tile as it lies in
    the memory tile (box order) in the order of the core's memory; for results those that walk the core's order into box order. `piece` tiles come to
    the memory tile together, each `step` elements behind the one before; `elements` are those of one. `kept` > 0: the memory tile holds so many pieces,
    each of which goes `uses` times, whole. A core takes a tile in `strips`.
    """

    moved: Moved
    tensor: HostTensor
    column: int
    parts: tuple[Part, ...]
    walk: tuple[Dimension, ...]
    core_order: tuple[Dimension, ...]
    elements: int
    rounds: int
    piece: int = 1
    step: int = 0
    kept: int = 0
    uses: int = 1
    strips: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Box:
    """A tile: its extents by tensor axis, and the strides of the tensor's axes."""

    extents: tuple[int, ...]
    strides: tuple[int, ...]
    places: tuple[tuple[dict[str, int], int], ...]
    flat: bool


def lanes_of(kernel: Kernel, program: Program, columns: int, facts: ArraySpec) -> tuple[tuple[HostTensor, ...], tuple[Lane, ...]]:
    """All lanes, and the tensors as the array sees them. E0770 where a copy is no box that moves with the loops."""
    tensors: list[HostTensor] = []
    lanes: list[Lane] = []
    loads = [0] * columns
    crowded = sum(not m.writes for m in program.moved) > facts.core_in_channels  # some have to take turns
    declared = {b.name: Tensor(name=b.name, dtype=b.dtype, shape=b.shape, role="output") for b in kernel.scratch}
    declared |= {p.name: p for p in kernel.params if isinstance(p, Tensor)}
    for own in program.moved:
        moved, strips = _together(own)
        if any(t.name == moved.tensor for t in tensors):
            raise refuse(kernel, f"`{moved.tensor}` is staged twice")
        try:
            box, host = _host(declared[moved.tensor], moved, program, facts.granule_bytes)
        except ValueError as problem:
            raise refuse(kernel, f"`{moved.tensor}` is staged at a place that is {problem}") from None
        piece = _piece(moved, box)
        order = _core_order(moved, box, piece)
        if order is None:
            raise refuse(kernel, f"the layout of `{moved.buffer.name}` is no nest of strides")
        tensors.append(host)
        made = _lanes(kernel, program, moved, host, box, order, piece, loads, lanes, crowded)
        lanes += (replace(lane, moved=own, strips=strips) for lane in made) if strips > 1 else made
    return tuple(tensors), tuple(lanes)


def _together(moved: Moved) -> tuple[Moved, int]:
    """A panel that comes in strips as one, and in how many: they are its rows, one strip behind another."""
    if not moved.copy.strips or not moved.loops:
        return moved, 1
    variable, count = moved.loops[-1]
    axes, first = list(moved.copy.axes), moved.copy.target.index[0]
    for d, (axis, place) in enumerate(zip(axes, moved.copy.source.index)):
        size = axis.bound or evaluate_index(axis.extent, {})
        factor = affine_of(place)[0].get(variable, 0)
        if factor == size and axis.var in variables(first):
            axes[d] = replace(axis, extent=index(size * count), bound=size * count)
            whole = replace(moved.copy, axes=tuple(axes), source=substitute(moved.copy.source, {variable: index(0)}))
            rows, *rest = moved.buffer.shape
            buffer = replace(moved.buffer, shape=(simplify_index(mul(rows, index(count))), *rest))
            return replace(moved, copy=whole, buffer=buffer, loops=moved.loops[:-1]), count
    return moved, 1


def _host(tensor: Tensor, moved: Moved, program: Program, granule: int) -> tuple[_Box, HostTensor]:
    """The box of a tile in the tensor, whose shape is rounded up so that all tiles lie inside; axes are exchanged where a core wants the
    contiguous one to be another."""
    shape = tuple(int(n.value) for n in tensor.shape if isinstance(n, Const))
    border = Border() if moved.writes else border_of(moved.copy.source)
    place = (moved.copy.target if moved.writes else moved.copy.source).index
    names = [axis.var for axis in moved.copy.axes]
    extents = [axis.bound or evaluate_index(axis.extent, {}) for axis in moved.copy.axes]
    ranges = dict([program.column, program.row, *moved.loops])
    flat = len(names) != len(shape) or any(not _sum_of_multiples(i) for i in place)
    if flat:
        place = (simplify_index(_linear(place, shape)),) if shape else (Var(name=names[0]),)
    parts = [affine_of(i) for i in place]
    if len(names) != len(parts) or any(p[0].get(name) != 1 for p, name in zip(parts, names)):
        raise ValueError("no corner plus a box")
    buffer = tuple(int(n.value) for n in moved.buffer.shape if isinstance(n, Const))
    if len(buffer) == len(names):
        extents = _rounded(moved, names, buffer)
    order = tuple(range(len(parts))) if flat else _axes(moved, extents, buffer)
    sizes = []
    lowest = [constant + sum(min(0, f) * (ranges.get(v, 1) - 1) for v, f in terms.items()) for terms, constant in parts]
    before = [max(0, -low) if border.around and not flat else 0 for low in lowest]
    words = max(1, granule // tensor.dtype.storage_bytes)
    if not flat and not moved.writes:
        before[order[-1]] += -(parts[order[-1]][1] + before[order[-1]]) % words  # transfers begin at words
    parts = [(terms, constant + more) for (terms, constant), more in zip(parts, before)]
    for n, ((terms, constant), extent) in enumerate(zip(parts, extents)):
        reach = constant + sum(max(0, f) * (ranges[v] - 1) for v, f in terms.items() if v in ranges) + extent
        if lowest[n] + before[n] < 0:
            raise ValueError("partly outside")
        sizes.append(max(reach, prod(shape) if flat else before[n] + shape[n]))
    if not flat:
        sizes[order[-1]] = -(-sizes[order[-1]] // words) * words  # so do the rows of a part
    laid = tuple(sizes[d] for d in order)
    strides = [0] * len(sizes)
    step = 1
    for d in reversed(order):
        strides[d] = step
        step *= sizes[d]
    host = HostTensor(
        name=tensor.name, dtype=str(tensor.dtype), element_bytes=tensor.dtype.storage_bytes, given=shape, shape=laid,
        axes=None if flat else order, role="output" if moved.writes else "input", before=tuple(before[d] for d in order) if any(before) else (),
        edge=border.edge, filler=border.filler,
    )  # fmt: skip
    places = tuple(({v: f for v, f in terms.items() if v not in names}, constant) for terms, constant in parts)
    return _Box(extents=tuple(extents), strides=tuple(strides), places=places, flat=flat), host


def _rounded(moved: Moved, names: list[str], buffer: tuple[int, ...]) -> list[int]:
    """The extents of the panel's axes in the order of the tensor's: rows are rounded up to whole vectors."""
    point = (moved.copy.source if moved.writes else moved.copy.target).index
    known = [names.index(i.name) if isinstance(i, Var) and i.name in names else -1 for i in point]
    rest = iter(d for d in range(len(names)) if d not in known)  # axes of one element, in order
    places = [next(rest) if d < 0 else d for d in known]
    return [buffer[places.index(d)] for d in range(len(names))]


def _axes(moved: Moved, extents: list[int], buffer: tuple[int, ...]) -> tuple[int, ...]:
    """The order of the tensor's axes in memory: as declared, or with that axis last along which the core's panel is contiguous."""
    order = list(range(len(extents)))
    walk = _panel_walk(moved, extents)
    if buffer[-1] > 1:
        box = np.stack(np.unravel_index(walk[:2], extents))
        along = int(np.argmax(box[:, 1] - box[:, 0]))
        order.remove(along)
        order.append(along)
    return tuple(order)


def _panel_walk(moved: Moved, extents: list[int] | tuple[int, ...]) -> NDArray[np.int64]:
    """For each element of the panel, in its own order, its place in the box (row-major)."""
    point = (moved.copy.source if moved.writes else moved.copy.target).index
    buffer = tuple(int(n.value) for n in moved.buffer.shape if isinstance(n, Const))
    grids = np.meshgrid(*(np.arange(n, dtype=np.int64) for n in extents), indexing="ij")
    values = {axis.var: grid for axis, grid in zip(moved.copy.axes, grids)}
    address = np.zeros(tuple(extents), dtype=np.int64)
    for i, size in zip(point, buffer):
        address = address * size + _evaluated(i, values)
    walk = np.empty(prod(buffer), dtype=np.int64)
    walk[address.reshape(-1)] = np.arange(prod(extents), dtype=np.int64)
    return walk


_ARITHMETIC = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "floordiv": np.floor_divide, "mod": np.mod}


def _evaluated(place: Expr, values: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """An index for all points at once."""
    match place:
        case Const(value=value):
            return np.int64(value) + np.zeros((), np.int64)
        case Var(name=name):
            return values[name]
        case Binary(op=op, a=a, b=b) if op in _ARITHMETIC:
            found: NDArray[np.int64] = _ARITHMETIC[op](_evaluated(a, values), _evaluated(b, values))
            return found
    raise ValueError(f"no index of a panel: {place}")


def _piece(moved: Moved, box: _Box) -> int:
    """How many tiles come together: as many as the copy says where the next tile lies behind this one in every row."""
    last = max(range(len(box.extents)), key=lambda d: (-box.strides[d], d))
    if moved.writes or not moved.loops or box.strides[last] != 1 or moved.copy.kept:
        return 1
    variable, count = moved.loops[-1]
    moves = [terms.get(variable, 0) for terms, _ in box.places]
    together = moves[last] == box.extents[last] and sum(map(abs, moves)) == moves[last]
    return moved.copy.piece if together and count % moved.copy.piece == 0 else 1


def _order(box: _Box) -> list[int]:
    """The axes of the box as they lie in the host's memory, outermost first."""
    return sorted(range(len(box.extents)), key=lambda d: -box.strides[d])


def _core_order(moved: Moved, box: _Box, piece: int) -> tuple[Dimension, ...] | None:
    """Memory tile to core: the strides in the box of the panel's own dimensions. Core to memory tile: the strides in the panel of the box's axes,
    each in two where the panel is blocked. The box lies in the memory tile in the order of the tensor, `piece` of them side by side."""
    buffer = tuple(int(n.value) for n in moved.buffer.shape if isinstance(n, Const))
    order = _order(box)
    walk = _panel_walk(moved, box.extents)
    sizes = [box.extents[d] for d in order]
    laid = np.arange(prod(sizes) * piece, dtype=np.int64).reshape(*sizes[:-1], sizes[-1] * piece)[..., : sizes[-1]]
    place = np.argsort(order)
    in_memtile = laid.transpose(tuple(place)).reshape(-1)[walk]  # panel order -> address in the memory tile
    if not moved.writes:
        dims = fitted(in_memtile, buffer)
        return None if dims is None else merged(dims)
    back = np.empty_like(in_memtile)
    back[in_memtile] = np.arange(in_memtile.size, dtype=np.int64)
    rank = len(box.extents)
    blocks = dict.fromkeys(range(rank), 1)
    if len(buffer) > rank:
        blocks |= {d: box.extents[d] // buffer[d] for d in range(rank)}
    shape = [n for d in order for n in (box.extents[d] // blocks[d], blocks[d])]
    dims = fitted(back, shape)
    return None if dims is None else merged(dims)


def _lanes(
    kernel: Kernel, program: Program, moved: Moved, host: HostTensor, box: _Box, order: tuple[Dimension, ...], piece: int, loads: list[int], made: Sequence[Lane],
    crowded: bool,
) -> list[Lane]:  # fmt: skip
    columns, rows = program.column[1], program.row[1]
    factors: dict[str, int] = {}
    offset = 0
    for (terms, constant), stride in zip(box.places, box.strides):
        offset += constant * stride
        for v, f in terms.items():
            factors[v] = factors.get(v, 0) + f * stride
    by_column, by_row = factors.get(program.column[0], 0), factors.get(program.row[0], 0)
    own_column, own_row = bool(by_column) and columns > 1, bool(by_row) and rows > 1
    if moved.writes and not ((own_column or columns == 1) and (own_row or rows == 1)):
        raise refuse(kernel, f"several cores make the same part of `{moved.tensor}`")
    groups: dict[int, list[Part]] = {}
    for c in range(columns if own_column else 1):
        for r in range(rows if own_row else 1):
            cores = tuple(
                (x, FIRST_CORE + y)
                for x in ([c] if own_column else range(columns)) for y in ([r] if own_row else range(rows))
            )  # fmt: skip
            if own_column:
                column = c
            elif own_row:
                column = r * columns // rows if columns < rows else r * (columns // rows)
            elif not moved.loops:
                column = 0  # what comes once and to all shares a channel (`lower_array.bundles`)
            else:
                column = _beside(moved, cores, prod(box.extents) * host.element_bytes, 0 if crowded else SMALL, made)
                column = min(range(columns), key=lambda n: (loads[n], n)) if column < 0 else column
            groups.setdefault(column, []).append(Part(cores=cores, offset=offset + c * by_column + r * by_row))
    step = by_row if own_row else 0
    lanes = []
    for column, parts in sorted(groups.items()):
        if step < 0:  # transfers go forward: the last core's part comes first
            parts.reverse()
        if not moved.writes:
            loads[column] += 1
        loops = [Dimension(size=n, stride=factors.get(v, 0)) for v, n in moved.loops]
        kept = uses = 0
        if moved.copy.kept and len(parts) == 1:
            loops, uses, piece = _kept(loops)
            kept = loops[-1].size // piece
        tile = [Dimension(size=box.extents[d], stride=box.strides[d]) for d in _order(box)]
        if piece > 1 and not kept:
            loops[-1] = Dimension(size=loops[-1].size // piece, stride=loops[-1].stride * piece)
            tile[-1] = Dimension(size=tile[-1].size * piece, stride=1)
        lanes.append(
            Lane(
                moved=moved, tensor=host, column=column, parts=tuple(parts), walk=(*loops, Dimension(size=len(parts), stride=abs(step)), *tile),
                core_order=merged((Dimension(size=piece, stride=prod(box.extents)), *order)) if kept else order, elements=prod(box.extents),
                rounds=prod(n for _, n in moved.loops), piece=piece, step=box.extents[_order(box)[-1]], kept=kept, uses=max(1, uses),
            )
        )  # fmt: skip
    return lanes


def _kept(loops: list[Dimension]) -> tuple[list[Dimension], int, int]:
    """The loops without those that read the same again around the innermost, how often these do, and the tiles of a piece."""
    *outer, inner = loops
    uses = 1
    while outer and not outer[-1].stride:
        uses *= outer.pop().size
    return [*outer, inner], uses, inner.size // kept_parts(inner.size)


SMALL = 8
"""Times smaller than what goes the same way as often: its transfers are hardly noticed there."""


def _beside(moved: Moved, cores: tuple[Place, ...], size: int, times: int, made: Sequence[Lane]) -> int:
    """The column of a stream so many `times` larger that goes to the same cores as often, so that the two can take turns; -1 where there is none."""
    for lane in made:
        alike = not moved.writes and not lane.moved.writes and lane.moved.loops == moved.loops and [p.cores for p in lane.parts] == [cores]
        if alike and times * size <= lane.elements * lane.tensor.element_bytes:
            return lane.column
    return -1


def _sum_of_multiples(place: Expr) -> bool:
    try:
        affine_of(place)
    except ValueError:
        return False
    return True


def _linear(place: tuple[Expr, ...], shape: tuple[int, ...]) -> Expr:
    total: Expr = index(0)
    for i, n in zip(place, shape):
        total = add(mul(total, index(n)), i)
    return total
