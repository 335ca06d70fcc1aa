"""Monoids that are merged in blocks on a GPU: by its matrix instructions where these compute their products, whole, else by lanes."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.op import Reduce
from tridsl.schedule.analyse import Graph
from tridsl.schedule.blocked_fragments import by_fragments
from tridsl.schedule.blocked_lanes import by_lanes
from tridsl.schedule.blocked_monoid import Group, blocked_group
from tridsl.schedule.blocked_parts import by_parts
from tridsl.schedule.blocked_rows import Blocked
from tridsl.schedule.blocked_shared import by_shared_parts
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Step


def blocked_gpu(graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> tuple[Blocked, ...]:
    """Steps for each such monoid: by the device's matrix instructions where these compute its products, whole."""
    found = []
    for stage in graph.stages.values():
        group = blocked_group(graph, stage, spec, sizes) if isinstance(stage, Reduce) else None
        if group is None or not decide(f"{stage.name}.blocks", True, (False,), "whether elements are merged a block at a time"):
            continue
        row = _instruction(group, spec)
        steps: list[Step] = []
        if row is not None:
            steps = by_shared_parts(group, row, spec, sizes, decide) or by_fragments(group, row, spec, sizes, decide)
        steps = steps or by_lanes(group, spec, sizes, decide) or by_parts(group, spec, sizes, decide)
        if steps:
            found.append(Blocked(members=group.members, steps=tuple(steps)))
    return tuple(found)


def _instruction(group: Group, spec: DeviceSpec) -> Intrinsic | None:
    """The one for the types of rows, keys and values, when these are one."""
    if len(group.scores) != 1 or len(group.values) != 1 or len(group.scores[0].terms) != 1 or spec.matrix_lanes is None:
        return None
    kinds = {load.dtype for load in (group.scores[0].rows, group.scores[0].elements, group.values[0])}
    acc = group.merge.reducer.dtypes[0]
    fits = (r for r in INTRINSICS.values() if r.is_matrix and not r.flexible and kinds == {r.a} == {r.b} and r.acc == acc and r.feature in spec.features)
    return next((r for r in fits if r.m == r.n == r.k), None)
