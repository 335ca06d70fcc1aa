"""Rows of an input that lie across memory (those of a column-major matrix), where stages share the loop over rows.

Each row on its own would take one element of every line. A strip of rows is copied first, and the stages read the copy. Its axes are
the tensor's: a column-major matrix is transposed in registers, and of columns that are read as rows a strip's lines are made dense.

    for r: m = max[n](x[r, n]) …        ->    for r.o: x.reg[16, N] = x[r.o*16 + 0..16, :];  for r.i: m = max[n](x.reg[r.i, n]) …
    for r: m = max[n](x[n, r]) …        ->    for r.o: x.reg[N, 16] = x[:, r.o*16 + 0..16];  for r.i: m = max[n](x.reg[n, r.i]) …
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Op
from tridsl.ir.strides import memory_order
from tridsl.schedule.analyse import Graph, axes_of, extent_of, over_of, unit_stride_axis
from tridsl.schedule.decisions import Decider
from tridsl.schedule.maps import LINE_BYTES, SHORTEST, STRETCH
from tridsl.schedule.steps import At, Order, Pack, Split, Step, StoreIn, Vector
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Turned:
    """`steps`, which stand behind the `at`s of the stages that share the loops; `strips`: the axis of each result that is cut by them."""

    steps: tuple[Step, ...]
    strips: Mapping[str, str]


def turned_rows(
    graph: Graph, declared: Op, shared: Mapping[str, int], moved: Mapping[str, str], sizes: Mapping[str, int], decide: Decider
) -> Turned:
    """Strips for the results of `shared` (the number of leading axes whose loops other stages share; `moved`: in whose loops each of
    those stands). `graph` is of the op with its inputs in memory order, `declared` the op as it is."""
    column_major = {t.name for t in declared.tensors if memory_order(t) == (1, 0)}
    steps: list[Step] = []
    strips: dict[str, str] = {}
    for root, depth in shared.items():
        members = {root, *(name for name, home in moved.items() if home == root)}
        axis = axes_of(graph.stages[root])[depth - 1]
        across = [t for t in graph.op.tensors if t.role == "input" and _across(graph, t.name, members, depth)]
        rows = extent_of(axis, sizes)
        if depth != 1 or not across or (rows is not None and rows < SHORTEST):
            continue
        if not decide(f"{root}.turned", True, (False,), "whether rows that lie across memory are copied, a strip at a time"):
            continue
        height = max(1, LINE_BYTES // max(t.dtype.storage_bytes for t in across))
        steps.append(Split(stage=root, axis=axis.name, factor=height))
        strips[root] = axis.name
        for tensor in across:
            steps += _transposed(tensor.name, root, axis.name) if tensor.name in column_major else _dense(tensor.name, root, axis.name)
    return Turned(steps=tuple(steps), strips=strips)


def _transposed(tensor: str, root: str, axis: str) -> tuple[Step, ...]:
    """A stretch of the strip at a time is read as it lies, turned in registers, and is the rows' elements one after the other."""
    copy = f"{tensor}.reg"
    return (
        *_strip(tensor, root, axis),
        Split(stage=copy, axis="d1", factor=STRETCH),
        Order(stage=copy, axes=("d1.o", "d0", "d1.i")),
        Vector(stage=copy, axis="d1.i"),
        Pack(stage=tensor, at="d1.o", reader=copy),
    )


def _dense(tensor: str, root: str, axis: str) -> tuple[Step, ...]:
    """One vector of each line. (Measured on a Golden Cove, a softmax of the columns of 8192 by 1024: a tenth of the time of rows without
    a copy.)"""
    return (*_strip(tensor, root, axis), Vector(stage=f"{tensor}.reg", axis="d1"))


def _strip(tensor: str, root: str, axis: str) -> tuple[Step, ...]:
    return StoreIn(stage=tensor, space="reg"), At(stage=f"{tensor}.reg", consumer=root, axis=f"{axis}.o")


def _across(graph: Graph, tensor: str, members: set[str], depth: int) -> bool:
    """Whether all reads of a matrix are by these stages, each of its own row's elements, which lie apart."""
    reads = [r for r in graph.reads if r.load.tensor == tensor]
    return bool(reads) and all(r.reader in members and _is_across(graph, r.reader, r.load, depth) for r in reads)


def _is_across(graph: Graph, reader: str, load: Load, depth: int) -> bool:
    stage = graph.stages[reader]
    row = axes_of(stage)[depth - 1].name
    points = {a.name for a in (*axes_of(stage), *over_of(stage))} - {row}
    inner, outer = load.index[0] if load.index else None, load.index[-1] if load.index else None
    plain = len(load.index) == 2 and load.boundary is None and load.mask is None and outer == Var(name=row)
    return plain and isinstance(inner, Var) and inner.name in points and unit_stride_axis(load) == row
