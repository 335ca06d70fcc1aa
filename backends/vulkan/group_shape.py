"""How many lanes the workgroups of a phase have, from the loops that are bound to them."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod

from tridsl.backends.vulkan.collective import LANE_AXES
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const
from tridsl.ir.loop import Block, For, Mma, Phase
from tridsl.ir.walk import walk

DEFAULT_LANES = 256
"""Lanes along the axis of a loop whose extent nothing bounds."""


GROUPED_LANES = 256
"""Lanes of a workgroup that works on matrices as one: the largest tiles that drivers divide evenly."""


def group_lanes(phase: Phase, spec: DeviceSpec) -> tuple[int, int, int]:
    """Lanes along x, y, z: what loops over lanes ask for; where loops are bound to subgroups, as many as these have, along x what is left of them."""
    if is_grouped(phase):
        return GROUPED_LANES, 1, 1
    subgroups = subgroup_axes(phase)
    if subgroups:
        lanes = prod(subgroups.values()) * subgroup_lanes(spec)
        _, y, z = group_shape(phase, lanes)
        return (lanes // (y * z), y, z) if lanes % (y * z) == 0 else (lanes, 1, 1)
    return group_shape(phase, spec.max_group_lanes or 128, max(spec.subgroup_sizes, default=1))


def subgroup_lanes(spec: DeviceSpec) -> int:
    """Lanes of each subgroup of a kernel that is bound to subgroups."""
    return spec.matrix_lanes or max(spec.subgroup_sizes, default=1)


def is_grouped(part: Phase | Block) -> bool:
    """Whether matrix instructions in it are those of whole workgroups."""
    return any(isinstance(node, Mma) and INTRINSICS[node.intrinsic].grouped for node in walk(part))


def group_shape(phase: Phase, max_lanes: int, subgroup: int = 1) -> tuple[int, int, int]:
    """Lanes of the phase's workgroups along x, y, z: what its loops over lanes ask for, within `max_lanes` in all.

    Whole subgroups of `subgroup` lanes, so that no driver combines lanes that are not there (Mesa 22's llvmpipe does); a loop
    guards the lanes beyond its extent.
    """
    shape = [1, 1, 1]
    for loop in loops_of_kind(phase, "lane"):
        constant = int(loop.extent.value) if isinstance(loop.extent, Const) else loop.bound
        position = LANE_AXES[loop.binding or "lane.x"]
        shape[position] = max(shape[position], DEFAULT_LANES if constant is None else constant)
    for position in range(3):
        others = shape[0] * shape[1] * shape[2] // shape[position]
        shape[position] = max(1, min(shape[position], max_lanes // min(others, max_lanes)))
    total = shape[0] * shape[1] * shape[2]
    while total > 1 and total % subgroup and (shape[0] + 1) * shape[1] * shape[2] <= max_lanes:
        shape[0] += 1
        total = shape[0] * shape[1] * shape[2]
    return shape[0], shape[1], shape[2]


def subgroup_axes(phase: Phase) -> dict[str, int]:
    """How the subgroups of a workgroup are divided among the loops over them, by axis."""
    axes: dict[str, int] = {}
    for loop in loops_of_kind(phase, "subgroup"):
        count = int(loop.extent.value) if isinstance(loop.extent, Const) else loop.bound
        if count is None:
            raise RuntimeError(f"loop {loop.var} over subgroups has no bound")
        axis = (loop.binding or "subgroup.x")[-1]
        axes[axis if axis in "xyz" else "x"] = max(count, axes.get(axis, 1))
    return axes


def loops_of_kind(phase: Phase, kind: str) -> Iterator[For]:
    return (node for node in walk(phase) if isinstance(node, For) and node.kind == kind)
