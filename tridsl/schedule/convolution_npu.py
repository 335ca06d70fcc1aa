"""Convolutions on an array of cores by its matrix instruction: neighbours along a row times channels, against filters.

A core holds rows of the image with the channels innermost, in blocks of as many as the instruction takes: a block of its first factor is then any few
neighbours along a row, wherever a window begins (no copies of windows are made), and the sum over a window and the channels stays in registers. For
channels that fill at least half of a block; `windows_npu` has the others. What is reduced in blocks may be the columns of a window, too (patches).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import ceil, prod

from tridsl.devices.array_model import kept_parts, pass_cycles, peak_macs, slowness
from tridsl.devices.intrinsics import Intrinsic
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Load, Var, index
from tridsl.ir.op import Reduce
from tridsl.ir.walk import substitute, variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, values_of
from tridsl.schedule.contraction_npu import RIDING, SCALARS_BYTES, instruction_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.roles import factors_of
from tridsl.schedule.steps import At, Bind, Intrin, Order, Split, Step, StoreIn, Unroll, Vector
from tridsl.schedule.tile_cost import EXPANSION
from tridsl.schedule.windows_npu import lone_sum
from tridsl.structs import dataclass

ROWS_TOGETHER = (1, 2, 4)
"""Rows of the result that a core makes of one panel: the rows around them come once."""
WIDEST = 128
"""Results of a core along a row, and filters, beyond which nobody need look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Axes of such a sum: `x` along the image's rows (`stride` columns apart, over `columns` of the window's), `y` across them (`steps` rows apart, over
    `rows` of the window's), `o` of the filters, `c` in blocks, `around` the other reduced ones, `batch` the other ones of the result."""

    image: Load
    filters: Load
    x: str
    y: str
    o: str
    c: str
    stride: int
    columns: int
    steps: int
    rows: int
    around: tuple[str, ...]
    batch: tuple[str, ...]

    @property
    def free(self) -> tuple[str, ...]:
        """What is reduced around the blocks of an index of its own."""
        taken = {_place(self.image, a) for a in (self.x, self.y)}
        return tuple(a for a in self.around if _place(self.image, a) not in taken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Deal:
    """Tiles: `m` results along a row, `n` filters, `k` elements of the axis in blocks, `rows` rows; `apart`: columns of the array have filters of their
    own, not rows; `parted`: panels of one point each of the reduced axes that are the image's own."""

    m: int
    n: int
    k: int
    rows: int
    apart: bool
    parted: bool


def convolution_npu(
    graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps for such a sum, alone or behind it a map that reads each of its elements once; none where no instruction or no tile fits."""
    name = live[0]
    total = lone_sum(graph, root, live)
    factors = None if total is None else factors_of(substitute(total.values[0], {size: index(n) for size, n in sizes.items()}))
    if total is None or factors is None:
        return []
    row = instruction_of(name, (factors[0].dtype, factors[1].dtype, total.reducer.dtypes[0]), spec, decide)
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in (*total.axes, *total.over)}
    window = None if row is None or not all(extents.values()) else _window(total, factors, row, extents)
    if row is None or window is None:
        return []
    columns = decide(f"{root}.columns", spec.columns or 1, [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)], "columns of the array")
    cost = _Cost(
        window=window, row=row, array=array, extents=extents, columns=columns,
        made=next(t.dtype.storage_bytes for t in graph.op.tensors if t.name == root), beside=_beside(graph, name, root, window),
    )
    deals = [deal for deal in cost.deals() if cost.fits(deal)]
    if not deals:
        return []
    deal = min(deals, key=cost.seconds)
    return _steps(graph, name, root, window, deal, row, extents, columns, array.rows, kept=cost.keeps(deal))


def _window(total: Reduce, factors: tuple[Load, Load], row: Intrinsic, extents: Mapping[str, int]) -> Window | None:
    axes, over = [a.name for a in total.axes], [a.name for a in total.over]
    for image, filters in (factors, factors[::-1]):
        own = {v for i in image.index for v in variables(i)}
        others = {v for i in filters.index for v in variables(i)}
        apart = [a for a in axes if a in others]
        moving = [a for a in axes if a in own]
        if len(apart) != 1 or apart[0] in own or len(moving) < 2 or filters.boundary is not None or not all(isinstance(i, Var) for i in filters.index):
            continue
        if image.boundary is not None and image.boundary.mode != "value" or not set(over) <= own & others:
            continue
        x, y = moving[-1], max(moving[:-1], key=lambda a: extents[a])
        c = _in_blocks(image, over, row, extents)
        along, across = (_place(image, a) for a in (x, y))
        if c is None or along is None or across is None or along == across:
            continue
        stride, steps = (normal_form(image.index[d]).coefficient(a) or 0 for d, a in ((along, x), (across, y)))
        if stride < 1 or steps < 1:
            continue
        reach = [_reach(image, d, over, extents) for d in (along, across)]
        return Window(
            image=image, filters=filters, x=x, y=y, o=apart[0], c=c, stride=stride, columns=reach[0], steps=steps, rows=reach[1],
            around=tuple(a for a in over if a != c), batch=tuple(a for a in axes if a not in (x, y, apart[0])),
        )
    return None


def _place(load: Load, axis: str) -> int | None:
    """The only index of the access that mentions the axis."""
    found = [d for d, i in enumerate(load.index) if axis in variables(i)]
    return found[0] if len(found) == 1 else None


def _reach(load: Load, d: int, over: Sequence[str], extents: Mapping[str, int]) -> int:
    """Elements along axis `d` that one window reads."""
    form = normal_form(load.index[d])
    return 1 + sum(abs(form.coefficient(a) or 0) * (extents[a] - 1) for a in over)


def _in_blocks(image: Load, over: Sequence[str], row: Intrinsic, extents: Mapping[str, int]) -> str | None:
    """The reduced axis that goes in blocks: one of the image's own (what lies beyond its end is 0), or columns of windows that do not overlap, in whole
    blocks. At least half of a block is there."""
    found = []
    for axis in over:
        d = _place(image, axis)
        if d is None or normal_form(image.index[d]).coefficient(axis) != 1:
            continue
        whole = extents[axis] % row.k == 0 and all(f % row.k == 0 for m, f in normal_form(image.index[d]).terms if m != (Var(name=axis),))
        if 2 * extents[axis] >= row.k and (image.index[d] == Var(name=axis) or whole):
            found.append(axis)
    return max(found, key=lambda a: (extents[a] / (ceil(extents[a] / row.k) * row.k), over.index(a)), default=None)  # equals: as it lies in memory


def _beside(graph: Graph, name: str, root: str, window: Window) -> int:
    """Bytes of a core's memory for each filter: what else the map behind reads, which has to move with the filters (others are none of a row)."""
    loads = {n.tensor: n for v in values_of(graph.stages[root]) for n in walk(v) if isinstance(n, Load) and n.tensor not in (name,)} if root != name else {}
    return RIDING * sum(n.dtype.storage_bytes for n in loads.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    window: Window
    row: Intrinsic
    array: ArraySpec
    extents: Mapping[str, int]
    columns: int
    made: int
    beside: int

    def deals(self) -> Iterator[Deal]:
        w, row = self.window, self.row
        for apart, parted in product((False, True), (False, True) if w.free else (False,)):
            for rows in ROWS_TOGETHER:
                for m in _multiples(EXPANSION * row.m, self.extents[w.x]):
                    for n in _multiples(EXPANSION * row.n, self.extents[w.o]):
                        for k in _multiples(row.k, self.extents[w.c]):
                            if not parted or k >= self.extents[w.c]:  # sums begin with the first point of one loop
                                yield Deal(m=m, n=n, k=k, rows=rows, apart=apart, parted=parted)

    def panels(self, d: Deal) -> tuple[int, int]:
        """Bytes of the image's and of the filters' panel."""
        w = self.window
        around = self.around(d)
        image = ((d.rows - 1) * w.steps + w.rows) * ((d.m - 1) * w.stride + w.columns)
        channels = d.k if _place(w.image, w.c) not in (_place(w.image, w.x), _place(w.image, w.y)) else 1
        image *= channels * (1 if d.parted else prod(self.extents[a] for a in w.free))
        return image * self.row.a.storage_bytes, d.k * d.n * around * self.row.b.storage_bytes

    def around(self, d: Deal) -> int:
        """Points of the other reduced axes in one panel."""
        w = self.window
        return prod(self.extents[a] for a in w.around if not (d.parted and a in w.free))

    def turns(self, d: Deal) -> int:
        """Panels of one sum."""
        w = self.window
        return ceil(self.extents[w.c] / d.k) * (prod(self.extents[a] for a in w.free) if d.parted else 1)

    def fits(self, d: Deal) -> bool:
        image, filters = self.panels(d)
        size = 2 * image + (1 if self.turns(d) == 1 else 2) * filters + d.rows * d.m * d.n * (self.row.acc.storage_bytes + self.made) + d.n * self.beside + SCALARS_BYTES
        room = self.array.core_memory_bytes - self.array.core_stack_bytes
        longest = max(image, filters, d.rows * d.m * d.n * self.made) // self.array.granule_bytes
        held = self.array.rows * (2 * image + d.rows * d.m * d.n * self.made) + max(2, self.turns(d) if self.keeps(d) else 0) * filters
        return size <= room and longest <= self.array.core_length_words and held <= self.array.memtile_memory_bytes

    def rounds(self, d: Deal) -> int:
        """Tiles of a core with the same filters, of one image."""
        across = ceil(self.extents[self.window.y] / (d.rows * self.array.rows * (1 if d.apart else self.columns)))
        return across * ceil(self.extents[self.window.x] / d.m)

    def keeps(self, d: Deal) -> bool:
        """Whether a memory tile keeps a tile's filters, which come in several panels, for all rows. (Nothing may ride along with them then.)"""
        return not self.beside and self.turns(d) > 1 and kept_parts(self.turns(d)) > 1 and 1 < self.rounds(d) <= self.array.lock_maximum

    def seconds(self, d: Deal) -> float:
        """The slowest of cores, streams and the host's memory. A resident panel of filters comes once for each of their tiles."""
        w, array = self.window, self.array
        image, filters = self.panels(d)
        tiles = ceil(self.extents[w.o] / d.n)
        across = self.columns if d.apart else 1
        own = ceil(tiles / across) * prod(self.extents[a] for a in w.batch)
        rounds = self.rounds(d) * own
        steps, around = self.turns(d), self.around(d)
        peak = peak_macs(array, self.row.arithmetic) or 1
        results = d.rows * d.m * d.n
        cores = rounds * steps * results * (d.k * around / peak + pass_cycles(array, self.row.acc.storage_bytes))
        filled = own if steps == 1 else rounds * steps
        streams = max(rounds * steps * image, filled * filters, rounds * results * self.made) / array.stream_bytes_per_cycle
        run = image // ((d.rows - 1) * w.steps + w.rows) if steps == 1 else d.k * self.row.a.storage_bytes
        written = d.n * self.made * (d.m if tiles == 1 else 1)
        moved = rounds * steps * image * (array.rows if d.apart else array.rows * self.columns) * slowness(run)
        sent = own * steps if self.keeps(d) else filled
        moved += sent * filters * across * slowness(d.n * self.row.b.storage_bytes) 
        moved += rounds * results * self.made * array.rows * self.columns * slowness(written)
        return max(max(cores, streams) / array.clock_hz, moved / array.memory_bytes_per_second)


def _multiples(unit: int, extent: int) -> range:
    return range(unit, min(WIDEST, ceil(extent / unit) * unit) + 1, unit)


def _steps(
    graph: Graph, name: str, root: str, w: Window, d: Deal, row: Intrinsic, extents: Mapping[str, int], columns: int, rows: int, *, kept: bool
) -> list[Step]:  # fmt: skip
    total = graph.stages[name]
    assert isinstance(total, Reduce)
    names = dict(zip((a.name for a in total.axes), (a.name for a in axes_of(graph.stages[root]))))
    x, y, o = names[w.x], names[w.y], names[w.o]
    steps: list[Step] = [Split(stage=root, axis=x, factor=d.m), Split(stage=root, axis=o, factor=d.n)]
    share = ceil(extents[w.y] / (d.rows * rows * (1 if d.apart else columns))) * d.rows
    if d.apart:
        steps += [Split(stage=root, axis=f"{o}.o", factor=ceil(extents[w.o] / (d.n * columns))), Split(stage=root, axis=y, factor=share)]
        column, place, filters, across = f"{o}.o.o", f"{y}.o", f"{o}.o.i", f"{y}.i"
    else:
        steps += [Split(stage=root, axis=y, factor=share * rows), Split(stage=root, axis=f"{y}.i", factor=share)]
        column, place, filters, across = f"{y}.o", f"{y}.i.o", f"{o}.o", f"{y}.i.i"
    together: tuple[str, ...] = ()
    if d.rows > 1:
        steps.append(Split(stage=root, axis=across, factor=d.rows))
        across, together = f"{across}.o", (f"{across}.i",)
    outer = (column, place, *(names[a] for a in w.batch), filters, across, f"{x}.o")
    apart = w.free if d.parted else ()
    around = tuple(a for a in w.around if a not in apart)
    if root == name:
        steps.append(Split(stage=name, axis=w.c, factor=d.k))
        steps += _blocks(name, f"{x}.i", f"{o}.i", f"{w.c}.i", row)
        steps.append(Order(stage=name, axes=(*outer, *apart, f"{w.c}.o", *together, *_inner(f"{x}.i", f"{o}.i", f"{w.c}.i", around))))
        steps += _instructed(name, f"{x}.i", f"{o}.i", row)
    else:
        steps += [Order(stage=root, axes=(*outer, *together, f"{x}.i", f"{o}.i")), At(stage=name, consumer=root, axis=f"{x}.o")]
        steps += [Split(stage=root, axis=f"{x}.i", factor=row.m), Split(stage=root, axis=f"{o}.i", factor=row.n)]
        steps += [Order(stage=root, axes=(f"{x}.i.o", f"{o}.i.o", f"{x}.i.i", f"{o}.i.i")), Vector(stage=root, axis=f"{o}.i.i")]
        steps += [Split(stage=name, axis=w.c, factor=d.k), *_blocks(name, w.x, w.o, f"{w.c}.i", row)]
        steps.append(Order(stage=name, axes=(*apart, f"{w.c}.o", *w.batch, w.y, *_inner(w.x, w.o, f"{w.c}.i", around))))
        steps += _instructed(name, w.x, w.o, row)
    steps.append(Bind(stage=root, axes=((column, "column"), (place, "row"))))
    return [*steps, StoreIn(stage=name, space="l1", at=f"{w.c}.o", buffers=2, kept=w.filters.tensor if kept else None)]


def _blocks(name: str, x: str, o: str, c: str, row: Intrinsic) -> list[Step]:
    steps: list[Step] = [Split(stage=name, axis=axis, factor=size) for axis, size in ((x, row.m), (o, row.n), (c, row.k))]
    return [*steps, *(Split(stage=name, axis=f"{axis}.o", factor=EXPANSION) for axis in (x, o))]


def _inner(x: str, o: str, c: str, around: Sequence[str]) -> tuple[str, ...]:
    return f"{x}.o.o", f"{o}.o.o", *around, f"{c}.o", f"{x}.o.i", f"{o}.o.i", f"{x}.i", f"{o}.i", f"{c}.i"


def _instructed(name: str, x: str, o: str, row: Intrinsic) -> list[Step]:
    return [*(Unroll(stage=name, axis=f"{axis}.o.i") for axis in (x, o)), Intrin(stage=name, name=row.name)]
