"""A loop that touches only padded local storage along its variable runs to its bound.

    for i.i < min(12, M - i.o*12): acc[i.i, …] += A.pack[k, i.i] * …     ->     for i.i < 12: …

What it computes past the end lands in padding that nobody reads, and the inner loops become constant.
"""

from __future__ import annotations

from tridsl.ir.affine import Interval, constant, interval, normal_form, to_expression
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Check, Copy, For, If, Kernel, Mma, Ref
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.schedule.nest import trip_bound
from tridsl.structs import replace


def pad_tiles(kernel: Kernel) -> Kernel:
    """Extends every unrolled, vector or lane loop that may be."""
    nodes = [n for p in kernel.phases for n in walk(p)]
    padded = {n.buffer.name: n.buffer.padded for n in nodes if isinstance(n, Alloc) and n.buffer.padded}
    sizes = {n.buffer.name: tuple(map(constant, n.buffer.shape)) for n in nodes if isinstance(n, Alloc) and n.buffer.padded}
    ranges: dict[str, Interval] = {n.var: (0, None if (most := trip_bound(n)) is None else max(0, most - 1)) for n in nodes if isinstance(n, For)}
    shapes = {p.name: p.shape for p in kernel.params if isinstance(p, Tensor)}

    def extend(loop: For) -> For:
        if isinstance(loop.extent, Const) or loop.bound is None:
            return loop
        if loop.reduce:
            return replace(loop, extent=index(loop.bound)) if _adds_zeros(loop, padded, shapes) else loop
        if loop.kind not in ("unroll", "vector", "lane"):
            return loop
        return replace(loop, extent=index(loop.bound)) if _harmless(loop, loop.bound, padded, sizes, ranges) else loop

    return replace(kernel, phases=rewrite(kernel.phases, {For: extend}))


def _adds_zeros(loop: For, padded: dict[str, tuple[bool, ...]], shapes: dict[str, tuple[Expr, ...]]) -> bool:
    """The depth of an instruction with a factor from a panel filled with zeros, and another that may be read there: more of it adds 0."""
    statement = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(statement, Accumulate) or statement.intrinsic is None:
        return False
    value = statement.values[0]
    if not isinstance(value, Binary) or value.op != "mul":
        return False
    here, bound = Var(name=loop.var), loop.bound or 0

    def zero(load: Load) -> bool:
        flags = padded.get(load.tensor, ())
        axes = [axis for axis, place in enumerate(load.index) if loop.var in variables(place)]
        return bool(axes) and all(axis < len(flags) and flags[axis] and _is_own(load.index[axis], here) for axis in axes)

    def inside(load: Load) -> bool:
        axes = [axis for axis, place in enumerate(load.index) if loop.var in variables(place)]
        extents = [shapes.get(load.tensor, ())[axis : axis + 1] for axis in axes]
        return all(load.index[axis] == here and n and isinstance(n[0], Const) and int(n[0].value) >= bound for axis, n in zip(axes, extents))

    factors = [[n for n in walk(factor) if isinstance(n, Load)] for factor in (value.a, value.b)]
    filled = [len(loads) == 1 and zero(loads[0]) for loads in factors]
    return any(filled) and all(zero(load) or inside(load) for loads in factors for load in loads)


def _is_own(place: Expr, here: Var) -> bool:
    """The variable itself, or (in an interleaved panel) the number of its group or its number there."""
    return place == here or (isinstance(place, Binary) and place.op in ("floordiv", "mod") and place.a == here and isinstance(place.b, Const))


def _harmless(
    loop: For, bound: int, padded: dict[str, tuple[bool, ...]], sizes: dict[str, tuple[int | None, ...]], ranges: dict[str, Interval]
) -> bool:  # fmt: skip
    written = False
    for statement in loop.body:
        for node in walk(statement):
            if isinstance(node, Append | Check | Copy | If):
                return False
            if isinstance(node, For) and loop.var in variables(node.extent):
                return False
            if isinstance(node, Load | Ref):
                for axis, place in enumerate(node.index):
                    if loop.var not in variables(place):
                        continue
                    flags = padded.get(node.tensor, ())
                    if axis >= len(flags) or not flags[axis] or not _has_room(place, loop.var, bound, sizes[node.tensor][axis], ranges):
                        return False
                if isinstance(node, Ref):
                    written = written or any(loop.var in variables(i) for i in node.index)
                    if not any(loop.var in variables(i) for i in node.index):
                        return False
            if isinstance(node, Mma):
                return False
    return written


def _has_room(place: Expr, variable: str, bound: int, size: int | None, ranges: dict[str, Interval]) -> bool:
    """Whether `place` stays inside its axis while the variable runs to the bound: `q.o*8 + q.i` in a panel of whole tiles."""
    if place == Var(name=variable):
        return True
    whole = normal_form(place)
    most = interval(to_expression(whole.without([variable])), ranges)[1]
    return whole.coefficient(variable) == 1 and size is not None and most is not None and most + bound <= size
