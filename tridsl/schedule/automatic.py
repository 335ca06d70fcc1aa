"""The schedule of an op that has none: good untuned, from the op's shape and the facts of the device alone.

1. Cheap or once-used maps are inlined.
2. Stages that share the leading axes of a result are computed inside its loops, row by row; neighbours are computed a strip ahead.
3. Each nest is then shaped by what it is: a contraction becomes register tiles over packed panels, everything else vectors
   along the axis that memory is contiguous in.
4. The outermost independent loop of each result is shared among threads when there is enough work.

Each of these decisions has a name and a default (`schedule.decisions`); the space that a tuner searches is their other answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod

from tridsl.devices.spec import DeviceKind, DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import evaluate_index, normal_form
from tridsl.ir.expr import Boundary, Load, Node, Var
from tridsl.ir.op import Compact, Map, Op, Reduce, Scan, Stage
from tridsl.ir.walk import children, walk
from tridsl.schedule.analyse import (
    Graph,
    Read,
    axes_of,
    covers,
    extent_of,
    is_cheap,
    over_of,
    points,
    pointwise,
    unit_stride_axis,
    work,
)
from tridsl.schedule.automatic_gpu import automatic_gpu
from tridsl.schedule.contraction import DEEP, WIDE, contraction_steps, is_contraction, sweep_columns
from tridsl.schedule.decisions import Answer, Choice, Decider
from tridsl.schedule.steps import (
    At,
    Beside,
    Fuse,
    Inline,
    Order,
    Parallel,
    Pipeline,
    Schedule,
    Split,
    Step,
    StoreIn,
    Vector,
)

PARALLEL_WORK = 100_000
"""Scalar operations below which a second thread costs more than it brings (starting one takes a few microseconds)."""
INLINED_READS = 9
"""Uses (a 3 x 3 stencil's) beyond which nobody need try to compute a value again at each."""
BLOCK = 32
"""Side of a block of a transpose: 32 rows of a 128-byte stretch each, read and written, are 8 KiB of f32."""
STRIP_ROWS = 32
"""Rows of a strip that share their neighbours' values; two of them are computed twice."""


BY_KIND: dict[DeviceKind, Callable[..., Schedule]] = {"gpu": automatic_gpu}
"""Devices whose nests are shaped by other rules than vectors and threads."""


def automatic(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> Schedule:
    """A legal schedule of `op` for a device with vectors; the empty one for a device without (it binds its own loops)."""
    return _scheduled(op, spec, sizes, Decider())


def choose(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], decisions: Mapping[str, Answer]) -> Schedule:
    """The schedule with these answers instead of the defaults. It may be illegal (`apply_schedule` says so).

    E0950: a name that is not asked for here; E0951: an answer that is not possible.
    """
    decide = Decider(decisions)
    steps = _scheduled(op, spec, sizes, decide)
    for name in decide.unasked():
        raise error(
            "E0950", f"the automatic schedule of `{op.name}` does not decide `{name}` here",
            help=f"it decides: {', '.join(decide.asked) or 'nothing'}",
        )  # fmt: skip
    return steps


def choices(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], decisions: Mapping[str, Answer]) -> tuple[Choice, ...]:
    """What is decided, in the order asked, when `decisions` are the answers so far and the rest are defaults."""
    decide = Decider(decisions)
    _scheduled(op, spec, sizes, decide)
    return tuple(decide.asked.values())


