"""Questions about an `Op` that the automatic scheduler asks: who reads whom, where, and how much work a stage is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tridsl.ir.affine import evaluate_index, normal_form
from tridsl.ir.expr import Binary, Boundary, Call, Cast, Expr, Load, Node, Var
from tridsl.ir.op import Axis, Compact, Map, Op, Reduce, Scan, Stage, TopK
from tridsl.ir.walk import walk
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """One access of `reader` to a tensor that stage `writer` makes (None: a parameter)."""

    reader: str
    writer: str | None
    load: Load


def axes_of(stage: Stage) -> tuple[Axis, ...]:
    """The axes of a stage's result, outermost first (a compaction has none: its result has one length)."""
    return () if isinstance(stage, Compact) else stage.axes


def over_of(stage: Stage) -> tuple[Axis, ...]:
    """Axes that the stage runs over but that its result lacks (or, for a scan, that carry state)."""
    if isinstance(stage, Reduce):
        return stage.over
    return (stage.along,) if isinstance(stage, Scan | TopK | Compact) else ()


def targets_of(stage: Stage) -> tuple[str, ...]:
    """Tensors the stage writes."""
    if isinstance(stage, Reduce | Scan):
        return tuple(t.name for t in stage.targets)
    if isinstance(stage, TopK):
        return stage.values.name, stage.indices.name
    if isinstance(stage, Compact):
        return stage.name, stage.length
    return (stage.name,)


def values_of(stage: Stage) -> tuple[Expr, ...]:
    if isinstance(stage, Reduce | Scan):
        return stage.values
    if isinstance(stage, Compact):
        return stage.value, stage.keep
    return (stage.value,)


class Graph:
    """Reads between the stages of one op."""

    def __init__(self, op: Op) -> None:
        self.op = op
        self.stages: dict[str, Stage] = {s.name: s for s in op.stages}
        self.writer: dict[str, str] = {t: s.name for s in op.stages for t in targets_of(s)}
        self.results = {p.name for p in op.params} | {t.length for t in op.outputs if t.length}
        self.reads: list[Read] = [
            Read(reader=s.name, writer=self.writer.get(n.tensor), load=n) for s in op.stages for n in self._loads(s)
        ]

    @staticmethod
    def _loads(stage: Stage) -> Iterator[Load]:
        yield from (n for n in walk(stage) if isinstance(n, Load))

    def readers(self, stage: str) -> list[Read]:
        """Reads of what `stage` writes, by other stages."""
        return [r for r in self.reads if r.writer == stage and r.reader != stage]

    def before_update(self, stage: str) -> list[Read]:
        """Reads of `stage` of parameters that a later stage updates: behind that stage they would read something else."""
        order = {name: n for n, name in enumerate(self.stages)}
        return [r for r in self.reads if r.reader == stage and r.writer is not None and order[r.writer] > order[stage]]

    def is_result(self, stage: str) -> bool:
        return any(t in self.results for t in targets_of(self.stages[stage]))


def is_cheap(stage: Map) -> bool:
    """Whether computing a value again costs about as much as loading it: a few arithmetic operations, no division."""
    nodes = list(walk(stage.value))
    heavy = any(isinstance(n, Call) or (isinstance(n, Binary) and n.op in ("div", "floordiv", "mod")) for n in nodes)
    return not heavy and sum(1 for n in nodes if not isinstance(n, Cast | Var)) <= 8


def pointwise(read: Load, producer: Stage, reader: Stage) -> bool:
    """Whether the access is at exactly the reader's own point, each axis once."""
    names = [n.name for n in read.index if isinstance(n, Var)]
    mine = {a.name for a in (*axes_of(reader), *over_of(reader))}
    return len(names) == len(read.index) == len(set(names)) and set(names) <= mine and read.boundary is None


def lone_reader(graph: Graph, stage: Reduce) -> Map | None:
    """The map that reads the sum at its own point, when nothing else reads it."""
    reads = graph.readers(stage.name)
    reader = graph.stages.get(reads[0].reader) if reads and len({r.reader for r in reads}) == 1 else None
    if graph.is_result(stage.name) or not isinstance(reader, Map) or not all(pointwise(r.load, stage, reader) for r in reads):
        return None
    return reader if {a.name for a in reader.axes} == {a.name for a in stage.axes} else None


def covers(read: Load, reader: Stage) -> bool:
    """Whether `read` mentions every axis that the reader iterates over, so a value is used once."""
    names = {n.name for n in read.index if isinstance(n, Var)}
    return {a.name for a in (*axes_of(reader), *over_of(reader))} <= names


def unit_stride_axis(load: Load, strides: Mapping[str, tuple[int, ...]] | None = None) -> str | None:
    """The variable along which this access advances by one element (row-major, or by the given strides)."""
    inner = unit_stride_axes(load, strides)
    return inner[-1] if inner else None


def unit_stride_axes(load: Load, strides: Mapping[str, tuple[int, ...]] | None = None) -> tuple[str, ...]:
    """All variables along which this access advances by one element: of `x[i + r, j + s]` both `j` and `s`."""
    if not load.index:
        return ()
    known = (strides or {}).get(load.tensor)
    position = len(load.index) - 1
    if known is not None:
        position = next((n for n, s in enumerate(known) if s == 1), -1)
        if position < 0:
            return ()
    poly = normal_form(load.index[position])
    found = [m[0].name for m, c in poly.terms if c == 1 and len(m) == 1 and isinstance(m[0], Var)]
    return tuple(v for v in found if not any(_mentions(i, v) for n, i in enumerate(load.index) if n != position))


def _mentions(expression: Expr, variable: str) -> bool:
    return any(isinstance(n, Var) and n.name == variable for n in walk(expression))


def extent_of(axis: Axis, sizes: Mapping[str, int]) -> int | None:
    """The number of points, when the sizes are known."""
    try:
        return evaluate_index(axis.hi, sizes) - evaluate_index(axis.lo, sizes)
    except (KeyError, TypeError):
        return None


def known_index(expression: Expr, sizes: Mapping[str, int]) -> int | None:
    """The value of an index expression, when the sizes and `const` parameters in it are known."""
    try:
        return evaluate_index(expression, sizes)
    except (KeyError, TypeError):
        return None


def points(axes: tuple[Axis, ...], sizes: Mapping[str, int]) -> int | None:
    total = 1
    for axis in axes:
        extent = extent_of(axis, sizes)
        if extent is None:
            return None
        total *= max(extent, 0)
    return total


def work(stage: Stage, sizes: Mapping[str, int]) -> int | None:
    """Rough scalar operations of a stage: points times expression nodes, functions counted as 20."""
    count = points((*axes_of(stage), *over_of(stage)), sizes)
    if count is None:
        return None
    return count * max(1, sum(_weight(n) for v in values_of(stage) for n in walk(v)))


def _weight(node: Node) -> int:
    if isinstance(node, Call):
        return 20
    return 0 if isinstance(node, Boundary | Var) else 1
