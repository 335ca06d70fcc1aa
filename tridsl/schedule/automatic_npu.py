"""The schedule of an op that has none, for an array of cores: from the op's shape and the facts of the device alone.

1. Independent results are dealt to columns, then to the cores of a column, in contiguous parts; each core works through its part tile by tile, one
   tile moving while another is worked on.
2. Results that need whole rows (softmax, norms) get tiles of whole rows.
3. Results that read their neighbours get fifos of lines (`stencil_npu`), sums over windows of few channels too (`windows_npu`), and other filters
   vectors along their number (`filters_npu`).
4. Sums of products get tiles of the matrix instruction's blocks (`contraction_npu`), those over windows of some channels as well (`convolution_npu`).
How many cores of a column work follows from the channels that their tiles have. What is left has no steps, and the backend says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.check.lift import lift
from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Binary, Load, Var, index
from tridsl.ir.op import Compact, Map, Reduce, Scan, Stage, TopK
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, known_index, over_of, points, values_of
from tridsl.schedule.chosen_npu import chooses, chosen_npu
from tridsl.schedule.contraction_npu import contraction_npu
from tridsl.schedule.convolution_npu import convolution_npu
from tridsl.schedule.dealing_npu import (
    ROW_BYTES,
    SLACK_BYTES,
    TILE_BYTES,
    columns_of,
    cores_of_a_column,
    dealt,
    types_of,
)
from tridsl.schedule.decisions import Decider
from tridsl.schedule.filters_npu import filters_npu
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.heaps import HEAP
from tridsl.schedule.lone_npu import lone_npu
from tridsl.schedule.ranked_npu import ranked_npu
from tridsl.schedule.roles import is_contraction
from tridsl.schedule.stencil_npu import stencil_npu
from tridsl.schedule.steps import (
    At,
    Beside,
    Inline,
    Order,
    Parts,
    Schedule,
    Split,
    Step,
    StoreIn,
    Unit,
    Unroll,
    Vector,
)
from tridsl.schedule.transpose_npu import transpose_npu
from tridsl.schedule.weights_npu import packed_by_vector
from tridsl.schedule.windows_npu import windows_npu
from tridsl.structs import dataclass


def automatic_npu(
    graph: Graph, inlined: Sequence[str], placed: Sequence[Step], shared: Mapping[str, int], spec: DeviceSpec,
    sizes: Mapping[str, int], decide: Decider,
) -> Schedule:  # fmt: skip
    """A legal schedule for one kernel; the empty one where no rule fits."""
    array = spec.array
    live = [name for name in graph.stages if name not in inlined]
    if array is None or not live or any(not graph.is_result(name) and not graph.readers(name) for name in live[:-1]):
        return ()  # (what nobody here reads is for another launch)
    steps: list[Step] = [Inline(stage=name) for name in inlined]
    root = live[-1]
    sums = [name for name in live if isinstance(s := graph.stages[name], Reduce) and is_contraction(s) and _is_product(s)]
    if len(sums) == 1:
        found = contraction_npu(graph, sums[0], live, spec, sizes, decide)
    elif (vector := packed_by_vector(graph, live)) is not None:
        found = _as_a_row(graph, vector, live, spec, sizes, decide)
    elif all(isinstance(graph.stages[n], Compact) for n in live):
        found = _compact_steps(graph, live, spec, array, sizes, decide)
    elif len(live) == 1 and isinstance(graph.stages[root], TopK):
        found = ranked_npu(graph, root, inlined, spec, array, sizes, decide)
    elif len(live) == 1 and isinstance(graph.stages[root], Map) and not axes_of(graph.stages[root]):
        found = [StoreIn(stage=root, space="l1")]
    elif any(chooses(graph.stages[name]) for name in live):
        found = chosen_npu(graph, root, live, spec, array, sizes, decide)
    elif len(live) == 1 and isinstance(graph.stages[root], Map) and (all(_flat(graph.stages[n]) for n in (root, *inlined)) or len(axes_of(graph.stages[root])) == 1):
        found = _flat_steps(graph, root, spec, array, sizes, decide)
    else:
        found = transpose_npu(graph, root, live, spec, array, sizes, decide) or lone_npu(graph, root, live, spec, array, sizes, decide)
        found = found or convolution_npu(graph, root, live, spec, array, sizes, decide)
        found = found or windows_npu(graph, root, live, spec, array, sizes, decide) or filters_npu(graph, root, live, spec, array, sizes, decide)
        found = found or stencil_npu(graph, root, live, inlined, spec, array, sizes, decide)
        found = found or _row_steps(graph, root, live, shared.get(root, 0), spec, array, sizes, decide)
        found = found or _one_number_steps(graph, root, live, spec, array, sizes, decide)
    return tuple(steps + found) if found else ()


def _is_product(stage: Reduce) -> bool:
    loads = {n.tensor for v in stage.values for n in walk(v) if isinstance(n, Load)}
    return len(stage.over) == 1 and len(stage.axes) >= 2 and len(loads) == 2


def _as_a_row(graph: Graph, vector: str, live: Sequence[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """A product with a vector as one with a matrix of one row."""
    lifted = lift(graph.op, tuple(int(t.name == vector) for t in graph.op.tensors if t.role != "output"))
    axis, extent = axes_of(lifted.stages[-1])[0].name, lifted.sizes[0]
    steps = contraction_npu(Graph(lifted), live[0], live, spec, {**sizes, extent: 1}, decide)
    return [Unit(stage=vector, axis=axis), *steps] if steps else []


def _one_number_steps(
    graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Stages that make one number of one vector in several steps, as those of a matrix of one row that a core holds."""
    inputs = [t for t in graph.op.tensors if t.role != "output"]
    if len(live) < 2 or any(axes_of(graph.stages[name]) for name in live) or [len(t.shape) for t in inputs] != [1]:
        return []
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES
    length = known_index(inputs[0].shape[0], sizes)
    if length is None or length * max(array.granule_bytes, inputs[0].dtype.storage_bytes) > room:
        return []
    lifted = lift(graph.op, (1,))
    steps = _row_steps(Graph(lifted), root, live, 1, spec, array, {**sizes, lifted.sizes[0]: 1}, decide)
    return [Unit(stage=inputs[0].name, axis=axes_of(lifted.stages[-1])[0].name), *steps] if steps else []


