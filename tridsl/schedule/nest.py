"""Finding and replacing loops by stage and axis name: what every step starts with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from tridsl.diagnostics import Span, TriError, error
from tridsl.ir.affine import Interval, constant, interval, normal_form
from tridsl.ir.expr import Const, Expr, Load, Node, Var, index
from tridsl.ir.loop import (
    Accumulate,
    Alloc,
    Append,
    Block,
    Copy,
    CopyAxis,
    For,
    If,
    Kernel,
    LoopKind,
    Mma,
    Stmt,
    Store,
)
from tridsl.ir.walk import map_children, variables, walk
from tridsl.structs import replace


def stage_of(variable: str) -> str:
    """`y.sum` of the loop variable `y.sum:k.o`."""
    return variable.partition(":")[0]


def axis_of(variable: str) -> str:
    return variable.partition(":")[2]


def loops_of(kernel: Kernel, stage: str) -> tuple[For, ...]:
    """The stage's loops, outer before inner."""
    return tuple(loop for p in kernel.phases for loop, _ in nested_loops(p.body) if stage_of(loop.var) == stage)


def stages(kernel: Kernel) -> tuple[str, ...]:
    """Names of all stages that have a phase or a loop, in order."""
    seen: dict[str, None] = {}
    for phase in kernel.phases:
        seen[phase.name] = None
        seen |= {stage_of(loop.var): None for loop, _ in nested_loops(phase.body)}
    return tuple(seen)


def find_loop(kernel: Kernel, stage: str, axis: str, span: Span | None) -> For:
    """The loop `stage:axis`. E0401 for an unknown stage, E0402 for an unknown axis, with what there is."""
    loops = loops_of(kernel, stage)
    for loop in loops:
        if axis_of(loop.var) == axis:
            return loop
    if stage not in stages(kernel):
        raise unknown_stage(kernel, stage, span)
    have = ", ".join(dict.fromkeys(axis_of(loop.var) for loop in loops)) or "none"
    raise error("E0402", f"stage `{stage}` has no loop `{axis}`", span, help=f"its loops here are: {have}")


def unknown_stage(kernel: Kernel, stage: str, span: Span | None) -> TriError:
    return error(
        "E0401", f"there is no stage `{stage}` to schedule", span, help=f"the stages are: {', '.join(stages(kernel))}"
    )


def replace_loop(kernel: Kernel, variable: str, function: Callable[[For], Stmt | Block]) -> Kernel:
    """The kernel with the loop of `variable` replaced. Only statements are looked into: loops stand in no expression."""

    def visit(node: Node) -> object:
        if isinstance(node, For) and node.var == variable:
            return function(node)
        return map_children(node, visit) if isinstance(node, For | If) else node

    return replace(kernel, phases=tuple(map_children(phase, visit) for phase in kernel.phases))


def enclosing(kernel: Kernel, variable: str) -> tuple[For, ...]:
    """Loops around (and without) the loop of `variable`, outermost first."""

    def search(block: Block, above: tuple[For, ...]) -> tuple[For, ...] | None:
        for loop, parents in nested_loops(block, above):
            if loop.var == variable:
                return parents
        return None

    for phase in kernel.phases:
        found = search(phase.body, ())
        if found is not None:
            return found
    return ()


def nested_loops(block: Block, above: tuple[For, ...] = ()) -> Iterator[tuple[For, tuple[For, ...]]]:
    """Every loop in `block` with the loops around it."""
    for statement in block:
        if isinstance(statement, For):
            yield statement, above
            yield from nested_loops(statement.body, (*above, statement))
        elif isinstance(statement, If):
            yield from nested_loops(statement.then, above)
            yield from nested_loops(statement.otherwise, above)


def upper_bound(extent: Expr, above: tuple[For, ...]) -> int | None:
    """A constant that `extent` never exceeds, from the loops around it."""
    if isinstance(extent, Const):
        return int(extent.value)
    return interval(extent, loop_ranges(above))[1]


