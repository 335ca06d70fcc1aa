"""Which stages of an op are computed where: inlined into their readers, inside the loops of a result, or a strip of rows ahead of it."""

from __future__ import annotations

from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Boundary, Load, Var
from tridsl.ir.op import Compact, Map, Reduce
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, Read, axes_of, covers, is_cheap, over_of, pointwise
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import At, Beside, Split, Step

INLINED_READS = 9
"""Uses (a 3 x 3 stencil's) beyond which nobody need try to compute a value again at each."""
STRIP_ROWS = 32
"""Rows of a strip that share their neighbours' values; two of them are computed twice."""


def inlined_stages(graph: Graph, decide: Decider) -> list[str]:
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


def placements(graph: Graph, inlined: list[str], decide: Decider) -> tuple[list[Step], dict[str, int]]:
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


def packed_together(graph: Graph, decide: Decider) -> list[Beside]:
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
