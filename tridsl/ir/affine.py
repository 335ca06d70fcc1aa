"""Index algebra: the only place that knows that `i*32 + j - j` is `i*32`.

An i64 expression has a normal form, a sum of integer multiples of monomials. A monomial is a sorted tuple of atoms; an atom is
anything this module does not look into (a variable, a load, a floor division, a min…), with its own parts normalised.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache

from tridsl.dtypes import BOOL, INDEX
from tridsl.ir.expr import Binary, BinaryOp, Const, Expr, Lead, Select, Unary, Var, add, binary, index, mul, sub
from tridsl.ir.walk import map_children, variables
from tridsl.structs import dataclass

Monomial = tuple[Expr, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """`constant` + sum of `coefficient * product(monomial)`; `terms` sorted, coefficients non-zero."""

    terms: tuple[tuple[Monomial, int], ...]
    constant: int = 0

    def coefficient(self, variable: str) -> int | None:
        """The constant factor of `variable`, 0 when absent, None when it occurs in any other way than linearly."""
        found = 0
        for monomial, factor in self.terms:
            if monomial == (Var(name=variable),):
                found = factor
            elif any(variable in variables(atom) for atom in monomial):
                return None
        return found

    def without(self, names: Iterable[str]) -> Polynomial:
        """The part that mentions none of `names`."""
        names = set(names)
        kept = tuple((m, c) for m, c in self.terms if not any(names & variables(atom) for atom in m))
        return Polynomial(terms=kept, constant=self.constant)


REMEMBERED = 1 << 12
"""Expressions whose texts and normal forms are kept: passes ask for those of the same few hundred again and again."""


@lru_cache(REMEMBERED)
def _key(atom: Expr) -> str:
    return atom.name if isinstance(atom, Var) else repr(atom)


def _polynomial(terms: dict[Monomial, int], constant: int) -> Polynomial:
    kept = [(m, c) for m, c in terms.items() if c]
    if len(kept) > 1:
        kept.sort(key=lambda t: tuple(map(_key, t[0])))
    return Polynomial(terms=tuple(kept), constant=constant)


@lru_cache(REMEMBERED)
def normal_form(expression: Expr) -> Polynomial:
    """The polynomial of an i64 expression."""
    return _join_divisions(_raw_form(expression))


def _raw_form(expression: Expr) -> Polynomial:
    match expression:
        case Const(value=value):
            return Polynomial(terms=(), constant=int(value))
        case Binary(op="add" | "sub" as op, a=a, b=b):
            return _sum(_raw_form(a), _raw_form(b), 1 if op == "add" else -1)
        case Binary(op="mul", a=a, b=b):
            return _product(_raw_form(a), _raw_form(b))
        case Unary(op="neg", a=a):
            return _sum(Polynomial(terms=()), _raw_form(a), -1)
        case Var():
            return Polynomial(terms=(((expression,), 1),))
    atom = map_children(expression, lambda child: simplify_index(child) if getattr(child, "dtype", None) == INDEX else child)
    if isinstance(atom, Binary):
        folded = _fold_division(atom)
        if not (isinstance(folded, Binary) and folded.op == atom.op):
            return normal_form(folded)
        atom = folded
    return Polynomial(terms=(((atom,), 1),))


def _join_divisions(polynomial: Polynomial) -> Polynomial:
    """`(x // n)*n + x % n` is `x` (what fusing two loops leaves behind in a contiguous access), times any factor."""
    terms = dict(polynomial.terms)
    for monomial, factor in polynomial.terms:
        for position, atom in enumerate(monomial):
            if not (isinstance(atom, Binary) and atom.op == "mod"):
                continue
            rest = monomial[:position] + monomial[position + 1 :]
            quotient = Binary(op="floordiv", a=atom.a, b=atom.b, dtype=INDEX)
            whole = _product(Polynomial(terms=(((*rest, quotient), factor),)), _raw_form(atom.b))
            if len(whole.terms) != 1 or whole.constant:
                continue
            partner, scale = tuple(sorted(whole.terms[0][0], key=_key)), whole.terms[0][1]
            if terms.get(partner) != scale:
                continue
            del terms[partner], terms[monomial]
            joined = _product(Polynomial(terms=((rest, factor),)) if rest else Polynomial(terms=(), constant=factor), _raw_form(atom.a))
            return _join_divisions(_sum(_polynomial(terms, polynomial.constant), joined, 1))
    return polynomial


def _sum(a: Polynomial, b: Polynomial, sign: int) -> Polynomial:
    terms = dict(a.terms)
    for monomial, factor in b.terms:
        terms[monomial] = terms.get(monomial, 0) + sign * factor
    return _polynomial(terms, a.constant + sign * b.constant)


def _product(a: Polynomial, b: Polynomial) -> Polynomial:
    terms: dict[Monomial, int] = {}
    left = [*a.terms, ((), a.constant)] if a.constant else list(a.terms)
    right = [*b.terms, ((), b.constant)] if b.constant else list(b.terms)
    for m, c in left:
        for n, d in right:
            key = tuple(sorted((*m, *n), key=_key))
            terms[key] = terms.get(key, 0) + c * d
    constant = terms.pop((), 0)
    return _polynomial(terms, constant)


def _fold_division(node: Binary) -> Expr:
    """(c*e + r) // c and % c, where the multiple of c separates exactly: floor division distributes over it."""
    if node.op not in ("floordiv", "mod") or not isinstance(node.b, Const) or int(node.b.value) <= 0:
        return binary(node.op, node.a, node.b) if node.op in ("floordiv", "mod", "min", "max") else node
    divisor = int(node.b.value)
    poly = normal_form(node.a)
    whole = {m: c // divisor for m, c in poly.terms if c % divisor == 0}
    rest = {m: c for m, c in poly.terms if c % divisor}
    quotient, remainder = divmod(poly.constant, divisor)
    inner = to_expression(_polynomial(rest, remainder))
    if node.op == "mod":
        return binary("mod", inner, node.b)
    if not whole and not quotient:
        return binary("floordiv", inner, node.b)
    return add(to_expression(_polynomial(whole, quotient)), binary("floordiv", inner, node.b))


def to_expression(polynomial: Polynomial) -> Expr:
    """A readable expression: positive terms first, then subtractions, the constant last (or first, when it is all there is
    to subtract from). Numbers wrap as i64 does; the least one has no opposite and is added."""
    constant = _wrapped(polynomial.constant)
    terms = [(m, _wrapped(c)) for m, c in polynomial.terms]
    leading = constant > 0 and bool(terms) and all(c < 0 for _, c in terms)
    result: Expr | None = index(constant) if leading else None
    for monomial, factor in sorted(terms, key=lambda t: t[1] < 0):
        product: Expr = monomial[0]
        for atom in monomial[1:]:
            product = mul(product, atom)
        if result is None:
            result = mul(product, index(factor))
        elif _LEAST < factor < 0:
            result = sub(result, mul(product, index(-factor)))
        else:
            result = add(result, mul(product, index(factor)))
    if result is None:
        return index(constant)
    if leading:
        return result
    return sub(result, index(-constant)) if _LEAST < constant < 0 else add(result, index(constant))


_LEAST = -(1 << 63)


def _wrapped(number: int) -> int:
    return (number - _LEAST) % (1 << 64) + _LEAST


def simplify_index(expression: Expr) -> Expr:
    """The expression of the normal form (the same object when it is already that)."""
    if isinstance(expression, Const | Var):
        return expression
    simpler = to_expression(normal_form(expression))
    return expression if simpler == expression else simpler


def equal(a: Expr, b: Expr) -> bool:
    """Whether the normal forms agree (sound, not complete)."""
    return a == b or normal_form(a) == normal_form(b)


def constant(expression: Expr) -> int | None:
    """The value when the expression is the same for all variables, else None."""
    poly = normal_form(expression)
    return None if poly.terms else poly.constant


# Intervals. Ends are inclusive; None means unbounded.

Interval = tuple[int | None, int | None]


def interval(expression: Expr, ranges: Mapping[str, Interval]) -> Interval:
    """Inclusive numeric bounds, given inclusive bounds of variables (a variable that is missing is unbounded)."""
    return _bounds(normal_form(expression), ranges)


def _bounds(poly: Polynomial, ranges: Mapping[str, Interval]) -> Interval:
    low: int | None = poly.constant
    high: int | None = poly.constant
    for monomial, factor in poly.terms:
        a, b = 1, 1
        bounds: Interval = (a, b)
        for atom in monomial:
            bounds = _multiply(bounds, _atom_interval(atom, ranges))
        scaled = _multiply(bounds, (factor, factor))
        low = None if low is None or scaled[0] is None else low + scaled[0]
        high = None if high is None or scaled[1] is None else high + scaled[1]
    return low, high


def _multiply(x: Interval, y: Interval) -> Interval:
    xs = [v if v is not None else s * float("inf") for v, s in zip(x, (-1, 1))]
    ys = [v if v is not None else s * float("inf") for v, s in zip(y, (-1, 1))]
    products = [0 if a == 0 or b == 0 else a * b for a in xs for b in ys]
    low, high = min(products), max(products)
    return (None if low == -float("inf") else int(low), None if high == float("inf") else int(high))


def _atom_interval(atom: Expr, ranges: Mapping[str, Interval]) -> Interval:
    match atom:
        case Var(name=name):
            return ranges.get(name, (None, None))
        case Lead(count=count):
            return 0, count - 1
        case Binary(op="min", a=a, b=b):
            x, y = interval(a, ranges), interval(b, ranges)
            highs = [v for v in (x[1], y[1]) if v is not None]
            return (None if x[0] is None or y[0] is None else min(x[0], y[0]), min(highs, default=None))
        case Binary(op="max", a=a, b=b):
            x, y = interval(a, ranges), interval(b, ranges)
            lows = [v for v in (x[0], y[0]) if v is not None]
            return (max(lows, default=None), None if x[1] is None or y[1] is None else max(x[1], y[1]))
        case Binary(op="floordiv", a=a, b=Const(value=c)) if c > 0:
            low, high = interval(a, ranges)
            return (None if low is None else low // int(c), None if high is None else high // int(c))
        case Binary(op="mod", a=a, b=Const(value=c)) if c > 0:
            low, high = interval(a, ranges)
            if low is not None and high is not None and low // int(c) == high // int(c):
                return low % int(c), high % int(c)
            return 0, int(c) - 1
    return None, None


def evaluate_index(expression: Expr, values: Mapping[str, int]) -> int:
    """Value of an i64 expression; KeyError for a variable that `values` lacks."""
    match expression:
        case Const(value=value):
            return int(value)
        case Var(name=name):
            return int(values[name])
        case Unary(op="neg", a=a):
            return -evaluate_index(a, values)
        case Unary(op="abs", a=a):
            return abs(evaluate_index(a, values))
        case Binary(op=op, a=a, b=b):
            result = binary(op, index(evaluate_index(a, values)), index(evaluate_index(b, values)))
            if isinstance(result, Const):
                return int(result.value)
    raise TypeError(f"not an index expression: {expression!r}")


def fold_ranges(expression: Expr, ranges: Mapping[str, Interval]) -> Expr:
    """`expression` without the min, max, mod, floor division and comparisons that the ranges decide.

    For any expression; only its i64 parts are looked into. Returns the same object when nothing was decided.
    """
    new = map_children(expression, lambda child: fold_ranges(child, ranges))
    if isinstance(new, Binary) and new.a.dtype == INDEX:
        decided = _decide(new, ranges)
        if decided is not None:
            return decided
    if isinstance(new, Binary) and new.op in ("and", "or"):
        return _fold_logic(new)
    if isinstance(new, Unary) and new.op == "not" and isinstance(new.a, Const):
        return Const(value=not new.a.value, dtype=new.dtype)
    if isinstance(new, Select) and isinstance(new.condition, Const):
        return new.a if new.condition.value else new.b
    return new


def _fold_logic(node: Binary) -> Expr:
    for this, other in ((node.a, node.b), (node.b, node.a)):
        if isinstance(this, Const) and this.dtype == BOOL:
            absorbs = bool(this.value) == (node.op == "or")
            return this if absorbs else other
    return node


def at_most(a: Expr, b: Expr, ranges: Mapping[str, Interval]) -> bool:
    """Whether `a <= b` is certain. Looks through min and max on both sides, so clamps of one value compare."""
    return _not_positive(normal_form(sub(a, b)), ranges, LOOKED_THROUGH)


LOOKED_THROUGH = 4
"""Clamps of one comparison that are looked into; each doubles the cases."""


def _not_positive(polynomial: Polynomial, ranges: Mapping[str, Interval], depth: int) -> bool:
    high = _bounds(polynomial, ranges)[1]
    if high is not None and high <= 0:
        return True
    split = clamp_in(polynomial) if depth else None
    if split is None:
        return False
    op, cases = split
    parts = (_not_positive(normal_form(case), ranges, depth - 1) for case in cases)
    return any(parts) if op == "min" else all(parts)


def clamp_in(polynomial: Polynomial) -> tuple[BinaryOp, tuple[Expr, Expr]] | None:
    """`p + min(a, b)` as the min of `p + a` and `p + b`, `p - min(a, b)` as the max of `p - a` and `p - b`; None without a
    clamp that stands alone in its term."""
    for term in polynomial.terms:
        (monomial, factor) = term
        atom = monomial[0]
        if len(monomial) == 1 and abs(factor) == 1 and isinstance(atom, Binary) and atom.op in ("min", "max"):
            rest = to_expression(Polynomial(terms=tuple(t for t in polynomial.terms if t != term), constant=polynomial.constant))
            if factor == 1:
                return atom.op, (add(rest, atom.a), add(rest, atom.b))
            return "max" if atom.op == "min" else "min", (sub(rest, atom.a), sub(rest, atom.b))
    return None


def _decide(node: Binary, ranges: Mapping[str, Interval]) -> Expr | None:
    if node.op in ("min", "max", "eq", "ne", "lt", "le", "gt", "ge"):
        low, high = interval(sub(node.a, node.b), ranges)
        not_above, not_below = high is not None and high <= 0, low is not None and low >= 0
        below, above = high is not None and high < 0, low is not None and low > 0
        if node.op in ("min", "max"):
            small, large = (node.a, node.b) if node.op == "min" else (node.b, node.a)
            return node.a if at_most(small, large, ranges) else node.b if at_most(large, small, ranges) else None
        answers = {
            "lt": (below, not_below), "le": (not_above, above), "gt": (above, not_above), "ge": (not_below, below),
            "eq": (low == high == 0, below or above), "ne": (below or above, low == high == 0),
        }  # fmt: skip
        true, false = answers[node.op]
        return Const(value=bool(true), dtype=BOOL) if true or false else None
    if node.op in ("floordiv", "mod") and isinstance(node.b, Const) and int(node.b.value) > 0:
        low, high = interval(node.a, ranges)
        divisor = int(node.b.value)
        if low is not None and high is not None and low // divisor == high // divisor:
            quotient = low // divisor
            return index(quotient) if node.op == "floordiv" else sub(node.a, index(quotient * divisor))
        folded = _fold_division(node)
        return None if folded == node else folded
    return None


def sweep(expression: Expr, loops: Iterable[tuple[str, Expr]]) -> tuple[Expr, Expr] | None:
    """Symbolic inclusive (low, high) of `expression` while each loop variable runs over `0..extent`.

    `loops` are (variable, extent), outermost first; other variables stay. None when the dependence is not monotone.
    """
    low = high = simplify_index(expression)
    for variable, extent in reversed(list(loops)):
        last = sub(extent, index(1))
        lows, highs = _extremes(low, variable, last), _extremes(high, variable, last)
        if lows is None or highs is None:
            return None
        low, high = lows[0], highs[1]
    return simplify_index(low), simplify_index(high)


def _extremes(expression: Expr, variable: str, last: Expr) -> tuple[Expr, Expr] | None:
    """(low, high) over `variable` in 0..last."""
    if variable not in variables(expression):
        return expression, expression
    poly = normal_form(expression)
    moving = tuple((m, c) for m, c in poly.terms if any(variable in variables(atom) for atom in m))
    split = clamp_in(Polynomial(terms=moving)) if len(moving) > 1 else None
    if split is not None:  # i*8 + min(8, N - i*8) has one extreme, not two terms that have theirs at different ends
        op, cases = split
        rest = to_expression(poly.without([variable]))
        x, y = (_extremes(simplify_index(add(rest, case)), variable, last) for case in cases)
        return None if x is None or y is None else (binary(op, x[0], y[0]), binary(op, x[1], y[1]))
    low: Expr = to_expression(poly.without([variable]))
    high = low
    for monomial, factor in poly.terms:
        if not any(variable in variables(atom) for atom in monomial):
            continue
        if len(monomial) != 1:
            return None
        ends = _atom_extremes(monomial[0], variable, last)
        if ends is None:
            return None
        small, large = ends if factor > 0 else (ends[1], ends[0])
        low, high = add(low, mul(small, index(factor))), add(high, mul(large, index(factor)))
    return simplify_index(low), simplify_index(high)


def _atom_extremes(atom: Expr, variable: str, last: Expr) -> tuple[Expr, Expr] | None:
    match atom:
        case Var():
            return index(0), last
        case Binary(op="min" | "max" as op, a=a, b=b):
            x, y = _extremes(a, variable, last), _extremes(b, variable, last)
            return None if x is None or y is None else (binary(op, x[0], y[0]), binary(op, x[1], y[1]))
        case Binary(op="floordiv", a=a, b=Const(value=c)) if c > 0:
            ends = _extremes(a, variable, last)
            return None if ends is None else (binary("floordiv", ends[0], atom.b), binary("floordiv", ends[1], atom.b))
    return None


def without_clamps(expression: Expr, inner: Iterable[str]) -> Expr:
    """`expression` with `min(e, c)` and `max(e, c)` replaced by `e` where only `e` mentions `inner` variables.

    A clamp never widens the distance between two points, so an extent computed from this is an upper bound.
    """
    names = set(inner)

    def strip(node: Expr) -> Expr:
        new = map_children(node, lambda child: strip(child))
        if isinstance(new, Binary) and new.op in ("min", "max"):
            first, second = bool(names & variables(new.a)), bool(names & variables(new.b))
            if first != second:
                return new.a if first else new.b
        return new

    return strip(expression)
