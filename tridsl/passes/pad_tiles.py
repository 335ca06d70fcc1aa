"""A loop that touches only padded local storage along its variable runs to its bound.

    for i.i < min(12, M - i.o*12): acc[i.i, …] += A.pack[k, i.i] * …     ->     for i.i < 12: …

What it computes past the end lands in padding that nobody reads, and the inner loops become constant.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.ir.expr import Const, Load, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Check, Copy, For, If, Kernel, Mma, Ref
from tridsl.ir.walk import rewrite, variables, walk


def pad_tiles(kernel: Kernel) -> Kernel:
    """Extends every unrolled, vector or lane loop that may be."""
    padded = {
        n.buffer.name: n.buffer.padded
        for p in kernel.phases
        for n in walk(p)
        if isinstance(n, Alloc) and n.buffer.padded
    }

    def extend(loop: For) -> For:
        if isinstance(loop.extent, Const) or loop.bound is None:
            return loop
        if loop.reduce:
            return replace(loop, extent=index(loop.bound)) if _adds_zeros(loop, padded) else loop
        if loop.kind not in ("unroll", "vector", "lane"):
            return loop
        return replace(loop, extent=index(loop.bound)) if _harmless(loop, padded) else loop

    return replace(kernel, phases=rewrite(kernel.phases, {For: extend}))


def _adds_zeros(loop: For, padded: dict[str, tuple[bool, ...]]) -> bool:
    """The depth of an instruction whose two operands come from panels filled with zeros: more of it adds 0 * 0."""
    statement = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(statement, Accumulate) or statement.intrinsic is None:
        return False
    here = Var(name=loop.var)
    loads = [n for n in walk(statement.values[0]) if isinstance(n, Load)]
    return all(
        any(place == here and axis < len(padded.get(load.tensor, ())) for axis, place in enumerate(load.index)) for load in loads
    )


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