def _flat(stage: Stage) -> bool:
    """Every access is at the stage's own point, in its own axis order: all axes are one."""
    own = tuple(Var(name=axis.name) for axis in axes_of(stage))
    nodes = [n for v in values_of(stage) for n in walk(v)]
    loads = [n for n in nodes if isinstance(n, Load)]
    positions = sum(isinstance(n, Var) and n in own for n in nodes)  # those outside of accesses are values
    return bool(own) and all(load.index == own and load.boundary is None for load in loads) and positions == len(loads) * len(own)


def _flat_steps(
    graph: Graph, name: str, spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """All axes as one, cut into tiles. (A single axis may be read in any order of tiles.)"""
    axes = [axis.name for axis in axes_of(graph.stages[name])]
    count = points(axes_of(graph.stages[name]), sizes)
    if not count:
        return []
    inputs, outputs = types_of(graph, [name])
    unit = ROW_BYTES // min(t.storage_bytes for t in (*inputs, *outputs))
    rows = cores_of_a_column(array, len(inputs), len(outputs))
    columns = columns_of(name, spec, -(-count // (unit * rows)), decide)
    widest = max(t.storage_bytes for t in (*inputs, *outputs))
    share = -(-count // (columns * rows))
    tile = decide(f"{name}.tile", min(TILE_BYTES // widest, -(-share // unit) * unit), (256, 512, 1024), "elements of a tile")
    steps: list[Step] = []
    fused, fusing = all_fused(name, axes)
    steps += fusing
    steps += [Split(stage=name, axis=fused, factor=tile), Vector(stage=name, axis=f"{fused}.i")]
    steps += dealt(name, f"{fused}.o", -(-count // tile), columns, rows)
    return [*steps, StoreIn(stage=name, space="l1", at=f"{fused}.o.i.i", buffers=2)]


def _compact_steps(
    graph: Graph, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Every tile is packed by itself; the host puts what is left of them together."""
    name = live[0]
    first, *others = (stage for stage in (graph.stages[n] for n in live) if isinstance(stage, Compact))
    count = extent_of(first.along, sizes)
    if not count or any((stage.along, stage.keep) != (first.along, first.keep) for stage in others):
        return []
    inputs, outputs = types_of(graph, live)
    rows = cores_of_a_column(array, len(inputs), len(outputs))
    columns = columns_of(name, spec, -(-count // (ROW_BYTES * rows)), decide)
    widest = max(t.storage_bytes for t in (*inputs, *outputs))
    share = -(-count // (columns * rows))
    tile = decide(f"{name}.tile", min(TILE_BYTES // widest, -(-share // ROW_BYTES) * ROW_BYTES), (256, 512, 1024), "elements of a tile")
    axis, heap = first.along.name, f"{name}.{HEAP}"
    steps: list[Step] = [Beside(stage=stage.name, other=name, axis=axis) for stage in others]
    steps.append(Parts(stage=name, axis=axis, factor=tile, into=HEAP))
    steps += [Vector(stage=heap, axis=f"{axis}.i{n or ''}") for n in range(len(live))]
    steps += dealt(heap, f"{axis}.o", -(-count // tile), columns, rows)
    return [*steps, StoreIn(stage=heap, space="l1", at=f"{axis}.o.i.i", buffers=2)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    leading: tuple[str, ...]
    split: str
    count: int
    inner: Mapping[str, str]
    length: int


def _row_steps(
    graph: Graph, root: str, live: Sequence[str], depth: int, spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Tiles of whole rows; every stage is computed row by row. Results of which a row has one number are made beside the widest one."""
    results = [name for name in live if graph.is_result(name)]
    if len(results) > 1:
        root = max(results, key=lambda name: len(axes_of(graph.stages[name])))
        depth = len(axes_of(graph.stages[root])) - 1
    single = [name for name in results if name != root]
    if any(not isinstance(graph.stages[n], Map) or len(axes_of(graph.stages[n])) != 1 or depth != 1 for n in single):
        return []
    rows = _rows(graph, root, live, depth, sizes)
    if rows is None:
        return _one_row(graph, root, live, sizes) if not single else []
    tensors = {t.name: t for t in graph.op.tensors}
    moving: list[int] = []
    fixed = 0
    outputs = 0
    for name, tensor in tensors.items():
        rank = len(tensor.shape)
        width = tensor.dtype.storage_bytes * (rows.length if rank > len(rows.leading) or (tensor.role == "input" and rank and not _leads(graph, name, rows)) else 1)
        width = -(-width // ROW_BYTES) * ROW_BYTES
        if tensor.role == "input" and not _leads(graph, name, rows):
            fixed += width
        else:
            moving.append(width)
            outputs += tensor.role != "input"
    local = sum(
        max(ROW_BYTES, compute_type(_dtype_of(graph.stages[n])).storage_bytes * (rows.length if n in rows.inner and isinstance(graph.stages[n], Map) else 1))
        for n in live if n not in results
    )  # fmt: skip
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES - fixed - local
    lone = [t.dtype.storage_bytes for t in tensors.values() if len(t.shape) == len(rows.leading)]
    whole = max((array.granule_bytes // size for size in lone), default=1) or 1  # one element a row: transfers move words
    buffers = 2 if 2 * whole * sum(moving) <= room else 1  # rows that leave no room for the next ones
    together = max(1, min(-(-TILE_BYTES // max(moving)), room // (buffers * sum(moving))))
    together = -(-together // whole) * whole
    cores = cores_of_a_column(array, len(moving) - outputs + bool(fixed), outputs)
    columns = columns_of(root, spec, -(-rows.count // cores), decide)
    share = -(-rows.count // (columns * cores))
    tile = decide(f"{root}.rows", min(together, -(-share // whole) * whole), [n for n in (1, 2, 4, 8) if n <= together and n % whole == 0], "rows of a tile")
    axis = rows.split
    steps: list[Step] = [Beside(stage=name, other=root, axis=axis) for name in single]
    steps.append(Split(stage=root, axis=axis, factor=tile))
    steps += dealt(root, f"{axis}.o", -(-rows.count // tile), columns, cores)
    others = [name for name in rows.leading if name != axis]
    inner = [rows.inner[root]] if root in rows.inner else []
    period = _period(graph, root, rows, sizes) if len(live) == 1 and inner else None
    order = (f"{axis}.o.o", f"{axis}.o.i.o", *others, f"{axis}.o.i.i", f"{axis}.i", *inner)
    if others:
        steps.append(Order(stage=root, axes=order))
    steps += [At(stage=name, consumer=root, axis=f"{axis}.i") for name in reversed(live) if name not in results]
    if len(live) == 1 and inner and _in_pairs(graph, root, rows):
        steps += [Split(stage=root, axis=inner[0], factor=2), Order(stage=root, axes=(f"{inner[0]}.i", f"{inner[0]}.o"))]
        steps += [Unroll(stage=root, axis=f"{inner[0]}.i"), Vector(stage=root, axis=f"{inner[0]}.o")]
    elif period is not None:
        steps += [Split(stage=root, axis=inner[0], factor=period), Unroll(stage=root, axis=f"{inner[0]}.o"), Vector(stage=root, axis=f"{inner[0]}.i")]
    else:
        steps += [Vector(stage=name, axis=inside) for name, inside in rows.inner.items()]
    return [*steps, StoreIn(stage=root, space="l1", at=f"{axis}.o.i.i", buffers=buffers)]


PERIODS = 8
"""Parts of a row that are written out one by one."""


def _period(graph: Graph, root: str, rows: _Rows, sizes: Mapping[str, int]) -> int | None:
    """The length of the equal parts of a row in which every part reads the same places again: n of `x[d % n]`."""
    found: set[int] = set()
    for node in (n for v in values_of(graph.stages[root]) for n in walk(v)):
        if isinstance(node, Binary) and node.op == "mod" and node.a == Var(name=rows.inner[root]):
            found.add(known_index(node.b, sizes) or 0)
    length = found.pop() if len(found) == 1 else 0
    return length if length and rows.length % length == 0 and 1 < rows.length // length <= PERIODS else None


def _in_pairs(graph: Graph, root: str, rows: _Rows) -> bool:
    """Whether every two neighbours of a row read the same places: what vectors of every second element do."""
    own = Var(name=rows.inner[root])
    divisors = {n.b for v in values_of(graph.stages[root]) for n in walk(v) if isinstance(n, Binary) and n.op == "floordiv" and n.a == own}
    return divisors == {index(2)} and rows.length % 2 == 0


def _one_row(graph: Graph, root: str, live: Sequence[str], sizes: Mapping[str, int]) -> list[Step]:
    """A whole vector in one core: what follows from all of it is known there before the next loop over it begins."""
    inner: dict[str, str] = {}
    lengths: set[int | None] = set()
    for name in live:
        part = graph.stages[name]
        own = (*axes_of(part), *over_of(part))
        if not isinstance(part, Map | Reduce) or len(own) > 1 or (isinstance(part, Reduce) and (part.ordered or not part.reducer.commutative)):
            return []
        if own:
            inner[name] = own[0].name
            lengths.add(extent_of(own[0], sizes))
    length = next(iter(lengths)) if len(lengths) == 1 else None
    if not length or root not in inner:
        return []
    axis = inner[root]
    steps: list[Step] = [Split(stage=root, axis=axis, factor=length)]
    steps += [At(stage=name, consumer=root, axis=f"{axis}.o") for name in reversed(live) if name != root]
    steps += [Vector(stage=name, axis=f"{axis}.i" if name == root else inside) for name, inside in inner.items()]
    return [*steps, StoreIn(stage=root, space="l1", at=f"{axis}.o")]


def _dtype_of(stage: Stage) -> DType:
    return stage.reducer.dtypes[0] if isinstance(stage, Reduce) else stage.dtype  # type: ignore[union-attr]


def _leads(graph: Graph, tensor: str, rows: _Rows) -> bool:
    """Whether the place where `tensor` is accessed moves with the rows."""
    if any(tensor == name for name in graph.stages):
        return True
    loads = [r.load for r in graph.reads if r.load.tensor == tensor]
    return any(Var(name=axis) in load.index for load in loads for axis in rows.leading)


def _together(graph: Graph, live: Sequence[str], depth: int) -> bool:
    """Whether all stages have the same `depth` axes, and each is read at its reader's own point."""
    reads = [read for name in live for read in graph.readers(name)]
    same = all(len(axes_of(graph.stages[name])) == depth for name in live)
    return same and all(tuple(read.load.index) == tuple(Var(name=a.name) for a in axes_of(graph.stages[read.reader])) for read in reads)


def _rows(graph: Graph, root: str, live: Sequence[str], depth: int, sizes: Mapping[str, int]) -> _Rows | None:
    """The rows, where every stage has at most one axis besides the leading ones, all of them of one known length."""
    stage = graph.stages[root]
    if not isinstance(stage, Map | Reduce | Scan) or any(read.reader in live and read.load.boundary is not None for read in graph.reads):
        return None
    axes = axes_of(stage)
    if len(live) == 1:
        depth = len(axes) - (1 if isinstance(stage, Map) else 0)
    elif not depth and _together(graph, live, len(axes)):
        depth = len(axes)
    if depth < 1:
        return None
    inner: dict[str, str] = {}
    lengths: set[int | None] = set()
    for name in live:
        part = graph.stages[name]
        if not isinstance(part, Map | Reduce | Scan) or (isinstance(part, Reduce) and (part.ordered or not part.reducer.commutative)):
            return None
        own = (*axes_of(part)[depth:], *over_of(part))
        if len(own) > 1:
            return None
        if own:
            inner[name] = own[0].name
            lengths.add(extent_of(own[0], sizes))
    counts = {axis.name: extent_of(axis, sizes) or 0 for axis in axes[:depth]}
    length = next(iter(lengths)) if len(lengths) == 1 else None
    if not length or not all(counts.values()):
        return None
    split = max(reversed(counts), key=lambda name: counts[name])
    return _Rows(leading=tuple(counts), split=split, count=counts[split], inner=inner, length=length)
