"""Monoids whose states are sums rescaled by a running key, recognised by what their merge says.

One state is the key: `m = max(a.m, b.m)` (or min). Every other state is a sum whose two sides are brought to the merged key,

    x = a.x * f(a.m, m) + b.x * f(b.m, m)        f(a, b) = exp(a - b), so that f(a, b) * f(b, c) = f(a, c)

as in softmax, logsumexp and attention. Many elements can then be merged at once: with k the key of a block of elements and m
the merged key, x becomes x * f(m_old, m) + sum over the block of f(key of the element, m) * (its part of x).

What is read here are the statements of the loop over the elements as `passes.to_loops` writes them, wherever `at` moved them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite

from tridsl.ir.expr import Binary, Call, Const, Expr, Load
from tridsl.ir.loop import Block, For, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, walk
from tridsl.structs import dataclass

COCYCLES = ("exp", "exp2")
"""Functions g for which f(a, b) = g(a - b) has f(a, b) * f(b, c) = f(a, c)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sum:
    """One rescaled sum: where it is, the loops of axes that only it has (outer first), and the factor beside the weight that an
    element adds (None: the weight alone)."""

    place: Ref
    own: tuple[For, ...]
    factor: Expr | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescaled:
    """The loop over elements, understood. An element adds `function(base - key) * factor` to each sum.

    `candidate` is what an element offers as the key, `start` the key before any element.
    """

    key: Ref
    op: str
    candidate: Expr
    start: Const
    function: str
    base: Expr
    sums: tuple[Sum, ...]


def rescaled(stage: str, before: Block, body: Block) -> Rescaled | None:
    """`body` of the loop over elements, `before` what gives the states their first values; None: another kind of merge."""
    lifted = dict(_locals(stage, "b", body))
    merged = dict(_locals(stage, "n", body))
    narrow = {s: store.target for store in body if isinstance(store, Store) for s in merged if _is_local(store.value, stage, "n", s)}
    keys = [s for s in narrow if _is_extreme(merged[s], _load(narrow[s], merged[s]), _local(stage, "b", s, lifted))]
    if set(narrow) != set(merged) or len(keys) != 1:
        return None
    (name,) = keys
    key, new = narrow[name], merged[name]
    assert isinstance(new, Binary)
    old, candidate = _load(key, new), lifted[name]
    updates: list[tuple[Ref, tuple[For, ...], Expr]] = [(narrow[s], (), merged[s]) for s in narrow if s != name]
    updates += [(store.target, own, store.value) for own, store in _nests(body)]
    added = [_added(value, _load(place, value), old, _local(stage, "b", name, lifted), new) for place, _, value in updates]
    found = [one for one in added if one is not None]
    functions = {function for _, function in found}
    start = next((s.value for s in _first_values(before) if s.target.tensor == key.tensor), None)
    if len(found) != len(updates) or len(functions) != 1 or not isinstance(start, Const):
        return None
    (function,) = functions
    amounts = [_with_locals(amount, stage, lifted) for amount, _ in found]
    base, factors = _common_base(amounts, candidate, function)
    sums = tuple(Sum(place=place, own=own, factor=factor) for (place, own, _), factor in zip(updates, factors))
    if _clamped(candidate, start) == base:
        candidate = base  # the key of a block starts from where the clamp would lift it to
    return Rescaled(key=key, op=new.op, candidate=candidate, start=start, function=function, base=base, sums=sums)


def _locals(stage: str, kind: str, body: Block) -> Iterator[tuple[str, Expr]]:
    prefix = f"{stage}:{kind}."
    for statement in body:
        if isinstance(statement, Store) and statement.target.tensor.startswith(prefix):
            yield statement.target.tensor.removeprefix(prefix), statement.value


def _local(stage: str, kind: str, state: str, values: Mapping[str, Expr]) -> Expr | None:
    return Load(tensor=f"{stage}:{kind}.{state}", index=(), dtype=values[state].dtype) if state in values else None


def _with_locals(amount: Expr, stage: str, lifted: Mapping[str, Expr]) -> Expr:
    """`amount` with what an element has for a state instead of where the iteration keeps it."""
    names = {f"{stage}:b.{state}": value for state, value in lifted.items()}
    return rewrite(amount, {Load: lambda load: names.get(load.tensor, load)})


