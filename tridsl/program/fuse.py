"""Joins calls so that intermediates stay out of memory: elementwise chains, and elementwise work around a reduction.

Contractions stay alone: a join would cost them their tiles.
A value is passed inside one kernel only when every stage that reads it visits each of its elements at most once, so
nothing is computed twice more than the stages that read it; a matrix product's operand, read by every column, is not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tridsl.ir.expr import Const, Load
from tridsl.ir.op import Axis, Map, Op, Reduce, Stage, Tensor
from tridsl.ir.walk import walk
from tridsl.program.compose import compose
from tridsl.program.graph import Graph, Node, Operand, Value
from tridsl.structs import replace

LARGEST_READERS = 3
"""Stages of the consumer that may read a fused value: softmax reads its input three times."""

LARGEST_REUSE = 4
"""How often a joined reduction may read an element."""

LARGEST_TENSORS = 16
"""Tensor parameters of one kernel."""


def fuse(graph: Graph) -> Graph:
    """`graph` with neighbouring calls joined where that is legal and saves memory traffic; deterministic."""
    current = graph
    while (joined := _join_one(current)) is not None:
        current = joined
    named = {
        *current.inputs,
        *current.outputs,
        *(name for node in current.nodes for name in (*node.reads, *node.outputs)),
    }
    return replace(current, values=tuple(v for v in current.values if v.name in named))


def _join_one(graph: Graph) -> Graph | None:
    values = {v.name: v for v in graph.values}
    updated = frozenset(name for node in graph.nodes for name in node.updates)
    for last, consumer in enumerate(graph.nodes):
        for first in reversed(range(last)):
            producer = graph.nodes[first]
            shared = frozenset(producer.outputs) & frozenset(consumer.reads)
            if not shared or updated & {*producer.reads, *consumer.reads, *producer.outputs, *consumer.outputs}:
                continue
            place = _place(graph.nodes, first, last)
            if place is None or not _profitable(producer, consumer, shared, values):
                continue
            elsewhere = {name for n, node in enumerate(graph.nodes) if n not in (first, last) for name in node.reads}
            keep = frozenset(producer.outputs) & (elsewhere | set(graph.outputs))
            merged = compose(producer, consumer, values, keep)
            nodes = [node for n, node in enumerate(graph.nodes) if n not in (first, last)]
            nodes.insert(place if place <= first else place - 1, merged)
            return replace(graph, nodes=tuple(nodes))
    return None


def _place(nodes: tuple[Node, ...], first: int, last: int) -> int | None:
    """Where the joined call may stand: at the consumer if nobody between needs the producer, or at the producer if the
    consumer needs nobody between; None if neither."""
    between = nodes[first + 1 : last]
    made = frozenset(nodes[first].outputs)
    if not any(made & frozenset(node.reads) for node in between):
        return last
    if not any(frozenset(node.outputs) & frozenset(nodes[last].reads) for node in between):
        return first
    return None


def _profitable(producer: Node, consumer: Node, shared: frozenset[str], values: Mapping[str, Value]) -> bool:
    if producer.device != consumer.device and producer.device and consumer.device:
        return False
    stages = (*producer.op.stages, *consumer.op.stages)
    if not all(isinstance(stage, (Map, Reduce)) for stage in stages):
        return False
    if not (elementwise(producer.op) or elementwise(consumer.op)):
        return False
    if any(_reuses_operands(node, values) for node in (producer, consumer)):
        return False
    if len(producer.op.tensors) + len(consumer.op.tensors) - len(shared) > LARGEST_TENSORS:
        return False
    if any(t.layout != "row" or t.length for t in (*producer.op.tensors, *consumer.op.tensors)):
        return False
    names = {
        parameter.name: given.value
        for parameter, given in zip(consumer.op.inputs, consumer.inputs)
        if isinstance(parameter, Tensor) and isinstance(given, Operand) and given.value in shared
    }
    readers = 0
    for stage in consumer.op.stages:
        read = {names[load.tensor] for load in walk(stage) if isinstance(load, Load) and load.tensor in names}
        readers += bool(read)
        if any(points(stage) > math.prod(values[name].shape) for name in read):
            return False
    return readers <= LARGEST_READERS


def _reuses_operands(node: Node, values: Mapping[str, Value]) -> bool:
    """Whether a reduction reads elements many times, as a matrix product does: its own blocking is worth more than the
    traffic a join would save."""
    largest = max((math.prod(values[name].shape) for name in node.reads), default=0)
    return any(isinstance(stage, Reduce) and points(stage) > LARGEST_REUSE * largest for stage in node.op.stages)


def elementwise(op: Op) -> bool:
    """Whether every stage is a map."""
    return all(isinstance(stage, Map) for stage in op.stages)


def points(stage: Stage) -> float:
    """Iterations of a map or reduction of constant sizes; 0 for the other stages."""
    if not isinstance(stage, (Map, Reduce)):
        return 0
    axes = (*stage.axes, *(stage.over if isinstance(stage, Reduce) else ()))
    return math.prod(_extent(axis) for axis in axes)


def _extent(axis: Axis) -> float:
    if isinstance(axis.lo, Const) and isinstance(axis.hi, Const):
        return max(0, int(axis.hi.value) - int(axis.lo.value))
    return math.inf
