"""A top-k on a GPU: of many elements, only those parts whose best are among the best; of few, each counts how many come before it.

What is left out is read once. Comparisons are independent of one another, so that lanes never wait, and several of them share an element's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.op import TopK
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import extent_of, known_index, points
from tridsl.schedule.best_parts import BEST
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.ranks import RANKS
from tridsl.schedule.steps import Bind, Parts, Schedule, Split, Step, Vector
from tridsl.structs import dataclass

START = 1 << 22
"""Comparisons that take as long as a kernel takes to start (an H100 makes 2 x 10^12 a second: two microseconds)."""
READ = 4
"""Comparisons that take as long as to read an element of a part."""
ROUND = 4
"""Kernels that leave out parts: their best elements, the order of those that stay, their elements, the ranks of these."""
LONGEST = 256
"""Elements of a part, which a few lanes look through."""
LANES = 256
"""Lanes of a workgroup."""
WIDE = 4
"""Neighbours that a lane reads at once, of whole parts."""
TOGETHER, ALONE = 8, 32
"""Lanes that share an element's comparisons, or a part; and those that do where elements are FEW (measured on an H200, 10^5 and the sixteen
greatest: 89 us with 8, 31 with 32; 4096 rows of 1024 take a sixth longer with 32)."""
FEW = 1 << 13
"""Elements whose comparisons do not fill a device otherwise."""


def ranked_parts(stage: TopK, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Schedule:
    """Steps for a top-k of a known k along an axis of known length."""
    count, kept, rows = extent_of(stage.along, sizes), known_index(stage.k, sizes), points(stage.axes, sizes)
    if count is None or not kept or any(isinstance(n, Load) for bound in (stage.along.lo, stage.along.hi) for n in walk(bound)):
        return ()
    part = _cheapest(count, kept, rows or 1)[1]
    others = [n for n in (0, 16, 32, 64, 128, 256) if n != part and n * kept < count and -(-count // max(n, 1)) >= kept]
    part = decide(f"{stage.name}.part", part, others, "elements of a part that may be left out whole (0: none is)")
    lanes = min(LANES, spec.max_group_lanes or 128)
    return tuple(_steps(stage.name, [a.name for a in stage.axes], stage.along.name, _Task(kept=kept, rows=rows or 1, lanes=lanes), count, part))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """`kept` elements of each of `rows` rows, by workgroups of `lanes`."""

    kept: int
    rows: int
    lanes: int


@lru_cache(1 << 10)
def _cheapest(count: int, kept: int, rows: int) -> tuple[int, int]:
    """The comparisons that it takes to find the greatest, and the elements of a part; 0 where all are compared with one another."""
    ways = [(rows * count * count + START, 0)]
    part = 2
    while part <= LONGEST and part * kept < count and -(-count // part) >= kept:
        left = part * kept
        ways.append((rows * (READ * count + left * left) + ROUND * START + _cheapest(-(-count // part), kept, rows)[0], part))
        part *= 2
    return min(ways)


def _steps(stage: str, outer: list[str], axis: str, task: _Task, count: int, part: int) -> list[Step]:
    if not part:
        return [Parts(stage=stage, axis=axis, factor=count, into=RANKS), *_together(stage, outer, axis, f"{axis}.j", task.lanes, ALONE if task.rows * count <= FEW else TOGETHER)]
    best, parts, order = f"{stage}.{BEST}", f"{stage}.part", f"{stage}.order"
    number, left = -(-count // part), part * task.kept
    steps: list[Step] = [Parts(stage=stage, axis=axis, factor=part, into=BEST)]
    if count % part == 0 and part % WIDE == 0:
        steps += [Split(stage=best, axis=f"{axis}.i", factor=WIDE), Vector(stage=best, axis=f"{axis}.i.i")]
        steps += _each(best, outer, f"{axis}.o", task.lanes)
    else:
        steps += _together(best, outer, f"{axis}.o", f"{axis}.i", task.lanes)
    steps += _steps(parts, outer, f"{axis}.o", task, number, _cheapest(number, task.kept, task.rows)[1])
    steps += [*_together(order, outer, f"{axis}.o", f"{axis}.o.j", task.lanes), *_each(f"{stage}.left", outer, f"{axis}.o", task.lanes)]
    return [*steps, *_steps(stage, outer, f"{axis}.o", task, left, 0)]


def _each(stage: str, outer: Sequence[str], axis: str, lanes: int) -> list[Step]:
    """A lane for each element."""
    fused, steps = all_fused(stage, [*outer, axis])
    return [*steps, Split(stage=stage, axis=fused, factor=lanes), Bind(stage=stage, axes=((f"{fused}.o", "group.x"), (f"{fused}.i", "lane.x")))]


def _together(stage: str, outer: Sequence[str], axis: str, over: str, lanes: int, wide: int = TOGETHER) -> list[Step]:
    """Lanes along y for the elements of an axis, `wide` of them along x for what each runs over."""
    steps: list[Step] = [Split(stage=stage, axis=axis, factor=lanes // wide), Split(stage=stage, axis=over, factor=wide)]
    fused, fusing = all_fused(stage, [*outer, f"{axis}.o"])
    return [*steps, *fusing, Bind(stage=stage, axes=((fused, "group.x"), (f"{axis}.i", "lane.y"), (f"{over}.i", "lane.x")))]