def _is_local(value: Expr, stage: str, kind: str, state: str) -> bool:
    return isinstance(value, Load) and value.tensor == f"{stage}:{kind}.{state}"


def _load(place: Ref, like: Expr) -> Load:
    return Load(tensor=place.tensor, index=place.index, dtype=like.dtype)


def _is_extreme(value: Expr, a: Expr, b: Expr | None) -> bool:
    return isinstance(value, Binary) and value.op in ("max", "min") and {value.a, value.b} == {a, b}


def _nests(body: Block) -> Iterator[tuple[tuple[For, ...], Store]]:
    """Loops around one store: the update of a state that has axes of its own."""
    for statement in body:
        loops: list[For] = []
        inner: Stmt = statement
        while isinstance(inner, For) and len(inner.body) == 1:
            loops.append(inner)
            inner = inner.body[0]
        if loops and isinstance(inner, Store):
            yield tuple(loops), inner


def _first_values(block: Block) -> Iterator[Store]:
    yield from (n for s in block for n in walk(s) if isinstance(n, Store))


def _factor(node: Expr, function: str | None) -> tuple[Expr, Expr, str] | None:
    """(a, b, g) of g(a - b)."""
    if not isinstance(node, Call) or node.function not in COCYCLES or (function is not None and node.function != function):
        return None
    (argument,) = node.args
    return (argument.a, argument.b, node.function) if isinstance(argument, Binary) and argument.op == "sub" else None


def _products(node: Expr) -> list[Expr]:
    if isinstance(node, Binary) and node.op == "mul":
        return [*_products(node.a), *_products(node.b)]
    return [node]


def _multiplied(factors: list[Expr]) -> Expr | None:
    result: Expr | None = None
    for factor in factors:
        result = factor if result is None else Binary(op="mul", a=result, b=factor, dtype=factor.dtype)
    return result


def _added(value: Expr, before: Load, old: Expr, lifted: Expr | None, new: Expr) -> tuple[Expr, str] | None:
    """(what an element adds, function) when `value` is `before * f(old, new) + amount * f(lifted, new)`."""
    if not isinstance(value, Binary) or value.op != "add":
        return None
    for kept, added in ((value.a, value.b), (value.b, value.a)):
        first, second = _products(kept), _products(added)
        keeps = [f for n in first if (f := _factor(n, None)) and f[:2] == (old, new)]
        adds = [n for n in second if (f := _factor(n, None)) and f[:2] == (lifted, new)]
        if len(first) != 2 or before not in first or len(keeps) != 1 or len(adds) != 1 or _factor(adds[0], keeps[0][2]) is None:
            continue
        second.remove(adds[0])
        amount = _multiplied(second)
        if amount is not None:
            return amount, keeps[0][2]
    return None


def _common_base(amounts: list[Expr], candidate: Expr, function: str) -> tuple[Expr, list[Expr | None]]:
    """The amounts as f(base, candidate) * factor with one base, where that is exact for infinities and NaN too.

    f(base, candidate) * f(candidate, m) is then f(base, m), one function for the two. A base of -inf has f = 0 on both sides as long
    as the candidate stays finite, which a clamp of the base by a finite number makes sure.
    """
    bases: list[Expr] = []
    factors: list[Expr | None] = []
    for amount in amounts:
        found = _products(amount)
        own = next(((n, f[0]) for n in found if (f := _factor(n, function)) and f[1] == candidate), None)
        if own is None or not _clamps(candidate, own[1]):
            return candidate, list(amounts)
        found.remove(own[0])
        bases.append(own[1])
        factors.append(_multiplied(found))
    if any(base != bases[0] for base in bases):
        return candidate, list(amounts)
    return bases[0], factors


def _clamps(candidate: Expr, base: Expr) -> bool:
    return any(_clamped(candidate, bound) == base for bound in _constants(candidate))


def _constants(node: Expr) -> Iterator[Const]:
    if isinstance(node, Binary):
        yield from (n for n in (node.a, node.b) if isinstance(n, Const) and isfinite(n.value))


def _clamped(candidate: Expr, bound: Const) -> Expr | None:
    """e of `max(e, bound)`."""
    if isinstance(candidate, Binary) and candidate.op in ("max", "min"):
        for one, other in ((candidate.a, candidate.b), (candidate.b, candidate.a)):
            if one == bound:
                return other
    return None
