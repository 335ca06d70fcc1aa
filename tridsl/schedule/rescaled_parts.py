"""`O.softmax_wsum.parts(t, 256, into=block)`: every part of a rescaled monoid is one block, and so is what the parts come to.

Dao et al. 2023, "Flash-Decoding for long-context inference": few rows and many elements leave a device idle unless the elements are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tridsl.check.reducers import BUILTINS
from tridsl.dtypes import DType
from tridsl.ir.expr import Binary, Call, Const, Expr, Load, Select, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, Ref, Stmt, Store
from tridsl.ir.walk import substitute
from tridsl.schedule.hidden import hidden_arms
from tridsl.schedule.nest import axis_of
from tridsl.schedule.parts_monoid import PartStates
from tridsl.schedule.rescaled import Rescaled, Sum
from tridsl.structs import replace

BLOCK = "block"


def one_block(stage: str, found: Rescaled, elements: For, bound: int | None) -> Block:
    """
    before:  m, l, o[e] = lowest, 0, 0
             for t < L: n = max(m, s[t]); l = l*exp(m - n) + exp(s[t] - n); for e: o[e] = o[e]*exp(m - n) + exp(s[t] - n)*v[t, e]; m = n
    after:   for t < L: key max= s[t]
             m = key
             for t < L: weight[t] = exp(s[t] - key)
             for t < L: sum += weight[t]
             l = sum
             for e: for t < L: o[e] += weight[t]*v[t, e]

    `elements` is the loop over t, its length at most `bound`. The parts are the stages `….key`, `….weight`, and one for each sum, named like
    its tensor. The elements of a sum are added in another order, as the language allows inside reducers.
    """
    dtype = found.start.dtype
    key, weight = f"{stage}.key", f"{stage}.weight"
    best = Load(tensor=key, index=(), dtype=dtype)
    reducer = replace(BUILTINS[found.op].make(dtype), identity=(found.start,))
    extreme = Accumulate(targets=(Ref(tensor=key, index=()),), reducer=reducer, values=(found.candidate,), init=True)
    length = elements.extent if bound is None else index(bound)
    body: list[Stmt] = [
        Alloc(buffer=Buffer(name=key, dtype=dtype, shape=(), space="l1")),
        Alloc(buffer=Buffer(name=weight, dtype=dtype, shape=(length,), space="l1", padded=(bound is not None,))),
        _over(key, elements, (), lambda at: (substitute(extreme, at),), reduce=True),
        Store(target=found.key, value=best),
        _over(weight, elements, (), lambda at: (Store(target=Ref(tensor=weight, index=(at[elements.var],)), value=substitute(_weight(found, best), at)),), reduce=False),
    ]
    for one in found.sums:
        body += _sum(f"{stage}.{one.place.tensor.rpartition('.')[2]}", one, weight, elements, dtype)
    return tuple(body)


def _sum(name: str, one: Sum, weight: str, elements: For, dtype: DType) -> Block:
    """A sum of weights times what stands beside them; one without axes of its own is made aside first."""

    def added(at: dict[str, Expr], target: Ref) -> Block:
        amount: Expr = Load(tensor=weight, index=(at[elements.var],), dtype=dtype)
        if one.factor is not None and not (isinstance(one.factor, Const) and one.factor.value == 1):
            amount = Binary(op="mul", a=amount, b=substitute(one.factor, at), dtype=dtype)
        return (Accumulate(targets=(target,), reducer=BUILTINS["sum"].make(dtype), values=(amount,), init=True),)

    if one.own:
        return (_over(name, elements, one.own, lambda at: added(at, substitute(one.place, at)), reduce=True),)
    here = Ref(tensor=f"{name}.sum", index=())
    return (
        Alloc(buffer=Buffer(name=here.tensor, dtype=dtype, shape=(), space="l1")),
        _over(name, elements, (), lambda at: added(at, here), reduce=True),
        Store(target=one.place, value=Load(tensor=here.tensor, index=(), dtype=dtype)),
    )


def _over(stage: str, elements: For, own: tuple[For, ...], body: Callable[[dict[str, Expr]], Block], *, reduce: bool) -> For:
    """The loops `own` and the one over the elements, as those of `stage`, around what `body` makes of their variables."""
    loops = (*own, elements)
    at: dict[str, Expr] = {l.var: Var(name=f"{stage}:{axis_of(l.var)}") for l in loops}
    inside = body(at)
    for loop in reversed(loops):
        variable = at[loop.var]
        assert isinstance(variable, Var)
        made = For(var=variable.name, extent=substitute(loop.extent, at), bound=loop.bound, body=inside, reduce=reduce and loop is elements, span=loop.span)
        inside = (made,)
    return made


def _weight(found: Rescaled, key: Expr) -> Expr:
    """f(base, key); of a hidden element, 0, whatever the arithmetic would say on its way there."""

    def factor(base: Expr) -> Expr:
        dtype = found.start.dtype
        return Call(function=found.function, args=(Binary(op="sub", a=base, b=key, dtype=dtype),), dtype=dtype)

    arms = hidden_arms(found.base, found.op)
    if not isinstance(found.base, Select) or not any(arms):
        return factor(found.base)
    nothing = Const(value=0.0, dtype=found.base.dtype)
    a, b = (nothing if hidden else factor(arm) for arm, hidden in zip((found.base.a, found.base.b), arms))
    return replace(found.base, a=a, b=b)


def of_part(states: PartStates, element: Mapping[str, Expr]) -> Rescaled:
    """The merge of the elements of one part, into its states; `element` says which they are."""

    def place(ref: Ref) -> Ref:
        moved = states.moved(ref)
        assert isinstance(moved, Ref)
        return moved

    found = states.found
    sums = tuple(
        replace(one, place=place(one.place), factor=None if one.factor is None else substitute(one.factor, element)) for one in found.sums
    )
    return replace(found, key=place(found.key), candidate=substitute(found.candidate, element), base=substitute(found.base, element), sums=sums)


def of_parts(states: PartStates) -> Rescaled:
    """The merge of the parts: what a part came to is an element, its key the base, its sums the factors."""

    def what_it_came_to(ref: Ref) -> Expr:
        moved = states.moved(Load(tensor=ref.tensor, index=ref.index, dtype=found.start.dtype))
        assert isinstance(moved, Load)
        return moved

    found = states.found
    key = what_it_came_to(found.key)
    return replace(found, candidate=key, base=key, sums=tuple(replace(one, factor=what_it_came_to(one.place)) for one in found.sums))
