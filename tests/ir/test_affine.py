"""Index algebra: random expressions mean the same before and after every rule, for all values of their variables in a small box
or, by z3, for all integers; bounds hold for every point."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import pytest
import z3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tridsl.dtypes import BOOL
from tridsl.ir.affine import (
    Polynomial,
    at_most,
    constant,
    equal,
    evaluate_index,
    fold_ranges,
    interval,
    normal_form,
    simplify_index,
    sweep,
    to_expression,
    without_clamps,
)
from tridsl.ir.expr import Binary, Const, Expr, Select, Unary, Var, add, binary, ceildiv, index, minimum, mul, sub
from tridsl.ir.walk import variables

NAMES = ("i", "j", "N")
I, J, N = (Var(name=n) for n in NAMES)
MANY = settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))


def raw(op: str, a: Expr, b: Expr) -> Binary:
    """Not folded by the builders."""
    return Binary(op=op, a=a, b=b, dtype=BOOL if op in ("lt", "le", "gt", "ge", "eq", "ne") else a.dtype)  # type: ignore[arg-type]


leaves = st.one_of(st.sampled_from((I, J, N)), st.integers(-6, 6).map(index))


def grown(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    pairs = st.builds(raw, st.sampled_from(("add", "sub", "mul", "min", "max", "add", "sub")), inner, inner)
    divided = st.builds(lambda op, a, c: raw(op, a, index(c)), st.sampled_from(("floordiv", "mod")), inner, st.integers(1, 5))
    by_size = st.builds(lambda op, a: raw(op, a, N), st.sampled_from(("floordiv", "mod")), inner)
    return st.one_of(pairs, pairs, divided, by_size, st.builds(lambda a: Unary(op="neg", a=a, dtype=a.dtype), inner))


expressions = st.recursive(leaves, grown, max_leaves=7)
conditions = st.builds(raw, st.sampled_from(("lt", "le", "gt", "ge", "eq", "ne")), expressions, expressions)


def box(ranges: Mapping[str, tuple[int, int]]) -> Iterator[dict[str, int]]:
    names = list(ranges)
    for values in product(*(range(low, high + 1) for low, high in ranges.values())):
        yield dict(zip(names, values))


WIDE = {"i": (-4, 4), "j": (-3, 3), "N": (-3, 5)}


def value(expression: Expr, values: Mapping[str, int]) -> Any:
    """As `evaluate_index`, also for conditions and selections."""
    match expression:
        case Select(condition=c, a=a, b=b):
            return value(a if value(c, values) else b, values)
        case Binary(op="and", a=a, b=b):
            return bool(value(a, values)) and bool(value(b, values))
        case Binary(op="or", a=a, b=b):
            return bool(value(a, values)) or bool(value(b, values))
        case Unary(op="not", a=a):
            return not value(a, values)
        case Const(value=known):
            return known
        case Binary(op="lt" | "le" | "gt" | "ge" | "eq" | "ne" as op, a=a, b=b):
            x, y = evaluate_index(a, values), evaluate_index(b, values)
            return {"lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y, "eq": x == y, "ne": x != y}[op]
    return evaluate_index(expression, values)


@given(expressions)
@MANY
def test_the_normal_form_means_the_same(expression: Expr) -> None:
    simple = simplify_index(expression)
    assert equal(expression, simple) and simplify_index(simple) == simple
    for values in box(WIDE):
        assert evaluate_index(simple, values) == evaluate_index(expression, values), values


def symbolic(expression: Expr) -> Any:
    """In z3, over all integers: floor division and remainder as the language has them (0 for divisor 0)."""
    match expression:
        case Const(value=known):
            return z3.IntVal(int(known))
        case Var(name=name):
            return z3.Int(name)
        case Unary(op="neg", a=a):
            return -symbolic(a)
    assert isinstance(expression, Binary)
    a, b = symbolic(expression.a), symbolic(expression.b)
    negative = b < 0
    floor = z3.If(b == 0, 0, z3.If(negative, (-a) / (-b), a / b))  # z3's division by a positive number floors
    match expression.op:
        case "add":
            return a + b
        case "sub":
            return a - b
        case "mul":
            return a * b
        case "min":
            return z3.If(a <= b, a, b)
        case "max":
            return z3.If(a >= b, a, b)
        case "floordiv":
            return floor
        case "mod":
            return z3.If(b == 0, 0, a - floor * b)
    raise AssertionError(expression.op)


RULES = {
    "division separates multiples": binary("floordiv", add(mul(I, index(12)), add(mul(J, index(4)), index(7))), index(4)),
    "remainder drops multiples": binary("mod", add(mul(I, index(12)), add(J, index(9))), index(4)),
    "of a negative offset": binary("floordiv", sub(mul(I, index(8)), index(3)), index(8)),
    "quotient and remainder join": add(mul(binary("floordiv", I, index(8)), index(8)), binary("mod", I, index(8))),
    "scaled": add(mul(binary("floordiv", I, index(8)), index(24)), mul(binary("mod", I, index(8)), index(3))),
    "terms cancel": sub(add(mul(I, J), mul(I, index(3))), mul(J, I)),
    "products distribute": mul(add(I, index(2)), sub(J, index(3))),
    "split index": add(mul(binary("floordiv", add(I, index(31)), index(32)), index(32)), sub(J, J)),
    "clamps keep their parts": raw("min", add(I, sub(J, J)), raw("max", J, add(index(2), index(1)))),
}


@pytest.mark.parametrize("name", RULES)
def test_rules_hold_for_all_integers(name: str) -> None:
    before, after = RULES[name], to_expression(normal_form(RULES[name]))
    solver = z3.Solver()
    solver.set("timeout", 20_000)
    solver.add(symbolic(before) != symbolic(after))
    assert solver.check() == z3.unsat, f"{name}: {solver.model() if solver.check() == z3.sat else 'undecided'}"


def test_joining_needs_the_same_division() -> None:
    """`(i // N)*N + i % N` is `i` also where N is 0: both parts are then 0, so the rule is for N other than 0 only."""
    joined = add(mul(binary("floordiv", I, N), N), binary("mod", I, N))
    for values in box({"i": (-6, 6), "N": (-3, 4)}):
        if values["N"]:
            assert evaluate_index(simplify_index(joined), values) == evaluate_index(joined, values)
    other = add(mul(binary("floordiv", I, index(8)), index(4)), binary("mod", I, index(4)))
    assert simplify_index(other) != I


ranges = st.fixed_dictionaries({name: st.tuples(st.integers(-4, 4), st.integers(0, 4)).map(lambda p: (p[0], p[0] + p[1])) for name in NAMES})
some_ranges = st.tuples(ranges, st.sets(st.sampled_from(NAMES)))


@given(expressions, some_ranges)
@MANY
def test_intervals_hold(expression: Expr, known: tuple[dict[str, tuple[int, int]], set[str]]) -> None:
    limits, unknown = known
    low, high = interval(expression, {n: r for n, r in limits.items() if n not in unknown})
    for values in box(limits):
        point = evaluate_index(expression, values)
        assert (low is None or low <= point) and (high is None or point <= high), values


@given(st.one_of(expressions, conditions, st.builds(lambda c, a, b: Select(condition=c, a=a, b=b, dtype=a.dtype), conditions, expressions, expressions)), ranges)
@MANY
def test_folding_by_ranges_means_the_same_inside_them(expression: Expr, limits: dict[str, tuple[int, int]]) -> None:
    folded = fold_ranges(expression, limits)
    for values in box(limits):
        assert value(folded, values) == value(expression, values), values


@given(expressions, expressions, some_ranges)
@MANY
def test_at_most_is_certain(a: Expr, b: Expr, known: tuple[dict[str, tuple[int, int]], set[str]]) -> None:
    limits, unknown = known
    if at_most(a, b, {n: r for n, r in limits.items() if n not in unknown}):
        for values in box(limits):
            assert evaluate_index(a, values) <= evaluate_index(b, values), values


TAIL = minimum(index(4), sub(N, mul(I, index(4))))
"""The extent of `j` inside `i < ceil(N / 4)`: a split loop of N."""


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (minimum(add(mul(I, index(4)), index(4)), N), N),
        (sub(add(mul(I, index(4)), TAIL), index(1)), sub(N, index(1))),
        (minimum(I, J), binary("max", J, I)),
        (sub(minimum(I, J), binary("max", I, J)), index(0)),
    ],
)
def test_at_most_looks_through_clamps(a: Expr, b: Expr) -> None:
    assert at_most(a, b, {})
    assert not at_most(add(b, index(1)), a, {})


@given(expressions, st.integers(0, 4), st.integers(0, 4))
@MANY
def test_sweeps_cover_every_point(expression: Expr, rows: int, columns: int) -> None:
    ends = sweep(expression, (("i", index(rows)), ("j", index(columns))))
    if ends is None:
        return
    assert not {"i", "j"} & (variables(ends[0]) | variables(ends[1]))
    for size in range(-3, 5):
        low, high = (evaluate_index(end, {"N": size}) for end in ends)
        for i, j in product(range(rows), range(columns)):
            assert low <= evaluate_index(expression, {"i": i, "j": j, "N": size}) <= high


@pytest.mark.parametrize("size", range(20))
def test_sweep_of_a_split_loop_is_exact(size: int) -> None:
    place = add(mul(I, index(4)), J)
    ends = sweep(place, (("i", ceildiv(N, index(4))), ("j", TAIL)))
    assert ends is not None
    points = range(size)
    assert evaluate_index(ends[0], {"N": size}) == 0
    assert evaluate_index(ends[1], {"N": size}) == max(points, default=-1) or not size


@given(expressions, st.sets(st.sampled_from(("i", "j"))))
@MANY
def test_without_clamps_never_narrows_a_distance(expression: Expr, inner: set[str]) -> None:
    """Between two points that differ in `inner` variables only, for expressions in which clamps are not multiplied."""
    if any(isinstance(n, Binary) and n.op in ("mul", "floordiv", "mod") for n in _nodes(expression)):
        return
    free = without_clamps(expression, inner)
    others = {name: limits for name, limits in WIDE.items() if name not in inner}
    moving = dict.fromkeys(inner, (0, 2))
    for fixed in box(others):
        spread = _spread(free, fixed, moving)
        assert _spread(expression, fixed, moving) <= max(spread, _sum_of_spreads(free, fixed, moving))


def _nodes(expression: Expr) -> Iterator[Any]:
    from tridsl.ir.walk import walk

    return walk(expression)


def _spread(expression: Expr, fixed: dict[str, int], moving: dict[str, tuple[int, int]]) -> int:
    points = [evaluate_index(expression, {**fixed, **values}) for values in box(moving)]
    return max(points) - min(points)


def _sum_of_spreads(expression: Expr, fixed: dict[str, int], moving: dict[str, tuple[int, int]]) -> int:
    """The distance of the extremes of each term by itself: what `sweep` finds."""
    ends = sweep(expression, [(name, index(high + 1)) for name, (_, high) in moving.items()])
    if ends is None:
        return 1 << 30
    return evaluate_index(ends[1], fixed) - evaluate_index(ends[0], fixed)


def test_constants_and_coefficients() -> None:
    assert constant(sub(add(I, index(3)), I)) == 3 and constant(I) is None
    poly = normal_form(add(mul(I, index(3)), mul(I, J)))
    assert poly.coefficient("i") is None and normal_form(mul(I, index(3))).coefficient("i") == 3
    assert poly.without(["j"]) == Polynomial(terms=(((I,), 3),))


def test_numbers_wrap_as_i64_does() -> None:
    """`x - lowest` is `x + 2**63`, whose number is no i64."""
    least = -(1 << 63)
    simpler = simplify_index(sub(Var(name="x"), index(least)))
    assert simpler == add(Var(name="x"), index(least))