def loop_ranges(loops: tuple[For, ...]) -> dict[str, Interval]:
    """Inclusive ranges of loop variables; their bounds where the extents are not constant."""
    ranges: dict[str, Interval] = {}
    for loop in loops:
        high = loop.bound if loop.bound is not None else interval(loop.extent, ranges)[1]
        ranges[loop.var] = (0, None if high is None else max(0, high - 1))
    return ranges


def out_of_scope(kernel: Kernel, path: tuple[For, ...], before: int, block: Block) -> str | None:
    """A loop variable or local buffer that `block` uses and that does not exist in front of statement `before` of the innermost
    loop of `path` (which starts at a phase)."""
    inside = path[-1].body[:before]
    blocks = [(p.body, path[0].var) for p in kernel.phases] + [(l.body, n.var) for l, n in pairwise(path)]
    visible = {s.buffer.name for s in inside if isinstance(s, Alloc)}
    for body, following in blocks:
        position = next((n for n, s in enumerate(body) if isinstance(s, For) and s.var == following), 0)
        visible |= {s.buffer.name for s in body[:position] if isinstance(s, Alloc)}
    nodes = [n for s in block for n in walk(s)]
    local = {n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)} - visible
    local -= {n.buffer.name for n in nodes if isinstance(n, Alloc)}
    own = {n.var for n in nodes if isinstance(n, For | CopyAxis)} | {loop.var for loop in path}
    for node in nodes:
        if isinstance(node, Load) and node.tensor in local:
            return node.tensor
        if isinstance(node, Var) and ":" in node.name and node.name not in own:
            return axis_of(node.name)
    return None


def crossed_kinds(outer: tuple[For, ...], inner: Block) -> tuple[For, For] | None:
    """Two loops that may not stand in each other: lanes or threads inside lanes, threads inside threads, one hardware axis
    twice, workgroups inside lanes, lanes and subgroups, which both divide a workgroup."""
    for loop in (n for s in inner for n in walk(s) if isinstance(n, For)):
        for around in outer:
            if loop.kind in CROSSED.get(around.kind, ()) or (loop.binding is not None and loop.binding == around.binding):
                return around, loop
    return None


CROSSED: dict[LoopKind, tuple[LoopKind, ...]] = {
    "vector": ("vector", "parallel", "group", "lane", "subgroup", "column", "row"),
    "parallel": ("parallel",),
    "lane": ("parallel", "group", "subgroup", "column", "row"),
    "subgroup": ("parallel", "group", "lane", "column", "row"),
}


def follows_loops(place: Expr) -> bool:
    """Whether an index is made of loop variables alone, so that it is inside its axis whenever they have values: `i + r` is,
    `N - 1` and `0` are elements only if some loop over N runs."""
    names = variables(place)
    return bool(names) and all(":" in name for name in names) and normal_form(place).constant >= 0


def trip_bound(loop: For) -> int | None:
    """Constant upper bound of a loop's iterations."""
    known = constant(loop.extent)
    return loop.bound if known is None else known


def written(statement: Stmt) -> frozenset[str]:
    """Tensors that `statement` writes, at any depth."""
    names: set[str] = set()
    for node in walk(statement):
        if isinstance(node, Store | Copy | Mma):
            names.add(node.target.tensor)
        elif isinstance(node, Accumulate):
            names |= {target.tensor for target in node.targets}
        elif isinstance(node, Append):
            names |= {*node.tensors, node.count.tensor}
    return frozenset(names)


def allocated(statement: Stmt) -> frozenset[str]:
    return frozenset(n.buffer.name for n in walk(statement) if isinstance(n, Alloc))


def require_serial(loop: For, step: str, span: Span | None) -> None:
    """E0404: a loop that already has a kind cannot be reshaped."""
    if loop.kind != "serial":
        raise error(
            "E0404",
            f"`{step}` needs a serial loop, but `{axis_of(loop.var)}` of `{stage_of(loop.var)}` is already {loop.kind}",
            span,
            help=f"put `.{step}(…)` before `.{loop.kind}({axis_of(loop.var)})`",
        )


ONE = index(1)
