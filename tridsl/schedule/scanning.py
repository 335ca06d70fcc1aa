"""How the loops of a scan run on a device with vectors."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.op import Scan
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import unit_stride_axis
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Split, Step, Vector

REGISTERS = (1, 2, 4, 8, 16)
"""Registers of scans side by side. The more, the longer the stretch of each row that is read at once (measured on rows of 4 KiB, which
share one set of the nearest cache: 16 registers take 0.55 to 0.8 of the time of 4), but half of them stay free for what is read."""


def scan_steps(stage: Scan, spec: DeviceSpec, decide: Decider) -> list[Step]:
    """Vector along the contiguous axis: the scanned one, whose lanes combine among themselves, or one of many scans side by side."""
    axes = [a.name for a in stage.axes]
    votes = [unit_stride_axis(n) for v in stage.values for n in walk(v) if isinstance(n, Load)]
    best = max((v for v in votes if v in axes), key=votes.count, default=stage.along.name)
    best = best if stage.along.name not in votes else stage.along.name
    best = decide(f"{stage.name}.vector", best, (stage.along.name, *axes[-1:]), "the axis along which vectors lie")
    if best == stage.along.name:
        return [Vector(stage=stage.name, axis=best)]
    width = max(spec.lanes(d) for d in stage.reducer.dtypes)
    most = max(n for n in REGISTERS if n == 1 or 2 * n * len(stage.reducer.states) <= (spec.vector_registers or 16))
    columns = decide(f"{stage.name}.columns", most * width, (n * width for n in REGISTERS), "scans side by side")
    return [Split(stage=stage.name, axis=best, factor=columns), Vector(stage=stage.name, axis=f"{best}.i")]
