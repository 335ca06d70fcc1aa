"""Which stages of an op are computed where: inlined into their readers, inside the loops of a result, or a strip of rows ahead of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Boundary, Cast, Load, Select, Unary, Var, add, index
from tridsl.ir.op import Compact, Map, Reduce, Scan, Stage
from tridsl.ir.walk import substitute, variables, walk
from tridsl.schedule.analyse import Graph, Read, axes_of, covers, extent_of, is_cheap, over_of, points, pointwise
from tridsl.schedule.decisions import Decider
from tridsl.schedule.reductions import Tile
from tridsl.schedule.roles import is_contraction
from tridsl.schedule.steps import At, Beside, Order, Split, Step
from tridsl.structs import dataclass, replace

INLINED_READS = 9
"""Uses (a 3 x 3 stencil's) beyond which nobody need try to compute a value again at each."""
FACTOR_USES = 4
"""Uses of a contraction's factor from which keeping it costs less than computing it again in the innermost loop."""
KEPT = 6
"""Operations and loads per element that keeping a value for its neighbours costs more than its own store and loads: loops of its own, and
rows that leave the nearest cache (measured on 400 x 600 f32: differences read at three places, 3 more when computed again, take 0.56 of the
time inlined; a sum of three read at three places, 11 more, 1.13; a Laplacian at five, 23 more, 1.24)."""
STRIP_ROWS = 32
"""Rows of a strip that share their neighbours' values; two of them are computed twice."""
SLID_ROWS = 64
"""Rows of a strip in which they are made one by one: two of the strip are computed twice, and strips are what threads share."""
TILE_STRIP = 24
"""Rows of sums that are made ahead of what reads them: two register tiles of twelve, four of six."""


def inlined_stages(graph: Graph, sizes: Mapping[str, int], decide: Decider, *, factors: bool) -> list[str]:
    """Maps whose value is as cheap as a load, or is used once, at the reader's own point. `factors`: also those that are factors of
    a contraction, which uses each value many times."""
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
        again = not factors and any(_is_factor(r.load, graph.stages[r.reader], sizes) for r in reads) and not _only_cast(stage)
        plain = loads <= 2 and len(reads) <= 4 and not _stencil(reads)
        free = once or (is_cheap(stage) and (plain or (_stencil(reads) and _cheap_again(graph, stage, reads))) and not again)
        others = (False, True) if len(reads) <= INLINED_READS else ()
        if decide(f"{name}.inline", free, others, "whether the value is computed again at each use instead of kept"):
            names.append(name)
    return names


def _may_fail(stage: Map) -> bool:
    """Whether the stage checks an index as it runs: that happens once, where the stage stands."""
    return any(isinstance(n, Boundary) and n.mode == "raise" for n in walk(stage.value))


def _is_factor(read: Load, reader: Stage, sizes: Mapping[str, int]) -> bool:
    """Whether the reader is a contraction that uses the value for several results."""
    if not isinstance(reader, Reduce) or not is_contraction(reader):
        return False
    mentioned = {v for i in read.index for v in variables(i)}
    uses = points(tuple(a for a in reader.axes if a.name not in mentioned), sizes)
    return uses is None or uses >= FACTOR_USES


def _only_cast(stage: Map) -> bool:
    """Whether the value is an element as it is, or in another type."""
    return all(isinstance(n, Cast | Load | Var) for n in walk(stage.value))


def _stencil(reads: list[Read]) -> bool:
    """Several reads at shifted places: computing the value at each of them again costs more than keeping it."""
    return len({r.load.index for r in reads}) > 2


def _cheap_again(graph: Graph, stage: Map, reads: list[Read]) -> bool:
    """Whether neighbours of a stencil may compute the value again: results, or what is read at one place only, that do so at few places."""
    readers = {r.reader for r in reads}
    last = all(graph.is_result(n) or len({r.load.index for r in graph.readers(n)}) == 1 for n in readers)
    if not last or any(r.load.boundary is not None or not isinstance(graph.stages[r.reader], Map) for r in reads):
        return False
    own = [n for n in walk(stage.value) if isinstance(n, Load)]
    operations = sum(1 for n in walk(stage.value) if isinstance(n, Binary | Unary | Cast | Select))
    again, kept = 0, len(own)
    for reader in readers:
        places = {r.load.index for r in reads if r.reader == reader}
        points = [{a.name: i for a, i in zip(stage.axes, place)} for place in places]
        again += operations * len(places) + len({(n.tensor, tuple(map(normal_form, substitute(n.index, p)))) for p in points for n in own})
        kept += len(places)
    return again - kept - operations <= KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """`steps`: `at`s, and the splits that they need. `shared`: per result the number of leading axes whose loops the stages before
    it share, point by point. `strips`: the axis of a result of which they make some rows ahead. `inside`: for each stage that is
    computed inside another's loops, what of its leading axes is made at a time. `tiles`: of each result that is
    made from a register tile of what it reads, and of the stage that it reads."""

    steps: tuple[Step, ...]
    shared: Mapping[str, int]
    strips: Mapping[str, str]
    inside: Mapping[str, Inside]
    tiles: Mapping[str, Tile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """One point of each of the first `fixed` axes, and `rows` (None: all) of the next."""

    fixed: int = 0
    rows: int | None = None

    def part(self, stage: Reduce) -> Reduce:
        """The stage over the points that are made at a time, for whoever chooses tiles by their number."""
        counts = [*[1] * self.fixed, self.rows]
        axes = [a if n is None else replace(a, hi=add(a.lo, index(n))) for a, n in zip(stage.axes, counts)]
        return replace(stage, axes=(*axes, *stage.axes[len(axes) :]))


Ring = Callable[[str, str, list[str]], Sequence[Step]]
"""(result, its outermost axis, the stages that it reads at neighbouring points of it) -> steps, none where they cannot slide."""
TileOf = Callable[[Reduce], Tile | None]
"""The register tile of a reduction that reads what lies in memory, if it has one."""
Rows = Callable[[Stage], str | None]
"""The axis of a reduction whose points a register tile of it takes together, if it has one."""


def placements(
    graph: Graph, inlined: list[str], sizes: Mapping[str, int], decide: Decider, *, rows_of: Rows, alone: Callable[[Stage], bool],
    ring: Ring | None = None, tile_of: TileOf | None = None,
) -> Placed:  # fmt: skip
    """Where stages are computed. Those that `alone` is true of are finished before what reads them begins. `ring`: on a device that
    runs loops in order, the steps that make rows of a strip one by one instead; `tile_of`: on one with registers of its own for a tile."""
    steps: list[Step] = []
    shared: dict[str, int] = {}
    strips: dict[str, str] = {}
    inside: dict[str, Inside] = {}
    tiles: dict[str, Tile] = {}
    live = [n for n in graph.stages if n not in inlined]
    apart = {n for n in live if alone(graph.stages[n])}
    for root in reversed(live):
        if not isinstance(graph.stages[root], Map) or root in {s.stage for s in steps}:
            continue
        group = _ancestors(graph, root, inlined, {s.stage for s in steps}, apart)
        depth = _common_depth(graph, root, group, inlined)
        if group and depth:
            depth = decide(f"{root}.shared", depth, range(depth, -1, -1), "leading axes whose loops the stages before it share")
        axes = [a.name for a in axes_of(graph.stages[root])]
        tiled = _tiled_axis(graph, group, depth, rows_of)
        ahead: list[Step] = []
        tile = _shared_tile(graph, root, group, inlined, tile_of, decide)
        if tile is not None:
            names = dict(zip((a.name for a in axes_of(graph.stages[group[0]])), axes))
            tiles |= {group[0]: tile, root: replace(tile, tall=names[tile.tall], wide=names[tile.wide])}
            steps += _by_tiles(root, group[0], axes, tiles[root])
        elif tiled is not None:
            rows = _even_strip(extent_of(axes_of(graph.stages[root])[tiled], sizes))
            ahead = _strip(root, axes[tiled], group, rows, decide)
            inside |= {s.stage: Inside(fixed=tiled, rows=f.factor) for f in ahead[:1] if isinstance(f, Split) for s in ahead[1:]}
        elif not (group and depth):
            ahead = _neighbours(graph, root, group, decide, ring)
        if ahead:
            steps += ahead
            strips[root] = axes[tiled or 0]
        elif group and depth and tile is None:
            shared[root] = depth
            inside |= dict.fromkeys(group, Inside(fixed=depth))
            for name in reversed(group):
                steps.append(At(stage=name, consumer=root, axis=axes[depth - 1]))
            steps += _joined(graph, group, decide)
    return Placed(steps=tuple(steps), shared=shared, strips=strips, inside=inside, tiles=tiles)


def _shared_tile(
    graph: Graph, root: str, group: list[str], inlined: list[str], tile_of: TileOf | None, decide: Decider
) -> Tile | None:
    """The register tile of a window's sums where the result is made of each sum at its own point and of nothing else that is kept."""
    stage = graph.stages[group[0]] if len(group) == 1 else None
    if tile_of is None or not isinstance(stage, Reduce):
        return None
    mine = axes_of(graph.stages[root])
    reads = [r for r in graph.readers(stage.name) if r.reader == root]
    point = tuple(Var(name=a.name) for a in mine)
    alike = [(a.lo, a.hi) for a in mine] == [(a.lo, a.hi) for a in stage.axes]
    if not alike or len(reads) != len(graph.readers(stage.name)) or any(r.load.index != point or r.load.boundary for r in reads):
        return None
    tile = tile_of(stage)
    places = [a.name for a in stage.axes]
    if tile is None or not places.index(tile.tall) < places.index(tile.wide):
        return None
    if not decide(f"{root}.tiles", True, (False,), "whether each register tile becomes results while it is in registers"):
        return None
    return tile


def _by_tiles(root: str, stage: str, axes: list[str], tile: Tile) -> list[Step]:
    cut = {tile.tall: tile.rows, tile.wide: tile.width}
    outer = [f"{a}.o" if a in cut else a for a in axes]
    return [
        *(Split(stage=root, axis=axis, factor=factor) for axis, factor in cut.items()),
        Order(stage=root, axes=(*outer, *(f"{axis}.i" for axis in cut))),
        At(stage=stage, consumer=root, axis=outer[-1]),
    ]


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


def _tiled_axis(graph: Graph, group: list[str], depth: int, rows_of: Rows) -> int | None:
    """The outermost of the shared axes whose points some reduction of the group takes together: made point by point, it would read
    everything anew for each. (A monoid of several parts takes its points as they come.)"""
    found: list[int] = []
    for name in group:
        stage = graph.stages[name]
        if not isinstance(stage, Reduce):
            continue
        if len({t.axes for t in stage.targets}) > 1:
            return None
        axes = [a.name for a in stage.axes[:depth]]
        rows = rows_of(stage)
        if rows in axes:
            found.append(axes.index(rows))
    return min(found, default=None)


def _ancestors(graph: Graph, root: str, inlined: list[str], taken: set[str], apart: set[str]) -> list[str]:
    """Live intermediate stages that only `root` and the group itself (through inlined ones) read, in op order."""
    group: set[str] = set()
    passing = {root}
    for name in reversed(list(graph.stages)):
        if name == root or name in apart or graph.is_result(name):
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
        depth = min(depth, _leading(graph.stages[name]))
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
    if depth == len(axes) and all(isinstance(s := graph.stages[n], Map) and len(s.axes) == depth for n in group):
        return depth  # each value is made in a register, where it is used
    # at least the innermost axis stays with each stage, to be its vector
    longest = max(len(axes_of(graph.stages[n])) + len(over_of(graph.stages[n])) for n in group)
    return min(depth, max(len(axes) - 1, 0) if longest > depth or len(axes) > 1 else depth)


def _leading(stage: Stage) -> int:
    """Leading axes of what the stage makes, one point of which can be made alone: a scanned axis runs as a whole."""
    if isinstance(stage, Scan):
        return min(target.axes.index(stage.along.name) if stage.along.name in target.axes else len(target.axes) for target in stage.targets)
    return len(axes_of(stage))


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


def _neighbours(graph: Graph, root: str, group: list[str], decide: Decider, ring: Ring | None) -> list[Step]:
    """Producers read at neighbouring rows are computed for a strip of rows at a time."""
    axes = axes_of(graph.stages[root])
    if len(axes) < 2 or not group:
        return []
    outer = axes[0].name
    near = [n for n in group if _leading(graph.stages[n]) and not graph.before_update(n) and all(_near(r.load, outer) for r in graph.readers(n))]
    while behind := [n for n in near if any(r.reader in group and r.reader not in near for r in graph.readers(n))]:
        near = [n for n in near if n not in behind]  # what reads it stays behind, and needs all of it
    slid = ring(root, outer, near) if ring is not None and near else ()
    return _strip(root, outer, near, SLID_ROWS if slid else STRIP_ROWS, decide, slid)


def _strip(root: str, axis: str, group: list[str], rows: int, decide: Decider, slid: Sequence[Step] = ()) -> list[Step]:
    """The stages of the group for some rows of `root` at a time, or by the steps `slid` inside these rows."""
    if not group:
        return []
    rows = decide(f"{root}.strip_rows", rows, (4, 8, 16, 32, 64, 128, 0), "rows for which the stages before it are made ahead (0: all)")
    if not rows:
        return []
    steps: list[Step] = [Split(stage=root, axis=axis, factor=rows)]
    if slid:
        return [*steps, *slid]
    return [*steps, *(At(stage=n, consumer=root, axis=f"{axis}.o") for n in reversed(group))]


def _even_strip(extent: int | None) -> int:
    """At most `TILE_STRIP` rows, in even parts: of 64 rows 16, not 24 + 24 + 16."""
    if extent is None or extent < 1:
        return TILE_STRIP
    most = min(TILE_STRIP, extent)
    return next((n for n in range(most, most // 2, -1) if extent % n == 0), -(-extent // -(-extent // most)))


def _near(load: Load, axis: str) -> bool:
    """Whether the first index is `axis` plus a constant."""
    return bool(load.index) and normal_form(load.index[0]).coefficient(axis) == 1
