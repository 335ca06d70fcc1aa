"""Ops that are too much for one design of an array: their stages in groups, each a launch of its own, with tensors in the host's memory between.

A group grows as long as the rules for one design have an answer for it, and nobody else reads what it computes on the way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Map, Op, Reduce, Scalar, Stage, Tensor, TopK
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, targets_of, values_of
from tridsl.schedule.steps import Inline, Schedule, Step
from tridsl.structs import replace

AsOne = Callable[[Op, Sequence[str], bool], Schedule]
"""The schedule of an op as one design with some stages inlined, the empty one where there is none; whether its questions count."""


def in_launches(op: Op, graph: Graph, inlined: Sequence[str], as_one: AsOne) -> Schedule:
    """A legal schedule whose every phase is one design; the empty one where a stage has none."""
    live = [name for name in graph.stages if name not in inlined]
    if len(live) < 2 or any(not _simple(graph.stages[name]) for name in graph.stages) or any(t.role == "inout" for t in op.tensors):
        return ()
    steps: list[Step] = [Inline(stage=name) for name in inlined]
    for group in _groups(op, graph, live, inlined, as_one):
        part, own = alone(op, graph, group, inlined)
        found = as_one(part, own, True)
        if not found:
            return ()
        steps += [step for step in found if not isinstance(step, Inline)]
    return tuple(steps)


def _simple(stage: Stage) -> bool:
    return isinstance(stage, TopK) or isinstance(stage, Map | Reduce) and len(targets_of(stage)) == 1


def _groups(op: Op, graph: Graph, live: Sequence[str], inlined: Sequence[str], as_one: AsOne) -> list[list[str]]:
    groups: list[list[str]] = []
    for name in live:
        if groups and _inside(graph, [*groups[-1], name], inlined) and as_one(*alone(op, graph, [*groups[-1], name], inlined), False):
            groups[-1].append(name)
        else:
            groups.append([name])
    return groups


def _inside(graph: Graph, group: Sequence[str], inlined: Sequence[str]) -> bool:
    """Whether only the group reads what its stages but the last compute, and none of those is a result."""
    return all(not graph.is_result(name) and set(group) >= (readers := _readers(graph, name, inlined)) and bool(readers) for name in group[:-1])


def _readers(graph: Graph, name: str, inlined: Sequence[str]) -> set[str]:
    """Who reads a stage, directly or through inlined ones."""
    found: set[str] = set()
    for read in graph.readers(name):
        found |= _readers(graph, read.reader, inlined) if read.reader in inlined else {read.reader}
    return found


def _behind(graph: Graph, group: Sequence[str], inlined: Sequence[str]) -> list[str]:
    """Inlined stages that the group reads, directly or through others."""
    found: list[str] = []
    waiting = list(group)
    while waiting:
        reader = waiting.pop(0)
        new = [r.writer for r in graph.reads if r.reader == reader and r.writer is not None and r.writer in inlined and r.writer not in found]
        found += dict.fromkeys(new)
        waiting += dict.fromkeys(new)
    return found


def alone(op: Op, graph: Graph, group: Sequence[str], inlined: Sequence[str]) -> tuple[Op, list[str]]:
    """The group as an op that reads and writes tensors, and its inlined stages."""
    behind = _behind(graph, group, inlined)
    stages = tuple(graph.stages[name] for name in graph.stages if name in group or name in behind)
    made = {t for s in stages for t in targets_of(s)}
    results = targets_of(graph.stages[group[-1]])
    read = {n.tensor for s in stages for n in walk(s) if isinstance(n, Load)} - made
    used = {n.name for s in stages for v in values_of(s) for n in walk(v) if isinstance(n, Var)}
    known: dict[str, Tensor] = {t.name: t for t in (*op.tensors, *op.intermediates)}
    params = [p for p in op.params if isinstance(p, Scalar) and p.name in used]
    tensors = [replace(t, role="input") for t in known.values() if t.name in read] + [replace(known[name], role="output") for name in results]
    kept = tuple(t for t in op.intermediates if t.name in made and t.name not in results)
    first = len(tensors) - len(results)
    return replace(op, params=(*tensors[:first], *params, *tensors[first:]), stages=stages, intermediates=kept), behind
