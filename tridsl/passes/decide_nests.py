"""A nest whose elements are chosen by a comparison is written twice where its place may decide for all of them.

    for t < 64 reduce: vector q < 64:                            if block*64 + 63 <= row*64:
      key[q] max= if block*64 + t > row*64 + q then -inf else s[t, q]   ->    for t: vector q: key[q] max= s[t, q]
                                                                else: … as it was …

Of a triangle cut into blocks only those on the diagonal are mixed; the others need neither the comparison of lanes nor the choice. (Loops
that can be cut where the answer changes are `partition_loops`' work; here loops around the nest, whose values it does not know, decide.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import INDEX
from tridsl.ir.affine import interval, sweep
from tridsl.ir.expr import Binary, BinaryOp, Const, Expr, Select, binary, both, index, sub
from tridsl.ir.loop import Accumulate, Block, For, If, Kernel, Stmt, Store
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.passes.partition_loops import LIMIT
from tridsl.structs import replace

FEWEST = 4
"""Iterations around the vectors of a nest from which asking once pays."""
LEAST, GREATEST = 0, 1
EVERYWHERE: dict[tuple[str, bool], tuple[int, BinaryOp]] = {("gt", False): (GREATEST, "le"), ("ge", False): (GREATEST, "lt"), ("lt", False): (LEAST, "ge"), ("le", False): (LEAST, "gt"),
              ("gt", True): (LEAST, "gt"), ("ge", True): (LEAST, "ge"), ("lt", True): (GREATEST, "lt"), ("le", True): (GREATEST, "le")}  # fmt: skip
"""Which end of a difference compares how with 0 where a comparison of it is false, or true, throughout."""


def decide_nests(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every such nest, in every phase, for devices with vector registers."""
    return kernel if not spec.vector_bits else replace(kernel, phases=tuple(replace(p, body=_block(p.body)) for p in kernel.phases))


def _block(block: Block) -> Block:
    out: list[Stmt] = []
    for statement in block:
        if isinstance(statement, For):
            twice = _twice(statement)
            out.append(replace(statement, body=_block(statement.body)) if twice is None else twice)
        elif isinstance(statement, If):
            out.append(replace(statement, then=_block(statement.then), otherwise=_block(statement.otherwise)))
        else:
            out.append(statement)
    return tuple(out)


def _twice(nest: For) -> If | None:
    loops = [n for n in walk(nest) if isinstance(n, For)]
    if nest.kind != "serial" or nest.carried or not any(l.kind == "vector" for l in loops):
        return None
    if any(not isinstance(n, For | Store | Accumulate) for n in walk(nest) if isinstance(n, Stmt)) or (_bounds(loops)[nest.var] or 0) < FEWEST:
        return None
    return written_twice(nest, frozenset(l.var for l in loops if l.kind == "vector"))


def _bounds(loops: Sequence[For]) -> dict[str, int | None]:
    return {l.var: l.bound if l.bound is not None else interval(l.extent, {})[1] for l in loops}


def written_twice(nest: For, lanes: frozenset[str], comparisons: int = 1) -> If | None:
    """`nest` without its comparisons (so many at most) where what is around it decides all of them, else as it is; None where there are none, or
    one that no such place decides. `lanes`: loops whose iterations are worked on together, which a comparison divides."""
    loops = [n for n in walk(nest) if isinstance(n, For)]
    bounds = _bounds(loops)
    most = [(name, index(bound)) for name, bound in bounds.items() if bound is not None]
    if len(most) < len(loops) or sum(1 for _ in walk(nest)) > LIMIT:
        return None
    chosen = dict(_choices(nest))
    if not 1 <= len(chosen) <= comparisons or len(set(_choices(nest))) > len(chosen):
        return None
    inside, decided = set(bounds), None
    for comparison, holds in chosen.items():
        difference = sub(comparison.a, comparison.b)
        ends = sweep(difference, most)
        if ends is None or not variables(difference) & lanes or not variables(difference) - inside or any(variables(e) & inside for e in ends):
            return None
        end, op = EVERYWHERE[comparison.op, holds]
        decided = both(decided, binary(op, ends[end], index(0)))

    def arm(node: Select) -> Expr:
        holds = chosen.get(node.condition) if isinstance(node.condition, Binary) else None
        return node if holds is None else node.a if holds else node.b

    return If(condition=decided, then=fresh((rewrite(nest, {Select: arm}),), ".decided"), otherwise=(nest,)) if decided is not None else None


def _choices(nest: For) -> Iterator[tuple[Binary, bool]]:
    """Comparisons that decide between a constant and something else, and what they are where it is the other."""
    for node in walk(nest):
        condition = node.condition if isinstance(node, Select) and isinstance(node.a, Const) != isinstance(node.b, Const) else None
        if isinstance(node, Select) and isinstance(condition, Binary) and (condition.op, True) in EVERYWHERE and condition.a.dtype == INDEX:
            yield condition, isinstance(node.b, Const)
