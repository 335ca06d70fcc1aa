"""A top-k on a GPU: workgroups count for each element of a part how many come before it; what is kept of the parts is divided again.

Every comparison is independent of every other, so that lanes never wait; with parts of a few times k that is little work, and each round
leaves a fraction of the candidates.
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


def ranked_parts(stage: TopK, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Schedule:
    """Steps for a top-k of a known k along an axis of known length."""
    count, kept = extent_of(stage.along, sizes), _constant(stage, sizes)
    if count is None or not kept or any(isinstance(n, Load) for bound in (stage.along.lo, stage.along.hi) for n in walk(bound)):
        return ()
    usual = max(COUNTED, 1 << (TIMES * kept - 1).bit_length())
    others = [n for n in (64, 128, 256, 512, 1024) if 2 * kept <= n != usual]
    part = decide(f"{stage.name}.part", usual, others, "elements of a part whose places are counted")
    name, axis, outer, steps = stage.name, stage.along.name, [a.name for a in stage.axes], list[Step]()
    level = 1
    while count > max(LAST, part):
        counted = f"{name}.part{level if level > 1 else ''}"
        steps += [Parts(stage=name, axis=axis, factor=part, into=RANKS), *_bound(counted, [*outer, f"{axis}.o"], f"{axis}.i", part, spec, own=True)]
        count = count // part * kept + min(kept, count % part)
        axis, level = f"{axis}.o", level + 1
    return (*steps, Parts(stage=name, axis=axis, factor=max(1, count), into=RANKS), *_bound(name, outer, axis, count, spec, own=False))


def _bound(stage: str, outer: Sequence[str], axis: str, count: int, spec: DeviceSpec, *, own: bool) -> list[Step]:
    """Elements as lanes for every point of `outer`, of one workgroup (`own`) or of as many as there are elements for."""
    lanes = min(COUNTED, spec.max_group_lanes or COUNTED)
    steps: list[Step] = []
    around = [*outer]
    if count > lanes:
        steps.append(Split(stage=stage, axis=axis, factor=lanes))
        around += [] if own else [f"{axis}.o"]
        axis = f"{axis}.i"
    groups: list[tuple[str, str]] = []
    if around:
        fused = around[0]
        for inner in around[1:]:
            steps.append(Fuse(stage=stage, outer=fused, inner=inner))
            fused = f"{fused}.{inner}"
        groups.append((fused, "group.x"))
    return [*steps, Bind(stage=stage, axes=(*groups, (axis, "lane.x")))]


def _constant(stage: TopK, sizes: Mapping[str, int]) -> int | None:
    try:
        return evaluate_index(stage.k, sizes)
    except (KeyError, TypeError):
        return None
