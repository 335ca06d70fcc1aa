"""How the loops of a scan run on a device with vectors."""

from __future__ import annotations

from tridsl.ir.expr import Load
from tridsl.ir.op import Scan
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import unit_stride_axis
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Step, Vector


def scan_steps(stage: Scan, decide: Decider) -> list[Step]:
    """Vector along the contiguous axis: the scanned one, whose lanes combine among themselves, or one of many scans side by side."""
    axes = [a.name for a in stage.axes]
    votes = [unit_stride_axis(n) for v in stage.values for n in walk(v) if isinstance(n, Load)]
    best = max((v for v in votes if v in axes), key=votes.count, default=stage.along.name)
    best = best if stage.along.name not in votes else stage.along.name
    best = decide(f"{stage.name}.vector", best, (stage.along.name, *axes[-1:]), "the axis along which vectors lie")
    return [Vector(stage=stage.name, axis=best)]
