"""The prover never says yes to what is false, and says yes to what ops need."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tridsl.check.prove import Facts, Prover
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Expr, Var, add, binary, index, mul, sub

SIZES = ("M", "N")
INDICES = ("i", "j")


def v(name: str) -> Var:
    return Var(name=name)


def floordiv(a: Expr, b: Expr) -> Expr:
    return binary("floordiv", a, b)


def mod(a: Expr, b: Expr) -> Expr:
    return binary("mod", a, b)


leaves = st.one_of(st.sampled_from(SIZES + INDICES).map(v), st.integers(-3, 3).map(index))
expressions = st.recursive(
    leaves,
    lambda e: st.one_of(
        st.builds(add, e, e),
        st.builds(sub, e, e),
        st.builds(mul, e, e),
        st.builds(lambda a, b: binary("min", a, b), e, e),
        st.builds(lambda a, b: binary("max", a, b), e, e),
        st.builds(floordiv, e, st.one_of(st.integers(1, 4).map(index), st.sampled_from(SIZES).map(v))),
        st.builds(mod, e, st.one_of(st.integers(1, 4).map(index), st.sampled_from(SIZES).map(v))),
    ),
    max_leaves=6,
)
facts = st.lists(st.tuples(st.sampled_from(["le", "ge", "lt", "gt", "eq"]), expressions, expressions), max_size=2)


@settings(max_examples=500, deadline=None)
@given(expressions, expressions, facts)
def test_what_is_proved_holds(a: Expr, b: Expr, conditions: list[tuple[str, Expr, Expr]]) -> None:
    known = Facts(sizes=frozenset(SIZES), conditions=tuple(binary(op, x, y) for op, x, y in conditions))  # type: ignore[arg-type]
    if not Prover(known.inside([("i", index(0), v("M")), ("j", index(0), v("N"))])).at_least(a, b):
        return
    for m, n in product(range(5), repeat=2):
        for i, j in product(range(m), range(n)):
            values = {"M": m, "N": n, "i": i, "j": j}
            if all(_true(op, evaluate_index(x, values), evaluate_index(y, values)) for op, x, y in conditions):
                assert evaluate_index(a, values) >= evaluate_index(b, values), values


def _true(op: str, x: int, y: int) -> bool:
    return {"le": x <= y, "ge": x >= y, "lt": x < y, "gt": x > y, "eq": x == y}[op]


M, N, H, G, S, i, j = (v(n) for n in ("M", "N", "H", "G", "S", "i", "j"))


@pytest.mark.parametrize(
    ("extent", "position", "conditions"),
    [
        (mul(M, N), add(mul(i, N), j), ()),
        (M, floordiv(mul(i, index(2)), index(2)), ()),
        (mul(M, index(2)), add(mul(floordiv(i, index(1)), index(2)), index(1)), ()),
        (G, floordiv(i, floordiv(M, G)), (binary("eq", mod(M, G), index(0)), binary("ge", G, index(1)))),
        (M, sub(sub(M, index(1)), i), ()),
        (M, binary("min", add(i, index(5)), sub(M, index(1))), ()),
        (M, binary("max", sub(i, index(5)), index(0)), ()),
        (M, mod(add(i, index(7)), M), ()),
        (floordiv(add(M, index(1)), index(2)), floordiv(i, index(2)), ()),
        (add(M, S), add(i, S), (binary("ge", S, index(0)),)),
        (S, add(i, index(3)), (binary("ge", S, add(M, index(3))),)),
    ],
    ids=[
        "flatten",
        "halves",
        "pairs",
        "groups",
        "reverse",
        "clamp high",
        "clamp low",
        "wrap",
        "pool",
        "offset",
        "contract",
    ],
)
def test_accesses_that_ops_need(extent: Expr, position: Expr, conditions: tuple[Expr, ...]) -> None:
    known = Facts(sizes=frozenset({"M", "N", "H", "G"}), conditions=conditions)
    prover = Prover(known.inside([("i", index(0), M), ("j", index(0), N)]))
    assert prover.at_least(position, index(0))
    assert prover.at_least(sub(extent, index(1)), position)


def test_convolution_without_padding() -> None:
    stride, r = v("stride"), v("r")
    known = Facts(sizes=frozenset({"H", "R"}), conditions=(binary("ge", stride, index(1)),))
    rows = add(floordiv(sub(H, v("R")), stride), index(1))
    prover = Prover(known.inside([("y", index(0), rows), ("r", index(0), v("R"))]))
    assert prover.at_least(sub(H, index(1)), add(mul(v("y"), stride), r))
    assert not prover.at_least(sub(H, index(2)), add(mul(v("y"), stride), r))
