"""Tiles of sums that nothing reads are not computed.

    phase s: for i.o: for j.o: for k: unroll i.i: vector j.i: s[i, j] += A[i, k] * A[j, k]
    phase y: y[i, j] = if j <= i then 2 * s[i, j] else c[i, j]
    ->       for i.o: for j.o: if j.o*16 <= i.o*12 + 11: for k: …

What is read where a condition on its own place holds is needed there alone: the half below a diagonal, a band around it. The rest of the
buffer keeps what was in it; the reader chooses the other value there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tridsl.dtypes import INDEX
from tridsl.ir.affine import Interval, Polynomial, interval, normal_form, to_expression
from tridsl.ir.expr import COMPARE, Binary, BinaryOp, Expr, Load, Node, Select, Var, add, binary, index, mul, sub
from tridsl.ir.loop import Accumulate, Block, For, If, Kernel, Phase, Stmt, Store
from tridsl.ir.walk import children, variables, walk
from tridsl.structs import dataclass, replace

NEAR = {"le": -1, "lt": -1, "ge": 1, "gt": 1}
"""Comparisons with zero that hold somewhere in a tile where they hold for its least (-1) or greatest (1) value."""


ORDINARY = ("serial", "parallel", "unroll", "vector")


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """An element at `place` is read only where `Σ factors · place + constant` compares so with 0."""

    op: BinaryOp
    factors: tuple[int, ...]
    constant: int


def unread_tiles(kernel: Kernel) -> Kernel:
    """For sums in a phase of their own, all of whose readers ask the same of the place."""
    own = {b.name for b in kernel.scratch}
    for number, phase in enumerate(kernel.phases):
        found = [n for n in walk(phase) if isinstance(n, Accumulate)]
        if len(found) != 1 or len(found[0].targets) != 1 or found[0].targets[0].tensor not in own:
            continue
        if any(isinstance(n, For) and n.kind not in ORDINARY for n in walk(phase)):
            continue  # lanes of a group meet at barriers, whatever each of them needs
        name = found[0].targets[0].tensor
        others = [p for n, p in enumerate(kernel.phases) if n != number]
        need = None if _touches_elsewhere(others, name) else _need(others, name)
        if need is not None:
            made = replace(phase, body=_guarded(phase.body, need, found[0]))
            kernel = replace(kernel, phases=tuple(made if p is phase else p for p in kernel.phases))
    return kernel


def _touches_elsewhere(phases: list[Phase], name: str) -> bool:
    """Whether another phase does anything but read it in the values of plain stores."""
    stores = [n for p in phases for n in walk(p) if isinstance(n, Store)]
    read = sum(1 for s in stores for n in walk(s.value) if isinstance(n, Load) and n.tensor == name)
    every = sum(1 for p in phases for n in walk(p) if isinstance(n, Load) and n.tensor == name)
    return read != every or any(s.target.tensor == name for s in stores)


def _need(phases: list[Phase], name: str) -> Need | None:
    """What all reads have in common."""
    needs = {need for p in phases for s in walk(p) if isinstance(s, Store) for need in _needs(s.value, name, None)}
    return next(iter(needs)) if len(needs) == 1 else None


def _needs(value: Node, name: str, condition: Expr | None) -> Iterator[Need | None]:
    if isinstance(value, Load) and value.tensor == name:
        yield None if condition is None else _of_place(condition, value)
    if isinstance(value, Select) and isinstance(value.condition, Binary) and value.condition.op in NEAR and value.condition.a.dtype == INDEX:
        yield from _needs(value.condition, name, condition)
        yield from _needs(value.a, name, value.condition)
        yield from _needs(value.b, name, condition)
        return
    for child in children(value):
        yield from _needs(child, name, condition)


def _of_place(condition: Expr, load: Load) -> Need | None:
    """The condition as one on the place that is read, where it is linear in it."""
    assert isinstance(condition, Binary) and condition.op in COMPARE
    left = sub(condition.a, condition.b)
    factors = []
    for place in load.index:
        variable = next((v for v in sorted(variables(place)) if normal_form(place).coefficient(v) == 1), None)
        factor = 0 if variable is None else normal_form(left).coefficient(variable)
        if factor is None:
            return None
        factors.append(factor)
        left = sub(left, mul(index(factor), place))
    rest = normal_form(left)
    if rest.terms or not any(factors):
        return None
    return Need(op=condition.op, factors=tuple(factors), constant=rest.constant)


def _guarded(block: Block, need: Need, sum_: Accumulate) -> Block:
    """The condition in front of the loops of a tile: those that combine, are written out, or lie in lanes."""
    out: list[Stmt] = []
    for statement in block:
        if isinstance(statement, For) and any(n is sum_ for n in walk(statement)):
            tile = [n for n in walk(statement) if isinstance(n, For)]
            if statement.reduce and all(n.reduce or n.kind in ("unroll", "vector") for n in tile) and not _others(statement):
                condition = _somewhere(need, sum_, tile)
                out.append(statement if condition is None else If(condition=condition, then=(statement,), otherwise=()))
                continue
            out.append(replace(statement, body=_guarded(statement.body, need, sum_)))
        else:
            out.append(statement)
    return tuple(out)


def _others(loop: For) -> list[Stmt]:
    """Statements of the nest that are neither loops nor the sum."""
    return [n for n in walk(loop) if isinstance(n, Store | If)]


def _somewhere(need: Need, sum_: Accumulate, tile: list[For]) -> Expr | None:
    """Whether some element of the tile is needed, in terms of the loops around it; None where that is not known."""
    inside: dict[str, Interval] = {}
    for loop in tile:
        most = interval(loop.extent, dict[str, Interval]())[1] if loop.bound is None else loop.bound
        inside[loop.var] = (0, None if most is None else max(0, most - 1))
    place: Expr = index(need.constant)
    for factor, at in zip(need.factors, sum_.targets[0].index):
        place = add(place, mul(index(factor), at))
    form = normal_form(place)
    own = [m for m, _ in form.terms if any(isinstance(a, Var) and a.name in inside for a in m)]
    moving = Polynomial(terms=tuple((m, c) for m, c in form.terms if m in own), constant=0)
    low, high = interval(to_expression(moving), inside)
    extreme = low if NEAR[need.op] < 0 else high
    around = tuple((m, c) for m, c in form.terms if m not in own)
    if extreme is None or not around:
        return None
    return binary(need.op, to_expression(Polynomial(terms=around, constant=form.constant + extreme)), index(0))
