"""A top-k on a GPU: workgroups count for each element of a part how many come before it; what is kept of the parts is divided again.

Every comparison is independent of every other, so that lanes never wait; with parts of a few times k that is little work, and each round
leaves a fraction of the candidates. Where k is too large for parts that a workgroup can count, each lane keeps the greatest of its own part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Load
from tridsl.ir.op import TopK
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import extent_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.ranks import RANKS
from tridsl.schedule.steps import Bind, Fuse, Parts, Schedule, Split, Step

COUNTED = 256
"""Elements of a part, at least: a round leaves few candidates, and its comparisons take no longer than a kernel takes to start."""
TIMES = 4
"""Of what is kept of a part, so that a round leaves a quarter."""
LAST = 1 << 10
"""Candidates that are counted among each other by the last kernel."""
INSERTED = 1 << 10
"""Elements of which one lane keeps the greatest."""
SUBGROUP = 32
"""Lanes of a workgroup each of which works alone."""


def ranked_parts(stage: TopK, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Schedule:
    """Steps for a top-k of a known k along an axis of known length."""
    count, kept = extent_of(stage.along, sizes), _constant(stage, sizes)
    if count is None or not kept or any(isinstance(n, Load) for bound in (stage.along.lo, stage.along.hi) for n in walk(bound)):
        return ()
    most = spec.max_group_lanes or 128
    usual = max(COUNTED, 1 << (TIMES * kept - 1).bit_length())
    others = [n for n in (64, 128, 512, 1024) if 2 * kept <= n <= most and n != usual]
    part = decide(f"{stage.name}.part", usual if usual <= most else 0, [*others, 0], "elements of a part whose places are counted (0: lanes keep the greatest)")
    return tuple(_counted(stage, count, kept, part) if part else _inserted(stage, count, kept))


def _counted(stage: TopK, count: int, kept: int, part: int) -> list[Step]:
    name, axis, outer, steps = stage.name, stage.along.name, [a.name for a in stage.axes], list[Step]()
    level = 1
    while count > max(LAST, part):
        counted = f"{name}.part{level if level > 1 else ''}"
        steps += [Parts(stage=name, axis=axis, factor=part, into=RANKS), *_bound(counted, [*outer, f"{axis}.o"], f"{axis}.i")]
        count = count // part * kept + min(kept, count % part)
        axis, level = f"{axis}.o", level + 1
    steps.append(Parts(stage=name, axis=axis, factor=max(1, count), into=RANKS))
    if count > part:
        steps.append(Split(stage=name, axis=axis, factor=part))
        return [*steps, *_bound(name, [*outer, f"{axis}.o"], f"{axis}.i")]
    return [*steps, *_bound(name, outer, axis)]


def _bound(stage: str, outer: Sequence[str], lanes: str) -> list[Step]:
    """The loops `outer` as workgroups, the elements of one as lanes."""
    steps: list[Step] = []
    groups: list[tuple[str, str]] = []
    if outer:
        fused = outer[0]
        for axis in outer[1:]:
            steps.append(Fuse(stage=stage, outer=fused, inner=axis))
            fused = f"{fused}.{axis}"
        groups.append((fused, "group.x"))
    return [*steps, Bind(stage=stage, axes=(*groups, (lanes, "lane.x")))]


def _inserted(stage: TopK, count: int, kept: int) -> list[Step]:
    """A lane for each part: what is kept of them is little."""
    part = max(INSERTED, kept)
    if count <= 2 * part:
        return []
    name, fused = f"{stage.name}.part", f"{stage.along.name}.o"
    steps: list[Step] = [Parts(stage=stage.name, axis=stage.along.name, factor=part)]
    for axis in reversed(stage.axes):
        steps.append(Fuse(stage=name, outer=axis.name, inner=fused))
        fused = f"{axis.name}.{fused}"
    return [*steps, Split(stage=name, axis=fused, factor=SUBGROUP), Bind(stage=name, axes=((f"{fused}.o", "group.x"), (f"{fused}.i", "lane.x")))]


def _constant(stage: TopK, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate_index(stage.k, sizes)
    except (KeyError, TypeError):
        return None
