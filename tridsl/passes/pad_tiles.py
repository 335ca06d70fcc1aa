"""A loop that touches only padded local storage along its variable runs to its bound.

    for i.i < min(12, M - i.o*12): acc[i.i, …] += A.pack[k, i.i] * …     ->     for i.i < 12: …

What it computes past the end lands in padding that nobody reads, and the inner loops become constant.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.ir.expr import Binary, Const, Expr, Load, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Check, Copy, For, If, Kernel, Mma, Ref
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, variables, walk


def pad_tiles(kernel: Kernel) -> Kernel:
    """Extends every unrolled, vector or lane loop that may be."""
    padded = {
        n.buffer.name: n.buffer.padded
        for p in kernel.phases
        for n in walk(p)
        if isinstance(n, Alloc) and n.buffer.padded
    }

    shapes = {p.name: p.shape for p in kernel.params if isinstance(p, Tensor)}

    def extend(loop: For) -> For:
        if isinstance(loop.extent, Const) or loop.bound is None:
            return loop
        if loop.reduce:
            return replace(loop, extent=index(loop.bound)) if _adds_zeros(loop, padded, shapes) else loop
        if loop.kind not in ("unroll", "vector", "lane"):
            return loop
        return replace(loop, extent=index(loop.bound)) if _harmless(loop, padded) else loop

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
        return any(place == here and axis < len(flags) and flags[axis] for axis, place in enumerate(load.index))

    def inside(load: Load) -> bool:
        axes = [axis for axis, place in enumerate(load.index) if loop.var in variables(place)]
        extents = [shapes.get(load.tensor, ())[axis : axis + 1] for axis in axes]
        return all(load.index[axis] == here and n and isinstance(n[0], Const) and int(n[0].value) >= bound for axis, n in zip(axes, extents))

    factors = [[n for n in walk(factor) if isinstance(n, Load)] for factor in (value.a, value.b)]
    filled = [len(loads) == 1 and zero(loads[0]) for loads in factors]
    return any(filled) and all(zero(load) or inside(load) for loads in factors for load in loads)


def _harmless(loop: For, padded: dict[str, tuple[bool, ...]]) -> bool:
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
                    if axis >= len(flags) or not flags[axis] or place != Var(name=loop.var):
                        return False
                if isinstance(node, Ref):
                    written = written or any(loop.var in variables(i) for i in node.index)
                    if not any(loop.var in variables(i) for i in node.index):
                        return False
            if isinstance(node, Mma):
                return False
    return written
