"""Blocks of elements that a mask hides whole: `if t > q + c then -inf else s` is -inf for every q of a block from some t on.

An element whose base is -inf adds f(-inf, m) = 0 times something to each rescaled sum, and does not move the key: it need not be
visited. (A NaN or infinity that only hidden elements hold is then not multiplied by that 0.)
"""

from __future__ import annotations

from collections.abc import Iterator

from tridsl.dtypes import INDEX
from tridsl.ir.affine import Polynomial, fold_ranges, normal_form, sweep, to_expression
from tridsl.ir.expr import Binary, Const, Expr, Select, Unary, add, binary, index, minimum, mul, sub
from tridsl.ir.loop import For
from tridsl.schedule.rescaled import Rescaled
from tridsl.structs import replace

HIDING = {"max": -float("inf"), "min": float("inf")}
"""What an element that is not there offers to a running max or min."""


def visible_blocks(found: Rescaled, blocks: For, elements: For, around: tuple[For, ...]) -> Expr:
    """The number of blocks up to the last in which some element is visible; `blocks.extent` where that is not known.

    before:  t.o < 16, hidden where t.o*64 + t.i > q.o*32 + q         after:  t.o < min(16, (q.o*32 + 31) // 64 + 1)
    """
    extent = blocks.extent
    for a, b in _hidden_above(found):
        last = _last_visible(normal_form(sub(a, b)), blocks, elements, around)
        if last is not None:
            extent = minimum(extent, binary("max", add(last, index(1)), index(0)))
    return extent


def _hidden_above(found: Rescaled) -> Iterator[tuple[Expr, Expr]]:
    """Pairs (a, b) of index expressions where a > b hides the element."""
    base = fold_ranges(found.base, {})
    hidden = hidden_arms(base, found.op)
    if isinstance(base, Select) and any(hidden):
        yield from _greater(base.condition, hidden[0])


def hidden_arms(base: Expr, op: str) -> tuple[bool, bool]:
    """Which sides of a choice are an element that is not there."""
    arms = (base.a, base.b) if isinstance(base, Select) else ()
    first, second = (isinstance(arm, Const) and arm.value == HIDING[op] for arm in arms) if arms else (False, False)
    return first, second and not first


def _greater(condition: Expr, holds: bool) -> Iterator[tuple[Expr, Expr]]:
    """(a, b) with a > b for each comparison that alone makes `condition` what it is to be."""
    if isinstance(condition, Unary) and condition.op == "not":
        yield from _greater(condition.a, not holds)
    elif isinstance(condition, Binary) and condition.op == ("or" if holds else "and"):
        yield from _greater(condition.a, holds)
        yield from _greater(condition.b, holds)
    elif isinstance(condition, Binary) and condition.op in ORDER and condition.a.dtype == INDEX:
        below, strict = ORDER[condition.op]
        if not holds:
            below, strict = not below, not strict
        a, b = (condition.b, condition.a) if below else (condition.a, condition.b)
        yield a, b if strict else sub(b, index(1))


ORDER = {"lt": (True, True), "le": (True, False), "gt": (False, True), "ge": (False, False)}
"""Whether the left side is the smaller one, and strictly."""


def _below(difference: Polynomial) -> Polynomial:
    """`difference` or less: the rows of a tile that begins early (`split(…, tail=shift)`) are taken for those it would have had."""
    least = to_expression(Polynomial(terms=(), constant=difference.constant))
    for monomial, factor in difference.terms:
        atom = monomial[0]
        early = len(monomial) == 1 and factor < 0 and isinstance(atom, Binary) and atom.op == "min" and not isinstance(atom.a, Const)
        kept = atom.a if early and isinstance(atom, Binary) else to_expression(Polynomial(terms=((monomial, 1),)))
        least = add(least, mul(index(factor), kept))
    return normal_form(least)


def _last_visible(difference: Polynomial, blocks: For, elements: For, around: tuple[For, ...]) -> Expr | None:
    """The last block in which `difference` <= 0 somewhere; it must grow from block to block."""
    difference = _below(difference)
    step = difference.coefficient(blocks.var)
    if step is None or step <= 0:
        return None
    rest = to_expression(difference.without([blocks.var]))
    ends = sweep(rest, [(l.var, l.extent) for l in (*around, replace(elements, extent=index(1)))])
    if ends is None:
        return None
    return binary("floordiv", sub(index(0), ends[0]), index(step))