def _scheduled(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Schedule:
    own = BY_KIND.get(spec.kind)
    if not spec.vector_bits and own is None:
        return ()
    graph = Graph(op)
    inlined = _inlined(graph, decide)
    placed, shared = _placements(graph, inlined, decide)
    if own is not None:
        return own(graph, inlined, placed, shared, spec, sizes, decide)
    steps: list[Step] = [Inline(stage=name) for name in inlined]
    steps += placed
    moved = {step.stage for step in placed if isinstance(step, At)}
    joined = {step.stage for step in placed if isinstance(step, At) and step.consumer in moved}  # their reader's loop is theirs
    strips = {step.stage for step in placed if isinstance(step, Split)}
    together = _packed_together(graph, decide)
    steps += together
    joined |= {step.stage for step in together}
    busy = {name: work(graph.stages[name], sizes) for name in graph.stages}
    for root, depth in shared.items():
        steps += _prefetches(graph, root, depth, moved, spec, sizes, decide)
    for name, stage in graph.stages.items():
        if name in inlined or name in joined:
            continue
        steps += _shape(stage, spec, sizes, moved, shared.get(name, 0), busy, decide, strip=name in strips)
        if _streams(stage, graph, spec, sizes, decide):
            steps.append(StoreIn(stage=name, space="stream"))
    return tuple(steps)


def _packed_together(graph: Graph, decide: Decider) -> list[Beside]:
    """Compactions that keep the same elements of the same points share one loop: the condition is looked at once."""
    steps: list[Beside] = []
    hosts: list[Compact] = []
    for name, stage in graph.stages.items():
        if not isinstance(stage, Compact):
            continue
        host = next((h for h in hosts if (h.along, h.keep) == (stage.along, stage.keep) and not _depends(graph, name, h)), None)
        if host is None or any(step.other == host.name for step in steps):
            hosts.append(stage)
        elif decide(f"{name}.beside.{host.name}", True, (False,), "whether compactions of the same elements share a loop"):
            steps.append(Beside(stage=name, other=host.name, axis=host.along.name))
    return steps


def _depends(graph: Graph, stage: str, host: Compact) -> bool:
    """Whether `stage` needs the host, or what comes of it, before it can run."""
    needed = {stage}
    for name in reversed(list(graph.stages)):
        if any(r.reader in needed for r in graph.readers(name)):
            needed.add(name)
    return host.name in needed


def _prefetches(
    graph: Graph, root: str, depth: int, moved: set[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Rows that several stages read one after the other come from memory while the first of them waits: fetch the next row's
    while the others compute."""
    steps: list[Step] = []
    axis = axes_of(graph.stages[root])[depth - 1].name
    for tensor in graph.op.tensors:
        if tensor.role != "input":
            continue
        reads = [r for r in graph.reads if r.load.tensor == tensor.name and (r.reader == root or r.reader in moved)]
        rows = all(len(r.load.index) > depth and r.load.index[depth - 1] == Var(name=axis) for r in reads)
        if len({r.reader for r in reads}) < 2 or not rows:
            continue
        try:
            size = tensor.dtype.storage_bytes * prod(evaluate_index(n, sizes) for n in tensor.shape)
        except KeyError:
            continue
        if decide(f"{root}.prefetch.{tensor.name}", size > (spec.l2_bytes or size), (False, True), "whether the next row is prefetched"):
            steps.append(Pipeline(stage=tensor.name, depth=1, at=axis, reader=root))
    return steps


def _streams(stage: Stage, graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> bool:
    """A result larger than the last cache, which nothing in the op reads again: storing it must not read it first."""
    if not isinstance(stage, Map) or not graph.is_result(stage.name) or graph.readers(stage.name) or not spec.l3_bytes:
        return False
    count = points(stage.axes, sizes)
    beyond = count is not None and count * stage.dtype.storage_bytes > spec.l3_bytes
    return decide(f"{stage.name}.stream", beyond, (False, True), "whether the result is stored around the caches")


def _inlined(graph: Graph, decide: Decider) -> list[str]:
    """Maps whose value is as cheap as a load, or is used once, at the reader's own point."""
    names: list[str] = []
    for name, stage in graph.stages.items():
        if not isinstance(stage, Map) or graph.is_result(name) or _may_fail(stage) or graph.before_update(name):
            continue
        reads = graph.readers(name)
        if not reads or any(r.load.boundary is not None and not is_cheap(stage) for r in reads):
            continue
        loads = sum(1 for v in graph.reads if v.reader == name)
        once = len(reads) == 1 and all(
            pointwise(r.load, stage, graph.stages[r.reader]) and covers(r.load, graph.stages[r.reader]) for r in reads
        )
        free = once or (is_cheap(stage) and loads <= 2 and len(reads) <= 4 and not _stencil(reads))
        others = (False, True) if len(reads) <= INLINED_READS else ()
        if decide(f"{name}.inline", free, others, "whether the value is computed again at each use instead of kept"):
            names.append(name)
    return names


def _may_fail(stage: Map) -> bool:
    """Whether the stage checks an index as it runs: that happens once, where the stage stands."""
    return any(isinstance(n, Boundary) and n.mode == "raise" for n in walk(stage.value))


def _stencil(reads: list[Read]) -> bool:
    """Several reads at shifted places: computing the value at each of them again costs more than keeping it."""
    return len({r.load.index for r in reads}) > 2


def _placements(graph: Graph, inlined: list[str], decide: Decider) -> tuple[list[Step], dict[str, int]]:
    """`at` steps, and per result the number of leading axes that its producers share."""
    steps: list[Step] = []
    shared: dict[str, int] = {}
    live = [n for n in graph.stages if n not in inlined]
    for root in reversed(live):
        if not isinstance(graph.stages[root], Map) or root in {s.stage for s in steps}:
            continue
        group = _ancestors(graph, root, inlined, {s.stage for s in steps})
        depth = _common_depth(graph, root, group, inlined)
        if group and depth:
            depth = decide(f"{root}.shared", depth, range(depth, -1, -1), "leading axes whose loops the stages before it share")
        if group and depth:
            axes = axes_of(graph.stages[root])
            shared[root] = depth
            for name in reversed(group):
                steps.append(At(stage=name, consumer=root, axis=axes[depth - 1].name))
            steps += _joined(graph, group, decide)
        else:
            steps += _strips(graph, root, group, decide)
    return steps, shared


def _ancestors(graph: Graph, root: str, inlined: list[str], taken: set[str]) -> list[str]:
    """Live intermediate stages that only `root` and the group itself (through inlined ones) read, in op order."""
    group: set[str] = set()
    passing = {root}
    for name in reversed(list(graph.stages)):
        if name == root or graph.is_result(name):
            continue
        readers = {r.reader for r in graph.readers(name)}
        held = any(r.writer != root for r in graph.before_update(name))
        if readers and readers <= passing and not held and not isinstance(graph.stages[name], Compact):
            passing.add(name)
            if name not in inlined and name not in taken:
                group.add(name)
    return [n for n in graph.stages if n in group]


def _common_depth(graph: Graph, root: str, group: list[str], inlined: list[str]) -> int:
    """Leading axes of `root` at which every stage of the group is read at exactly that point."""
    axes = [a.name for a in axes_of(graph.stages[root])]
    if not group:
        return 0
    depth = len(axes)
    for name in group:
        depth = min(depth, len(axes_of(graph.stages[name])))  # a scanned axis is no axis of this kind: it runs as a whole
        for read in (*graph.readers(name), *graph.before_update(name)):  # `root` may update only what they read at its point
            reader = graph.stages[read.reader]
            mine = [a.name for a in axes_of(reader)]
            agree = 0
            while (
                agree < min(depth, len(read.load.index), len(mine))
                and read.load.index[agree] == Var(name=mine[agree])
                and read.load.boundary is None
            ):
                agree += 1
            depth = min(depth, agree)
    # at least the innermost axis stays with each stage, to be its vector
    longest = max(len(axes_of(graph.stages[n])) + len(over_of(graph.stages[n])) for n in group)
    return min(depth, max(len(axes) - 1, 0) if longest > depth or len(axes) > 1 else depth)


def _joined(graph: Graph, group: list[str], decide: Decider) -> list[Step]:
    """A row that is first read by a reduction over all of it is made while that reduction runs."""
    steps: list[Step] = []
    for name in group:
        stage = graph.stages[name]
        if not isinstance(stage, Map):
            continue
        for read in graph.readers(name):
            reader = graph.stages[read.reader]
            if isinstance(reader, Reduce) and read.reader in group and pointwise(read.load, stage, reader) and covers(read.load, reader):
                first = min(graph.readers(name), key=lambda r: list(graph.stages).index(r.reader)).reader
                fits = first == read.reader and len(reader.over) == 1 and len(stage.axes) and read.load.index[-1] == Var(name=reader.over[0].name)
                if fits and decide(f"{name}.join", True, (False,), "whether the row is made while its first reduction runs"):
                    steps.append(At(stage=name, consumer=read.reader, axis=reader.over[0].name))
                break
    return steps


def _strips(graph: Graph, root: str, group: list[str], decide: Decider) -> list[Step]:
    """Producers read at neighbouring rows are computed for a strip of rows at a time."""
    axes = axes_of(graph.stages[root])
    if len(axes) < 2 or not group:
        return []
    outer = axes[0].name
    near = [n for n in group if not graph.before_update(n) and all(_near(r.load, outer) for r in graph.readers(n))]
    if not near:
        return []
    rows = decide(f"{root}.strip_rows", STRIP_ROWS, (4, 8, 16, 64, 128, 0), "rows for which the stages before it are made ahead (0: all)")
    if not rows:
        return []
    steps: list[Step] = [Split(stage=root, axis=outer, factor=rows)]
    steps += [At(stage=n, consumer=root, axis=f"{outer}.o") for n in reversed(near)]
    return steps


def _near(load: Load, axis: str) -> bool:
    """Whether the first index is `axis` plus a constant."""
    return bool(load.index) and normal_form(load.index[0]).coefficient(axis) == 1


def _shape(
    stage: Stage, spec: DeviceSpec, sizes: Mapping[str, int], moved: set[str], shared: int, busy: Mapping[str, int | None],
    decide: Decider, *, strip: bool,
) -> list[Step]:  # fmt: skip
    """Vector, tile and thread the loops of one stage."""
    name = stage.name
    threads = name not in moved and _worth_threads(stage, moved, busy)
    if name not in moved and axes_of(stage) and spec.cores != 1:
        threads = decide(f"{name}.threads", threads, (False, True), "whether the outermost loop is shared among threads")
    if isinstance(stage, Reduce) and is_contraction(stage):
        return contraction_steps(stage, spec, sizes, decide, threads=threads, whole=name not in moved)
    if isinstance(stage, Map):
        return _map_steps(stage, shared, decide, threads=threads, strip=strip, moved=name in moved)
    if isinstance(stage, Compact):
        return [Vector(stage=name, axis=stage.along.name)]
    steps: list[Step] = []
    axes = axes_of(stage)
    if isinstance(stage, Reduce) and not stage.ordered and stage.reducer.commutative and len({t.axes for t in stage.targets}) == 1:
        steps += _reduce_steps(stage, spec, sizes, decide, whole=name not in moved)
    if isinstance(stage, Reduce | Scan):  # states over fewer axes are combined outside the loops of the others
        axes = tuple(a for a in axes if all(a.name in t.axes for t in stage.targets))
    if threads and axes:
        outer = axes[0].name
        if any(isinstance(s, Split) and s.axis == outer for s in steps):
            outer = f"{outer}.o"
        if not any(isinstance(s, Vector) and s.axis == outer for s in steps):
            steps.append(Parallel(stage=name, axis=outer))
    return steps


def _worth_threads(stage: Stage, moved: set[str], busy: Mapping[str, int | None]) -> bool:
    """Enough work in the stage and what is computed inside it; unknown sizes count as enough."""
    total = busy[stage.name]
    inside = [busy[n] for n in moved]
    if total is None or any(n is None for n in inside):
        return True
    return total + sum(n or 0 for n in inside) >= PARALLEL_WORK


def _map_steps(stage: Map, shared: int, decide: Decider, *, threads: bool, strip: bool, moved: bool) -> list[Step]:
    name, axes = stage.name, [a.name for a in stage.axes]
    if not axes:
        return []
    steps: list[Step] = []
    if strip:
        if threads:
            steps.append(Parallel(stage=name, axis=f"{axes[0]}.o"))
        return [*steps, Vector(stage=name, axis=axes[-1])]
    if moved:
        return [Vector(stage=name, axis=axes[-1])]
    if shared == 0 and len(axes) > 1 and _flat(stage) and decide(f"{name}.flat", True, (False,), "whether all axes become one"):
        fused = axes[0]
        for axis in axes[1:]:
            steps.append(Fuse(stage=name, outer=fused, inner=axis))
            fused = f"{fused}.{axis}"
        axes = [fused]
    if len(axes) == 1 and threads and shared == 0:
        block = decide(f"{name}.block", 16384, (1024, 4096, 65536, 262144), "elements that a thread takes at a time")
        steps.append(Split(stage=name, axis=axes[0], factor=block))
        return [*steps, Parallel(stage=name, axis=f"{axes[0]}.o"), Vector(stage=name, axis=f"{axes[0]}.i")]
    crossing = _crossing_axis(stage)
    if crossing is not None and shared == 0 and decide(f"{name}.blocks", True, (False,), "whether a transpose goes by square blocks"):
        return _square_blocks(name, axes, crossing, threads=threads)
    if threads and len(axes) > 1:
        outer = axes[0]
        for axis in axes[1 : max(shared, 1)]:
            steps.append(Fuse(stage=name, outer=outer, inner=axis))
            outer = f"{outer}.{axis}"
        steps.append(Parallel(stage=name, axis=outer))
    if shared < len(axes):
        free = axes[max(shared, 1) if threads else shared :] or axes[-1:]
        lanes = decide(f"{name}.vector", axes[-1], free if _strided(stage) else (), "the axis along which vectors lie")
        steps.append(Vector(stage=name, axis=lanes))
    return steps


def _crossing_axis(stage: Map) -> str | None:
    """The axis along which an input is contiguous while the result is contiguous along another: a transpose."""
    names = [a.name for a in stage.axes]
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    found = [axis for n in loads if (axis := unit_stride_axis(n)) in names[:-1] and Var(name=names[-1]) in n.index]
    return found[0] if found else None


def _square_blocks(name: str, axes: list[str], crossing: str, *, threads: bool) -> list[Step]:
    """Blocks whose rows and columns both fit the nearest cache, so that every line read or written is used whole."""
    last = axes[-1]
    steps: list[Step] = [Split(stage=name, axis=a, factor=BLOCK) for a in (crossing, last)]
    outer = [f"{a}.o" if a in (crossing, last) else a for a in axes]
    steps.append(Order(stage=name, axes=(*outer, f"{crossing}.i", f"{last}.i")))
    if threads:
        steps.append(Parallel(stage=name, axis=outer[0]))
    return [*steps, Vector(stage=name, axis=f"{last}.i")]


def _strided(stage: Map) -> bool:
    """Whether some access is contiguous along another axis than the result is (a transposition, say)."""
    votes = {unit_stride_axis(n) for n in walk(stage.value) if isinstance(n, Load)}
    return bool(votes - {None, stage.axes[-1].name})


def _flat(stage: Map) -> bool:
    """Every access is at the stage's own point, in its own axis order, so all axes are one contiguous axis."""
    axes = tuple(Var(name=a.name) for a in stage.axes)
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    return all(n.index == axes and n.boundary is None for n in loads) and not _uses_axes(stage)


def _uses_axes(stage: Map) -> bool:
    """Whether the value uses an index as a number."""
    names = {a.name for a in stage.axes}

    def uses(node: Node) -> bool:
        if isinstance(node, Load):
            return False
        return (isinstance(node, Var) and node.name in names) or any(uses(child) for child in children(node))

    return uses(stage.value)


def _reduce_steps(stage: Reduce, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, whole: bool) -> list[Step]:
    """Vector along the contiguous axis: a reduced one holds partial results, an output one is tiled around the reduction."""
    over = [a.name for a in stage.over]
    axes = [a.name for a in stage.axes]
    loads = [n for v in stage.values for n in walk(v) if isinstance(n, Load)]
    votes = [unit_stride_axis(n) for n in loads]
    best = max((v for v in votes if v in over or v in axes), key=votes.count, default=over[-1])
    best = decide(f"{stage.name}.vector", best, (over[-1], *axes[-1:]), "the axis along which vectors lie")
    if best in over:
        return [Vector(stage=stage.name, axis=best)]
    lanes = spec.lanes(stage.reducer.dtypes[0])
    width = decide(f"{stage.name}.columns", 64, (n * lanes for n in (1, 2, 4, 8, 16)), "columns reduced at the same time")
    deep, wide = extent_of(stage.over[-1], sizes), extent_of(next(a for a in stage.axes if a.name == best), sizes)
    if (deep or 0) >= DEEP and (wide or 0) >= WIDE and whole:
        return sweep_columns(stage, best, threads=False)
    return _column_steps(stage, best, width)


def _column_steps(stage: Reduce, axis: str, width: int) -> list[Step]:
    over = [a.name for a in stage.over]
    return [
        Split(stage=stage.name, axis=axis, factor=width),
        Order(stage=stage.name, axes=(f"{axis}.o", *over, f"{axis}.i")),
        Vector(stage=stage.name, axis=f"{axis}.i"),
    ]
