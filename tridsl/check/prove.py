"""Proves inequalities of i64 index arithmetic: is this access inside for all sizes that the contracts allow?

An expression becomes a polynomial over atoms (variables, and opaque terms such as `h // q`). An inequality `p >= 0` is
proved by eliminating atoms one after another, each by a bound that makes `p` smaller, until nothing negative remains:
an index by the end of its range, `a // b` by `b*(a//b) <= a <= b*(a//b) + b - 1`, a fact by subtracting it (the greedy form of
Fourier and Motzkin's elimination). Sound, not complete; "no" only means that a boundary or a contract must be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from tridsl.check.polynomials import Monomial, Poly, plus, quotient, scaled, split, subtract, tightened, times
from tridsl.dtypes import BOOL, INDEX
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Unary, Var, add, binary, index, mul, sub
from tridsl.ir.walk import variables, walk
from tridsl.structs import dataclass, replace

_DEPTH = 10
_STEPS = 1200


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What holds wherever an expression is evaluated.

    `ranges`: closed bounds of an atom (None: none known); `loads`: the same for every element of a tensor; `conditions`: bool expressions that are true (contracts, "this
    axis has points"). Every name of `sizes` is >= 0.
    """

    sizes: frozenset[str] = frozenset()
    ranges: tuple[tuple[Expr, Expr | None, Expr | None], ...] = ()
    conditions: tuple[Expr, ...] = ()
    loads: tuple[tuple[str, Expr, Expr], ...] = ()

    def inside(self, axes: Iterable[tuple[str, Expr, Expr]]) -> Facts:
        """The facts at a point of half-open `axes` (name, lo, hi): the index lies in its range, which is not empty."""
        ranges = self.ranges
        conditions = self.conditions
        for name, lo, hi in axes:
            ranges += ((Var(name=name), lo, sub(hi, index(1))),)
            conditions += (Binary(op="lt", a=lo, b=hi, dtype=BOOL),)
        return replace(self, ranges=ranges, conditions=conditions)


