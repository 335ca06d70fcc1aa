"""Steps that copy what some accesses of a stage read into panels."""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.ir.expr import Load
from tridsl.ir.op import Stage
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import values_of
from tridsl.schedule.steps import Pack, Step


def accesses(stage: Stage) -> list[Load]:
    """The different ones of a stage, in the order in which `place` of a panel counts them."""
    return list(dict.fromkeys(n for v in values_of(stage) for n in walk(v) if isinstance(n, Load)))


def panels(stage: Stage, packed: Sequence[Load], at: str) -> list[Step]:
    """A panel for each access, the last ones first: where a tensor is read at several places, a panel takes one out of their number."""
    loads = accesses(stage)
    steps: list[Step] = []
    for load in reversed(packed):
        places = [l for l in loads if l.tensor == load.tensor]
        steps.append(Pack(stage=load.tensor, at=at, reader=stage.name, place=places.index(load) if len(places) > 1 else None))
    return steps
