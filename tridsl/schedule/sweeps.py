"""Reductions over the same points that read the same tensors share one sweep over them (sums of squares, a minimum beside a maximum)."""

from __future__ import annotations

from collections.abc import Callable

from tridsl.ir.expr import Expr, Load, Var
from tridsl.ir.op import Reduce, Stage
from tridsl.ir.walk import substitute, walk
from tridsl.schedule.analyse import Graph
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Beside

STATES = 4
"""Results combined in one loop: each needs several registers of partial results."""


def shared_sweeps(graph: Graph, inlined: list[str], decide: Decider, *, eligible: Callable[[Stage], bool]) -> list[Beside]:
    """`beside` steps: each joins a reduction to an earlier one."""
    steps: list[Beside] = []
    hosts: list[list[Reduce]] = []
    for name, stage in graph.stages.items():
        if not isinstance(stage, Reduce) or name in inlined or not eligible(stage):
            continue
        group = next((g for g in hosts if _joins(graph, g, stage)), None)
        if group is None:
            hosts.append([stage])
        elif decide(f"{name}.beside.{group[0].name}", True, (False,), "whether reductions over the same points share a loop"):
            outer = (*group[0].axes, *group[0].over)[0]
            steps.append(Beside(stage=name, other=group[0].name, axis=outer.name))
            group.append(stage)
    return steps


def _joins(graph: Graph, group: list[Reduce], stage: Reduce) -> bool:
    """Whether the stage may run as early as the group's first, over the same points, and has something to read with it."""
    host = group[0]
    alike = [(a.lo, a.hi) for a in (*stage.axes, *stage.over)] == [(a.lo, a.hi) for a in (*host.axes, *host.over)]
    widths = {d.storage_bits for member in (*group, stage) for d in member.reducer.dtypes}
    states = sum(len(member.targets) for member in (*group, stage))
    if not alike or len(stage.axes) != len(host.axes) or len(widths) > 1 or states > STATES:
        return False
    order = {name: number for number, name in enumerate(graph.stages)}
    early = all(r.writer is None or order[r.writer] < order[host.name] for r in graph.reads if r.reader == stage.name)
    return early and not graph.before_update(stage.name) and any(_common(member, stage) for member in group)


def _common(a: Reduce, b: Reduce) -> bool:
    """Whether both read the same elements."""
    names: dict[str, Expr] = {y.name: Var(name=x.name) for x, y in zip((*a.axes, *a.over), (*b.axes, *b.over))}
    mine = {(n.tensor, n.index) for v in a.values for n in walk(v) if isinstance(n, Load)}
    theirs = {(n.tensor, n.index) for v in b.values for n in walk(substitute(v, names)) if isinstance(n, Load)}
    return bool(mine & theirs)
