"""Short rows of which stages make one value after the other: what one has found of a row (its greatest element, its sum) the next waits for.

Across the lanes of a register that takes as long as some dozens of them. A few rows go through each stage before the next stage begins, so
that a row's value is there when its turn comes:

    for r: m = sum[n](x[r, n]); v = sum[n](sqr(x[r, n] - m)); …    ->    for r.o: for r < 4: m[r] = …;  for r < 4: v[r] = …; …

(Measured on an Emerald Rapids, 64 x 512 f32, beside one row at a time: layernorm 0.88 of the time with four, 0.92 with two.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Map, Reduce
from tridsl.schedule.analyse import Graph, axes_of, extent_of, unit_stride_axis
from tridsl.schedule.copied import accesses
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import At, Slide, Split, Step
from tridsl.structs import dataclass, replace

HEIGHTS = (4, 2)
"""Rows that go together, best first."""
CACHE = 2
"""Of the nearest cache, what a group of rows may fill is this part: the next group's elements are on their way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Together:
    """`steps` instead of those that were given; `axes`: of each result whose rows go together, the axis that is cut."""

    steps: tuple[Step, ...]
    axes: Mapping[str, str]


def rows_together(
    graph: Graph, shared: Mapping[str, int], steps: Sequence[Step], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> Together:
    """`shared`: of each result the number of leading axes whose loops the stages that `steps` place there share."""
    axes: dict[str, str] = {}
    placed = list(steps)
    for root, depth in shared.items():
        members = [s.stage for s in steps if isinstance(s, At) and s.consumer == root]
        row = axes_of(graph.stages[root])[0].name if depth == 1 else None
        if row is None or not _waits(graph, root, members, steps, row):
            continue
        height = decide(f"{root}.rows_together", _height(graph, root, members, spec, sizes), (1, *reversed(HEIGHTS)), "rows that go through the stages together")
        if height == 1:
            continue
        axes[root] = row
        first = next(i for i, s in enumerate(placed) if isinstance(s, At) and s.consumer == root)
        placed = [replace(s, axis=f"{row}.o") if isinstance(s, At) and s.consumer == root else s for s in placed]
        placed.insert(first, Split(stage=root, axis=row, factor=height))
    return Together(steps=tuple(placed), axes=axes)


def _waits(graph: Graph, root: str, members: Sequence[str], steps: Sequence[Step], row: str) -> bool:
    """Whether the result is a map of whole rows that waits for single values of them, each reduced in the row's loop and nowhere else."""
    stage = graph.stages[root]
    if not isinstance(stage, Map) or len(stage.axes) != 2 or any(s.axis != row for s in steps if isinstance(s, At) and s.consumer == root):
        return False
    if any(isinstance(s, Slide) or (isinstance(s, Split) and s.stage in (root, *members)) for s in steps):
        return False
    if any(isinstance(s, At) and s.stage in members and s.consumer != root for s in steps):
        return False  # made for a second reader in the loop of the first, a stage is there for whole groups only, and the last may be shorter
    found = [graph.stages[name] for name in members]
    if any(len(load.index) == 2 and unit_stride_axis(load) == axes_of(s)[0].name for s in (stage, *found) if axes_of(s) for load in accesses(s)):
        return False  # rows across memory: `turned_rows` copies those
    return any(isinstance(s, Reduce) and len(s.axes) == 1 for s in found) and all(isinstance(s, Map | Reduce) for s in found)


def _height(graph: Graph, root: str, members: Sequence[str], spec: DeviceSpec, sizes: Mapping[str, int]) -> int:
    """As many rows as the nearest cache holds of what they read, make in between and give, and as leave each core some."""
    stage = graph.stages[root]
    extents = [extent_of(a, sizes) for a in axes_of(stage)]
    if None in extents or not spec.l1_bytes:
        return 1
    rows, length = (e or 0 for e in extents)
    whole = {s.name: s.dtype.storage_bytes for s in (stage, *(graph.stages[m] for m in members)) if isinstance(s, Map) and len(s.axes) == 2}
    for reader in (root, *members):
        for load in accesses(graph.stages[reader]):
            if load.tensor not in graph.stages and _is_row(load, graph, reader):
                whole[load.tensor] = load.dtype.storage_bytes
    fits = spec.l1_bytes // (CACHE * max(1, length * sum(whole.values())))
    return next((h for h in HEIGHTS if h <= fits and rows >= h * (spec.cores or 1)), 1)


def _is_row(load: Load, graph: Graph, reader: str) -> bool:
    """Whether the access is to the row that the reader is at."""
    return len(load.index) == 2 and load.index[0] == Var(name=axes_of(graph.stages[reader])[0].name)