class Prover:
    """Answers for one set of facts."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._atoms: list[Expr] = []
        self._numbers: dict[Expr, int] = {}
        self._known: list[Poly] = []
        self._exact: dict[Expr, tuple[Expr, Expr]] = {}
        self._quotients: set[Expr] = set()
        self._low: dict[int, list[Poly]] = {}
        self._high: dict[int, list[Poly]] = {}
        self._proved: set[tuple[tuple[Monomial, int], ...]] = set()
        self._open: set[tuple[tuple[Monomial, int], ...]] = set()
        self._steps = 0
        self._nesting = 0
        conditions = [part for condition in facts.conditions for part in _conjuncts(condition)]
        for condition in conditions:
            self._learn_exact_division(condition, conditions)
        for atom, low, high in facts.ranges:
            number = self._number(atom)
            if low is not None:
                self._low.setdefault(number, []).append(self._poly(low))
            if high is not None:
                self._high.setdefault(number, []).append(self._poly(high))
        for condition in conditions:
            self._learn(condition)

    def at_least(self, a: Expr, b: Expr) -> bool:
        """Is `a >= b` at every point?"""
        self._steps = 0
        return self._nonnegative(subtract(self._poly(a), self._poly(b)), _DEPTH)

    def same(self, a: Expr, b: Expr) -> bool:
        """Is `a == b` everywhere?"""
        return a == b or not subtract(self._poly(a), self._poly(b)) or (self.at_least(a, b) and self.at_least(b, a))

    def holds(self, condition: Expr) -> bool:
        """Is the condition, a conjunction of comparisons of integers, true at every point?"""
        return all(self._comparison_holds(part) for part in _conjuncts(condition))

    def _comparison_holds(self, condition: Expr) -> bool:
        if condition in self._facts.conditions or condition == Const(value=True, dtype=BOOL):
            return True
        if not isinstance(condition, Binary) or condition.a.dtype != INDEX:
            return False
        a, b = condition.a, condition.b
        match condition.op:
            case "ge":
                return self.at_least(a, b)
            case "le":
                return self.at_least(b, a)
            case "gt":
                return self.at_least(a, add(b, index(1)))
            case "lt":
                return self.at_least(b, add(a, index(1)))
            case "eq":
                return self.same(a, b)
            case "ne":
                return self.at_least(a, add(b, index(1))) or self.at_least(b, add(a, index(1)))
        return False

    def extreme(self, e: Expr, *, upper: bool, keep: frozenset[str]) -> Expr | None:
        """A bound of `e` over the variables `keep` only: every index replaced by an end of its range. None: unknown."""
        p = self._poly(e)
        for _ in range(len(self._atoms) + 8):
            number = next(
                (n for m in p for n in m if not variables(self._atoms[n]) <= keep or _opaque(self._atoms[n])), None
            )
            if number is None:
                return self._expression(p)
            q, r, linear = split(p, number)
            grows = self.sign(q)
            if not linear or grows == 0:
                return None
            raised = (grows > 0) == upper
            divided = self._divided(self._atoms[number], raised, keep)
            bounds = self._bounds(number, low=not raised) if divided is None else [divided]
            if not bounds:
                return None
            p = plus(r, times(q, bounds[0]))
        return None

    def _divided(self, atom: Expr, upper: bool, keep: frozenset[str]) -> Poly | None:
        """A bound of `a // c` for a constant c > 0: of a, divided."""
        match atom:
            case Binary(op="floordiv", a=a, b=Const(value=value)) if value > 0:
                end = self.extreme(a, upper=upper, keep=keep)
                return None if end is None else self._poly(binary("floordiv", end, index(int(value))))
        return None

    def sign(self, q: Poly) -> int:
        """1 when `q >= 0`, -1 when `q <= 0` is proved, else 0."""
        self._steps = 0
        return self._grows(q)

    # Polynomials

    def _number(self, atom: Expr) -> int:
        number = self._numbers.get(atom)
        if number is None:
            number = self._numbers[atom] = len(self._atoms)
            self._atoms.append(atom)
        return number

    def _poly(self, e: Expr) -> Poly:
        if e in self._exact:
            a, b = self._exact[e]
            return times(self._poly(a), self._poly(b))
        form = normal_form(e)
        out: Poly = {(): form.constant} if form.constant else {}
        for monomial, coefficient in form.terms:
            term: Poly = {(): coefficient}
            for atom in monomial:
                term = times(term, self._poly(atom) if atom in self._exact else {(self._number(atom),): 1})
            out = plus(out, term)
        return out

    def _expression(self, p: Poly) -> Expr:
        total: Expr = index(0)
        for monomial, coefficient in sorted(p.items(), key=lambda item: -len(item[0])):
            term: Expr = index(abs(coefficient))
            for number in monomial:
                term = mul(term, self._atoms[number])
            total = add(total, term) if coefficient > 0 else sub(total, term)
        return total

    # Facts

    def _learn_exact_division(self, condition: Expr, conditions: list[Expr]) -> None:
        """`a % b == 0` with b != 0 makes `a` equal to `b * (a // b)`."""
        match condition:
            case Binary(op="eq", a=Binary(op="mod", a=Var() as a, b=b), b=Const(value=zero)) if zero == 0:
                divisors = {a.name} | {n for divisor, _ in self._exact.values() for n in variables(divisor)}
                dividends = {a.name} | {known.name for known in self._exact if isinstance(known, Var)}
                if a.name in divisors - {a.name} or variables(b) & dividends or not _nonzero(b, conditions):
                    return
                quotient = Binary(op="floordiv", a=a, b=b, dtype=INDEX)
                self._exact[a] = (b, quotient)
                self._quotients.add(quotient)

    def _learn(self, condition: Expr) -> None:
        if not isinstance(condition, Binary) or condition.a.dtype != INDEX:
            return
        a, b = self._poly(condition.a), self._poly(condition.b)
        one: Poly = {(): 1}
        match condition.op:
            case "le":
                learned = [subtract(b, a)]
            case "lt":
                learned = [subtract(subtract(b, a), one)]
            case "ge":
                learned = [subtract(a, b)]
            case "gt":
                learned = [subtract(subtract(a, b), one)]
            case "eq":
                learned = [subtract(a, b), subtract(b, a)]
            case _:
                return
        self._known += [p for p in learned if p and any(p)]
        for p in learned:
            self._learn_bound(p)
            self._learn_positive_factors(p)

    def _learn_bound(self, p: Poly) -> None:
        """`x + k >= 0` and `k - x >= 0` are ends of the range of the atom x (k a constant or any polynomial without x)."""
        for monomial, coefficient in p.items():
            if len(monomial) == 1 and abs(coefficient) == 1 and sum(monomial[0] in m for m in p) == 1:
                rest = {m: c for m, c in p.items() if m != monomial}
                constant = not any(rest)
                if coefficient == 1 and constant:
                    self._low.setdefault(monomial[0], []).insert(0, scaled(rest, -1))
                elif coefficient == -1 and constant:
                    self._high.setdefault(monomial[0], []).insert(0, rest)

    def _learn_positive_factors(self, p: Poly) -> None:
        """From `x*y - 1 >= 0` with x, y >= 0 follows x >= 1 and y >= 1."""
        if p.get((), 0) >= 0 or len(p) != 2:
            return
        monomial, coefficient = next((m, c) for m, c in p.items() if m)
        if coefficient > 0 and all(self._never_negative(n) for n in monomial):
            for number in monomial:
                self._low.setdefault(number, []).insert(0, {(): 1})

    def _never_negative(self, number: int) -> bool:
        """Non-negative by its form alone."""
        atom = self._atoms[number]
        match atom:
            case Var():
                return atom.name in self._facts.sizes
            case Binary(op="mod"):
                return _certain(self._poly(atom.b), self._never_negative)
            case Binary(op="floordiv"):
                if not _certain(self._poly(atom.b), self._never_negative):
                    return False
                if atom in self._quotients:  # its dividend is written with the quotient itself
                    return variables(atom.a) <= self._facts.sizes
                return _certain(self._poly(atom.a), self._never_negative)
        return False

    def _bounds(self, number: int, *, low: bool) -> list[Poly]:
        """Known bounds of an atom on one side, tightest first where that is known."""
        atom = self._atoms[number]
        found = list((self._low if low else self._high).get(number, ()))
        match atom:
            case Var() if low and atom.name in self._facts.sizes:
                found.append({})
            case Binary(op="mod"):
                divisor = self._poly(atom.b)
                if self._positive(divisor):
                    found.append({} if low else subtract(divisor, {(): 1}))
                    if not low and self._aside(self._poly(atom.a)):
                        found.append(self._poly(atom.a))
                elif low and self._aside(divisor):
                    found.append({})
            case Binary(op="floordiv"):
                dividend, divisor = self._poly(atom.a), self._poly(atom.b)
                if self._aside(divisor) and self._aside(dividend):
                    found.append({} if low else dividend)
            case Binary(op="min") if not low:
                found += [self._poly(atom.a), self._poly(atom.b)]
            case Binary(op="max") if low:
                found += [self._poly(atom.a), self._poly(atom.b)]
            case Unary(op="abs") if low:
                found.append({})
            case Cast(a=Load() as load) if load.dtype.is_integer:
                found += [self._poly(lo if low else hi) for name, lo, hi in self._facts.loads if name == load.tensor]
            case Load():
                found += [self._poly(lo if low else hi) for name, lo, hi in self._facts.loads if name == atom.tensor]
        return found

    def _positive(self, p: Poly) -> bool:
        return self._aside(subtract(p, {(): 1}))

    # The search

    def _grows(self, q: Poly) -> int:
        return 1 if self._aside(q) else -1 if self._aside(scaled(q, -1)) else 0

    def _aside(self, p: Poly) -> bool:
        """A question that came up while answering another: three levels of them, each with a short search."""
        if self._nesting >= 3:
            return _certain(p, self._never_negative)
        self._nesting += 1
        try:
            return self._nonnegative(p, 4)
        finally:
            self._nesting -= 1

    def _nonnegative(self, p: Poly, depth: int) -> bool:
        p = tightened(p)
        if _certain(p, self._never_negative):
            return True
        self._steps += 1
        if depth == 0 or self._steps > _STEPS or not any(p):
            return False
        key = tuple(sorted(p.items()))
        if key in self._proved:
            return True
        if key in self._open:  # it may not serve as its own reason
            return False
        self._open.add(key)
        answer = any(self._nonnegative(smaller, depth - 1) for smaller in self._smaller(p))
        self._open.discard(key)
        if answer:
            self._proved.add(key)
        return answer

    def _smaller(self, p: Poly) -> Iterable[Poly]:
        """Polynomials `s` such that `s >= 0` implies `p >= 0`, the most promising first."""
        numbers = sorted({n for m in p for n in m}, key=self._rank)
        for number in numbers:
            smaller = self._without_index(p, number, numbers)
            if smaller is not None:
                yield smaller
                return
        for number in numbers:
            q, r, linear = split(p, number)
            if not linear:
                continue
            atom = self._atoms[number]
            if isinstance(atom, Binary) and atom.op == "floordiv" and atom not in self._quotients:
                yield from self._without_division(atom, q, r)
            if isinstance(atom, Binary) and atom.op in ("min", "max"):
                yield from self._without_choice(atom, q, r)
            if isinstance(atom, Unary) and atom.op == "abs" and self._aside(scaled(q, -1)):
                inner = self._poly(atom.a)
                if self._aside(plus(r, times(q, inner))):
                    yield plus(r, times(q, scaled(inner, -1)))
            grows = self._grows(q)
            if grows:
                for bound in self._bounds(number, low=grows > 0):
                    yield plus(r, times(q, bound))
        for fact in self._known:
            for monomial, coefficient in fact.items():
                mine = p.get(monomial, 0)
                if monomial and mine * coefficient > 0:
                    yield subtract(scaled(p, abs(coefficient)), scaled(fact, abs(mine)))

    def _without_index(self, p: Poly, number: int, numbers: list[int]) -> Poly | None:
        """p at its least over an index that occurs linearly and in no other atom: exact, so nothing else need be tried."""
        atom = self._atoms[number]
        if not isinstance(atom, Var) or atom.name in self._facts.sizes:
            return None
        if any(other != number and atom.name in variables(self._atoms[other]) for other in numbers):
            return None
        low, high = self._low.get(number, []), self._high.get(number, [])
        if len(low) != 1 or len(high) != 1:
            return None
        q, r, linear = split(p, number)
        grows = self._grows(q) if linear else 0
        return plus(r, times(q, low[0] if grows > 0 else high[0])) if grows else None

    def _without_division(self, atom: Binary, q: Poly, r: Poly) -> Iterable[Poly]:
        """p = q*(a // b) + r for b >= 1."""
        a, b = self._poly(atom.a), self._poly(atom.b)
        if not self._positive(b):
            return
        k = q.get((), 0) if not any(q) else 0
        if k == 1:  # t >= -r  <=>  a >= -r*b
            yield plus(a, times(r, b))
        elif k == -1:  # t <= r  <=>  a < (r + 1)*b
            yield subtract(subtract(times(plus(r, {(): 1}), b), a), {(): 1})
        multiple = quotient(q, b)
        if multiple is not None:
            if multiple > 0:
                yield plus(r, scaled(plus(subtract(a, b), {(): 1}), multiple))
            else:
                yield plus(r, scaled(a, multiple))
        if k > 1:
            yield plus(times(r, b), scaled(plus(subtract(a, b), {(): 1}), k))
        elif k < -1:
            yield plus(times(r, b), scaled(a, k))

    def _without_choice(self, atom: Binary, q: Poly, r: Poly) -> Iterable[Poly]:
        """p = q*min(a, b) + r: below both arms when q >= 0 is false for one is false, so both must hold."""
        a = plus(r, times(q, self._poly(atom.a)))
        b = plus(r, times(q, self._poly(atom.b)))
        if self._aside(a):
            yield b
        elif self._aside(b):
            yield a

    def _rank(self, number: int) -> tuple[int, int]:
        """Compound terms go before the variables inside them, else what ties the two together is lost."""
        atom = self._atoms[number]
        if atom in self._quotients:
            return 2, number
        if not isinstance(atom, Var):
            return 0, -number
        return (2 if atom.name in self._facts.sizes else 1), number


def _certain(p: Poly, never_negative: Callable[[int], bool]) -> bool:
    return all(c >= 0 and all(never_negative(n) for n in m) for m, c in p.items())


def _nonzero(e: Expr, conditions: list[Expr]) -> bool:
    """Whether a condition says so outright."""
    if isinstance(e, Const):
        return e.value != 0
    zero, one = index(0), index(1)
    said = (("ge", e, one), ("ne", e, zero), ("gt", e, zero), ("lt", zero, e))
    return any(Binary(op=op, a=a, b=b, dtype=BOOL) in conditions for op, a, b in said)  # type: ignore[arg-type]


def _conjuncts(condition: Expr) -> Iterable[Expr]:
    if isinstance(condition, Binary) and condition.op == "and":
        yield from _conjuncts(condition.a)
        yield from _conjuncts(condition.b)
    else:
        yield condition


def _opaque(atom: Expr) -> bool:
    return any(isinstance(node, Load) for node in walk(atom))


def bounds_of(e: Expr, facts: Facts, keep: Mapping[str, object] | frozenset[str]) -> tuple[Expr | None, Expr | None]:
    """Closed interval of `e` over the variables `keep`, for messages and contracts."""
    prover = Prover(facts)
    names = frozenset(keep)
    return prover.extreme(e, upper=False, keep=names), prover.extreme(e, upper=True, keep=names)
