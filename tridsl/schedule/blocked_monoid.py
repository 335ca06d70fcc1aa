"""Attention and its like: a map that reads a monoid of rescaled sums, whose bases come from contractions.

The reduced axis `t` is merged a block at a time (`schedule.block`), so that scores, weights and states of a block of rows stay
in the near caches and the products with them are register tiles. Which of the axes that all states share is the *row* axis, along
which one key and one value serve many rows, decides the shape (`schedule.blocked_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Binary, Expr, Load, Var
from tridsl.ir.op import Axis, Map, Reduce
from tridsl.ir.walk import variables, walk
from tridsl.passes.to_loops import to_loops
from tridsl.schedule.analyse import Graph, axes_of, extent_of, pointwise
from tridsl.schedule.block import block, part_name
from tridsl.schedule.roles import is_contraction
from tridsl.schedule.steps import BlockBy
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """A sum of products over rows and elements: of its factors one moves with the rows, the other with the elements."""

    stage: Reduce
    rows: Load
    elements: Load

    @property
    def terms(self) -> tuple[str, ...]:
        return tuple(a.name for a in self.stage.over)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """`root` reads the states of `merge`, whose bases are the maps `between` over `scores`.

    `shared` axes are those of all states, `own` the one that only the state `wide` has; `values` stand beside the weights there.
    `elements` is the axis that is reduced, `row` a shared axis that no key and no value moves with. `grouped`: n neighbours along a
    shared axis read the same keys and values.
    """

    root: Map
    merge: Reduce
    between: tuple[str, ...]
    scores: tuple[Scores, ...]
    values: tuple[Load, ...]
    row: str
    shared: tuple[str, ...]
    own: Axis
    wide: str
    grouped: tuple[str, int] | None

    @property
    def elements(self) -> str:
        return self.merge.over[0].name

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(a for a in self.shared if a != self.row)

    @property
    def members(self) -> frozenset[str]:
        return frozenset({self.root.name, self.merge.name, *(s.stage.name for s in self.scores), *self.between})

    def part(self, name: str) -> str:
        """A stage that `block` makes."""
        return f"{self.merge.name}.{name}"

    @property
    def sum(self) -> str:
        """The stage of the weighted sum of values."""
        return self.part(part_name(self.merge.name, self.wide))


def blocked_group(graph: Graph, merge: Reduce, spec: DeviceSpec, sizes: Mapping[str, int]) -> Group | None:
    """The stages around `merge` when it can be merged in blocks and all of them be made there."""
    readers = {r.reader for r in graph.readers(merge.name)}
    root = graph.stages.get(min(readers, default=""))
    if merge.ordered or len({t.axes for t in merge.targets}) != 2 or len(merge.over) != 1 or len(readers) != 1 or not isinstance(root, Map):
        return None
    shared = tuple(a.name for a in merge.axes if all(a.name in t.axes for t in merge.targets))
    own = [a for a in merge.axes if a.name not in shared]
    wide = [t.name for t in merge.targets if len(t.axes) > len(shared)]
    if len(own) != 1 or len(wide) != 1 or {a.name for a in root.axes} != {*shared, own[0].name}:
        return None
    if not all(pointwise(r.load, merge, root) for r in graph.readers(merge.name)) or graph.before_update(merge.name):
        return None
    between, contractions = _producers(graph, merge)
    moving = merge.over[0].name
    scores = [s for stage in contractions if (s := _scores(stage, moving)) is not None]
    made = {*between, *(s.stage.name for s in scores)}
    values = tuple(n for v in merge.values for n in walk(v) if isinstance(n, Load) and graph.writer.get(n.tensor) not in made)
    moved = (*(s.elements for s in scores), *(n for n in values if moving in variables(n.index)))
    rows = [a for a in shared if not any(a in variables(n.index) for n in moved)]
    if not rows or not scores or len(scores) != len(contractions) or not _legal(graph, merge, spec):
        return None
    extents = {a.name: extent_of(a, sizes) for a in merge.axes}
    row = max(rows, key=lambda a: (extents[a] is None, extents[a] or 0, rows.index(a)))
    return Group(
        root=root, merge=merge, between=between, scores=tuple(scores), values=tuple(dict.fromkeys(n for n in values if n in moved)), row=row,
        shared=shared, own=own[0], wide=wide[0], grouped=_grouping(moved, [a for a in shared if a != row], sizes),
    )  # fmt: skip


def _producers(graph: Graph, merge: Reduce) -> tuple[tuple[str, ...], tuple[Reduce, ...]]:
    """Maps at the merge's own point that only it (and one another) read, and the contractions at the end of them."""
    between: list[str] = []
    contractions: list[Reduce] = []
    passing = {merge.name}
    axes = {a.name for a in (*merge.axes, *merge.over) if all(a.name in t.axes for t in merge.targets) or a in merge.over}
    for name in reversed(list(graph.stages)):
        reads, stage = graph.readers(name), graph.stages[name]
        if not reads or {r.reader for r in reads} - passing or graph.is_result(name) or graph.before_update(name):
            continue
        if not all(pointwise(r.load, stage, graph.stages[r.reader]) and r.load.index == reads[0].load.index for r in reads):
            continue
        if {a.name for a in axes_of(stage)} - axes:
            continue  # it moves with a value
        if isinstance(stage, Map):
            passing.add(name)
            between.append(name)
        elif isinstance(stage, Reduce) and is_contraction(stage):
            contractions.append(stage)
    return tuple(reversed(between)), tuple(reversed(contractions))


def _scores(stage: Reduce, moving: str) -> Scores | None:
    factors = [n for v in stage.values for n in walk(v) if isinstance(n, Load)]
    elements = [n for n in factors if moving in variables(n.index)]
    rows = [n for n in factors if n not in elements]
    return Scores(stage=stage, rows=rows[0], elements=elements[0]) if len(elements) == len(rows) == 1 else None


def _legal(graph: Graph, merge: Reduce, spec: DeviceSpec) -> bool:
    """Whether the step will take it: asked of the step itself."""
    try:
        block(to_loops(graph.op), BlockBy(stage=merge.name, axis=merge.over[0].name, factor=1), spec)
    except TriError:
        return False
    return True


def _grouping(moved: tuple[Load, ...], axes: list[str], sizes: Mapping[str, int]) -> tuple[str, int] | None:
    """(axis, n) when every key and value is read at `axis // n`."""
    for axis in axes:
        divisors = {_divisor(place, axis, sizes) for load in moved for place in load.index if axis in variables(place)}
        if len(divisors) == 1 and (count := divisors.pop()) is not None and count > 1:
            return axis, count
    return None


def _divisor(place: Expr, axis: str, sizes: Mapping[str, int]) -> int | None:
    if isinstance(place, Binary) and place.op == "floordiv" and place.a == Var(name=axis):
        try:
            return evaluate_index(place.b, sizes)
        except (KeyError, TypeError):
            return None
    return None
