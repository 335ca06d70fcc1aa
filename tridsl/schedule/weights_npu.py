"""Packed weights on an array of cores: their bytes travel, a core decodes them a panel at a time into the blocks of its matrix instruction."""

from __future__ import annotations

from collections.abc import Sequence
from math import lcm

from tridsl.devices.intrinsics import Intrinsic
from tridsl.ir.expr import Var
from tridsl.ir.op import Map, Reduce
from tridsl.ir.packings import BYTES, PACKINGS, ROWS, Packing, is_packed
from tridsl.schedule.analyse import Graph
from tridsl.schedule.roles import Factors, factors_of
from tridsl.schedule.steps import At, Order, Split, Step, StoreIn, Unroll, Vector
from tridsl.structs import dataclass

DECODED = "reg"
"""What the copy of packed weights is called, behind their name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """A factor that comes packed and is decoded in the core."""

    tensor: str
    packing: Packing

    def steps(self, name: str, over: str, row: Intrinsic) -> list[Step]:
        """Where a panel is decoded: every byte of a block in two registers of groups of four columns, which take turns in the instruction's blocks."""
        own = f"{self.tensor}.{DECODED}"
        steps: list[Step] = [At(stage=own, consumer=name, axis=f"{over}.o"), StoreIn(stage=own, space="l1")]
        steps += [Split(stage=own, axis="d0", factor=ROWS), Split(stage=own, axis="d0.i", factor=row.n)]
        for axis, factor in (("d1", columns_of(self.packing, row)), ("d1.i", row.k), ("d1.i.i", BYTES)):
            steps.append(Split(stage=own, axis=axis, factor=factor))
        steps.append(Order(stage=own, axes=("d0.o", "d1.o", "d1.i.o", "d0.i.o", "d0.i.i", "d1.i.i.o", "d1.i.i.i")))
        return [*steps, Unroll(stage=own, axis="d1.i.o"), Vector(stage=own, axis="d1.i.i.i")]


def columns_of(packing: Packing, row: Intrinsic) -> int:
    """Columns after which the blocks of the packing and of the instruction begin together again."""
    return lcm(packing.columns, row.k)


def weights_of(graph: Graph, factors: Factors, row: Intrinsic, j: str) -> Weights | None:
    """The packed factor, where it gives the result's columns and two groups of its columns make rows of the instruction's blocks."""
    tensors = {t.name: t for t in graph.op.tensors}
    for load in (factors.a, factors.b):
        tensor = tensors.get(load.tensor)
        if tensor is None or not is_packed(tensor) or load.index[0] != Var(name=j) or (row.n, row.k) != (ROWS // 2, 2 * BYTES):
            continue
        return Weights(tensor=load.tensor, packing=PACKINGS[tensor.layout])
    return None


def packed_by_vector(graph: Graph, live: Sequence[str]) -> str | None:
    """The vector that a packed matrix is multiplied with, where that is all that `live` reduces; None where it is something else."""
    stage = graph.stages[live[0]]
    if not isinstance(stage, Reduce) or stage.ordered or stage.reducer.op != "add" or len(stage.axes) != 1 or len(stage.over) != 1:
        return None
    factors = factors_of(stage.values[0])
    packed = {t.name for t in graph.op.tensors if is_packed(t)}
    if factors is None or len({f.tensor for f in factors} & packed) != 1 or not all(isinstance(graph.stages[n], Map) for n in live[1:]):
        return None
    other = next(f for f in factors if f.tensor not in packed)
    inputs = {t.name for t in graph.op.tensors if t.role == "input"}
    return other.tensor if other.tensor in inputs and len(other.index) == 1 else None
