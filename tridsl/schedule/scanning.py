"""How the loops of a scan run on a device with vectors."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.op import Scan
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import points, unit_stride_axis
from tridsl.schedule.apart import START
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Order, Split, Step, Vector

REGISTERS = (1, 2, 4, 8, 16)
"""Registers of scans side by side. The more, the longer the stretch of each row that is read at once (measured on rows of 4 KiB, which
share one set of the nearest cache: 16 registers take 0.55 to 0.8 of the time of 4), but half of them stay free for what is read."""


STRETCH = 1024
"""Scans whose running values are in memory: 4 KiB of f32."""


def scan_steps(stage: Scan, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Vector along the contiguous axis: the scanned one, whose lanes combine among themselves, or one of many scans side by side."""
    axes = [a.name for a in stage.axes]
    votes = [unit_stride_axis(n) for v in stage.values for n in walk(v) if isinstance(n, Load)]
    best = max((v for v in votes if v in axes), key=votes.count, default=stage.along.name)
    best = best if stage.along.name not in votes else stage.along.name
    best = decide(f"{stage.name}.vector", best, (stage.along.name, *axes[-1:]), "the axis along which vectors lie")
    if best == stage.along.name:
        return [Vector(stage=stage.name, axis=best)]
    width = max(spec.lanes(d) for d in stage.reducer.dtypes)
    if decide(f"{stage.name}.rows", _beyond(stage, spec, sizes), (False, True), "whether whole rows are scanned, with running values in memory"):
        return [
            Split(stage=stage.name, axis=best, factor=STRETCH),
            Order(stage=stage.name, axes=(stage.along.name, f"{best}.i")),
            *(Vector(stage=stage.name, axis=f"{best}.i{part}") for part in (START, "")),
        ]
    most = max(n for n in REGISTERS if n == 1 or 2 * n * len(stage.reducer.states) <= (spec.vector_registers or 16))
    columns = decide(f"{stage.name}.columns", most * width, (n * width for n in REGISTERS), "scans side by side")
    return [Split(stage=stage.name, axis=best, factor=columns), Vector(stage=stage.name, axis=f"{best}.i")]


def _beyond(stage: Scan, spec: DeviceSpec, sizes: Mapping[str, int]) -> bool:
    """Whether what is read and written fills the second cache: then long stretches of memory count for more than values in registers
    (measured: rows of 4 KiB, 8 MiB in all, take 0.4 of the time; 0.5 MiB in all takes 1.3 times as long)."""
    count = points((*stage.axes, stage.along), sizes)
    size = sum(t.dtype.storage_bytes for t in stage.targets)
    return count is not None and spec.l2_bytes is not None and 2 * count * size >= spec.l2_bytes
