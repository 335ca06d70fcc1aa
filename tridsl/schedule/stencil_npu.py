"""Results that read their neighbours, on an array of cores: rows are dealt to the cores, and pass through each in fifos of lines.

A core keeps the last few rows of what is read at several of them; stages in between are made row by row into rings of their own
(`schedule.lines`). Rows that are too long for a core's memory are cut into strips, which read a few columns of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Const, Load, Var
from tridsl.ir.op import Map, Tensor
from tridsl.ir.walk import substitute, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.frames import ROW_BYTES
from tridsl.schedule.steps import Bind, Lines, Order, Split, Step, StoreIn, Vector
from tridsl.structs import dataclass

ROWS_OF_A_CORE = 8
"""At least, where there are as many: the two rows around them are read twice."""
MOST_TOGETHER = 4
"""Values of a column (the channels of a pixel) that vectors are taken apart into."""
SLACK_BYTES = 1024
"""Of a core's memory, left for what alignment costs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """What is read in rows: the rows in use at a time, the bytes of one element (and what lies in it), the columns around. `together`: several
    values lie in each column."""

    name: str
    rows: int
    element_bytes: int
    around: int
    copied: bool
    together: bool = False

    def bytes(self, width: int) -> int:
        unit = ROW_BYTES // min(self.element_bytes, ROW_BYTES)
        row = (-(-width // unit) * unit + -(-self.around // unit) * unit) * self.element_bytes
        return row * (1 << (self.rows.bit_length() if self.copied else (self.rows - 1).bit_length()))


def stencil_npu(
    graph: Graph, root: str, live: Sequence[str], inlined: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:  # fmt: skip
    """Steps for a map over rows and columns whose stages read one another, or parameters, at neighbouring points; none where it is no such map."""
    stage = graph.stages[root]
    if not isinstance(stage, Map) or len(stage.axes) < 2 or not all(isinstance(graph.stages[n], Map) for n in live):
        return []
    axes = [axis.name for axis in axes_of(stage)]
    y, x = axes[-2:]
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in axes_of(stage)}
    if not all(extents.values()) or extents[y] < 2:
        return []
    made = [name for name in live if name != root]
    loads = {name: _loads(graph, name, inlined) for name in live}
    if any(load is None for name in live for load in loads[name]):
        return []
    reads = _in_rows(graph, root, made, y, {name: [load for load in found if load is not None] for name, found in loads.items()})
    if reads is None or not any(r.rows > 1 or r.around or r.together for r in reads):
        return []
    result = next(t for t in graph.op.tensors if t.name == root)
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES
    width = -(-extents[x] // ROW_BYTES) * ROW_BYTES
    strip = width
    while strip > ROW_BYTES and sum(r.bytes(strip) for r in reads) + 2 * strip * result.dtype.storage_bytes > room:
        strip = -(-strip // (2 * ROW_BYTES)) * ROW_BYTES
    strip = decide(f"{root}.strip", strip, [n for n in (64, 128, 256, 512, 1024, 2048) if n < strip], "columns that a core works on at a time")
    inputs = sum(r.copied for r in reads)
    rows = cores_of_lines(array, inputs)
    most = [n for n in (1, 2, 4, 8) if n <= (spec.columns or 1)]
    enough = next((n for n in most if n * rows * ROWS_OF_A_CORE >= extents[y]), most[-1])
    columns = decide(f"{root}.columns", enough, most, "columns of the array")
    share = max(2, -(-extents[y] // (columns * rows)))
    steps: list[Step] = [Vector(stage=name, axis=axes_of(graph.stages[name])[-1].name) for name in made]
    inner, outer = x, []
    if strip < width:
        steps.append(Split(stage=root, axis=x, factor=strip))
        inner, outer = f"{x}.i", [f"{x}.o"]
    steps += [Split(stage=root, axis=y, factor=share * rows), Split(stage=root, axis=f"{y}.i", factor=share)]
    steps.append(Order(stage=root, axes=(f"{y}.o", f"{y}.i.o", *axes[:-2], *outer, f"{y}.i.i", inner)))
    steps += [Vector(stage=root, axis=inner), Bind(stage=root, axes=((f"{y}.o", "column"), (f"{y}.i.o", "row")))]
    steps += [Lines(stage=r.name, consumer=root, axis=f"{y}.i.i") for r in reads]
    return [*steps, StoreIn(stage=root, space="l1", at=f"{y}.i.i", buffers=2)]


def cores_of_lines(array: ArraySpec, inputs: int) -> int:
    """Cores of one column that can have rows of their own: each takes a channel of the memory tile for every tensor."""
    fits = (n for n in range(array.rows, 1, -1) if inputs + n <= array.memtile_in_channels and n * inputs + 1 <= array.memtile_out_channels)
    return next(fits, 1)


def _loads(graph: Graph, name: str, inlined: Sequence[str]) -> list[Load | None]:
    """What a stage reads, itself and through stages that are inlined into it; None for what is read through one at a border."""
    stage = graph.stages[name]
    assert isinstance(stage, Map)
    found: list[Load | None] = []
    for load in (n for n in walk(stage.value) if isinstance(n, Load)):
        through = graph.stages.get(load.tensor)
        if load.tensor not in inlined or not isinstance(through, Map):
            found.append(load)
        elif load.boundary is not None:
            found.append(None)
        else:
            own = {axis.name: place for axis, place in zip(through.axes, load.index)}
            found += [None if inner is None else substitute(inner, own) for inner in _loads(graph, load.tensor, inlined)]
    return found


def _in_rows(graph: Graph, root: str, made: Sequence[str], y: str, loads: Mapping[str, Sequence[Load]]) -> list[_Read] | None:
    """What the steps keep in rows, in the order in which they must: the widest window first, and stages before what they read."""
    tensors = {t.name: t for t in graph.op.tensors}
    found: list[_Read] = []
    behind: list[_Read] = []
    for name in made:
        if any(load.tensor == name for other in made for load in loads[other]):
            return None
        window = _window([load for load in loads[root] if load.tensor == name], y)
        if window is None:
            return None
        stage = graph.stages[name]
        assert isinstance(stage, Map)
        found.append(_Read(name=name, rows=window[0], element_bytes=stage.dtype.storage_bytes, around=window[1], copied=False))
        rows = axes_of(stage)[-2].name if len(stage.axes) > 1 else ""
        for tensor in dict.fromkeys(load.tensor for load in loads[name]):
            own = _window([load for load in loads[name] if load.tensor == tensor], rows)
            if own is None or own[0] != 1 or any(b.name == tensor for b in behind):
                return None
            behind.append(_param(tensors[tensor], own[0], own[1] + window[1]))
    for tensor in dict.fromkeys(load.tensor for load in loads[root] if load.tensor not in made):
        window = _window([load for load in loads[root] if load.tensor == tensor], y)
        if window is None or any(b.name == tensor for b in behind):
            return None
        param = _param(tensors[tensor], *window)
        if window[0] > 1 or window[1] or param.together:
            found.append(param)
    found.sort(key=lambda r: -r.rows)
    return [*found, *behind]


def _param(tensor: Tensor, rows: int, around: int) -> _Read:
    inner = tuple(int(n.value) for n in tensor.shape[2:] if isinstance(n, Const))
    together = len(inner) == 1 and 1 < inner[0] <= MOST_TOGETHER
    size = tensor.dtype.storage_bytes * (inner[0] if together else 1)
    return _Read(name=tensor.name, rows=rows, element_bytes=size, around=around, copied=True, together=together)


def _window(loads: Sequence[Load], y: str) -> tuple[int, int] | None:
    """(rows, columns around) of these reads: each place is an axis plus a constant, one of them `y`."""
    rows: list[int] = []
    around = 0
    for load in loads:
        moving = None
        for place in load.index:
            poly = normal_form(place)
            if poly.coefficient(y) == 1:
                moving = poly.constant
            elif len(poly.terms) > 1 or any(f != 1 or not isinstance(m[0], Var) for m, f in poly.terms):
                return None
            elif poly.terms:
                around = max(around, 2 * abs(poly.constant))
            if load.boundary is not None and load.boundary.mode not in ("edge", "value"):
                return None
        if moving is None:
            return None
        rows.append(moving)
        around = max(around, 1 if load.boundary is not None else 0)
    return max(rows) - min(rows) + 1, around
