"""`O.softmax_wsum.parts(t, 256, into=block)`: every part of a rescaled monoid is one block, and so is what the parts come to.

Dao et al. 2023, "Flash-Decoding for long-context inference": few rows and many elements leave a device idle unless the elements are shared.
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.check.reducers import BUILTINS
from tridsl.dtypes import DType
from tridsl.ir.expr import Binary, Call, Const, Expr, Load, Select, Var, add, index, mul
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, Ref, Stmt, Store
from tridsl.ir.walk import substitute
from tridsl.schedule.hidden import hidden_arms
from tridsl.schedule.nest import axis_of
from tridsl.schedule.parts_monoid import PartStates
from tridsl.schedule.rescaled import Rescaled, Sum, rescaled
from tridsl.schedule.split import divide
from tridsl.schedule.steps import Parts
from tridsl.structs import dataclass, replace

BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class MergedBlocks:
    """`buffers`: the states of every part; `part`: the loop over parts, each merged as one block; `whole`: the merge of what they came to."""

    buffers: tuple[Buffer, ...]
    part: For
    whole: Block


def merged_blocks(path: tuple[For, ...], rows: tuple[For, ...], before: Block, loop: For, step: Parts) -> MergedBlocks | None:
    """`loop` over the elements inside `path` in parts; `rows` are loops of the path that each stage of a part has for itself. None for states that are
    not sums rescaled by a running extreme."""
    found = rescaled(step.stage, before, loop.body) if loop.carried else None
    point = tuple(Var(name=l.var) for l in path)
    places = (found.key, *(s.place for s in found.sums)) if found is not None else ()
    if found is None or any(ref.index[: len(path)] != point for ref in places):
        return None
    outer = divide(loop, step.factor)
    (inside,) = outer.body
    assert isinstance(inside, For)
    part, over = Var(name=outer.var), replace(outer, body=(), reduce=False, carried=False)
    states = PartStates(found=found, stage=step.stage, depth=len(path), part=part)
    here = {loop.var: add(mul(part, index(step.factor)), Var(name=inside.var))}
    first = one_block(f"{step.stage}.part", of_part(states, here), inside, step.factor, rows)
    whole = one_block(step.stage, of_parts(states), over, int(over.extent.value) if isinstance(over.extent, Const) else None)
    return MergedBlocks(buffers=states.buffers((*(l.extent for l in path), outer.extent), step.span), part=replace(over, body=first), whole=whole)


def one_block(stage: str, found: Rescaled, elements: For, bound: int | None, rows: tuple[For, ...] = ()) -> Block:
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
    its tensor. The elements of a sum are added in another order, as the language allows inside reducers. `rows`: loops around all of it that
    each of these stages gets for itself, and so do `….key.kept` and `….l.kept`, which put the states in their places.
    """
    dtype, own = found.start.dtype, tuple(Var(name=l.var) for l in rows)
    key, weight = f"{stage}.key", f"{stage}.weight"
    best = Load(tensor=key, index=own, dtype=dtype)
    reducer = replace(BUILTINS[found.op].make(dtype), identity=(found.start,))
    extreme = Accumulate(targets=(Ref(tensor=key, index=own),), reducer=reducer, values=(found.candidate,), init=True)
    length = elements.extent if bound is None else index(bound)
    shape, padded = tuple(l.extent for l in rows), (False,) * len(rows)
    weighed = Store(target=Ref(tensor=weight, index=(*own, Var(name=elements.var))), value=_weight(found, best))
    body: list[Stmt] = [
        Alloc(buffer=Buffer(name=key, dtype=dtype, shape=shape, space="l1")),
        Alloc(buffer=Buffer(name=weight, dtype=dtype, shape=(*shape, length), space="l1", padded=(*padded, bound is not None))),
        *_loops(key, rows, elements, (extreme,), reduce=True),
        *_loops(f"{key}.kept", rows, None, (Store(target=found.key, value=best),)),
        *_loops(weight, rows, elements, (weighed,)),
    ]
    for one in found.sums:
        body += _sum(f"{stage}.{one.place.tensor.rpartition('.')[2]}", one, weight, elements, rows, dtype)
    return tuple(body)


def _sum(name: str, one: Sum, weight: str, elements: For, rows: tuple[For, ...], dtype: DType) -> Block:
    """A sum of weights times what stands beside them; one without axes of its own is made aside first."""
    own = tuple(Var(name=l.var) for l in rows)
    amount: Expr = Load(tensor=weight, index=(*own, Var(name=elements.var)), dtype=dtype)
    if one.factor is not None and not (isinstance(one.factor, Const) and one.factor.value == 1):
        amount = Binary(op="mul", a=amount, b=one.factor, dtype=dtype)
    here = one.place if one.own else Ref(tensor=f"{name}.sum", index=own)
    added = Accumulate(targets=(here,), reducer=BUILTINS["sum"].make(dtype), values=(amount,), init=True)
    if one.own:
        return _loops(name, (*rows, *one.own), elements, (added,), reduce=True)
    return (
        Alloc(buffer=Buffer(name=here.tensor, dtype=dtype, shape=tuple(l.extent for l in rows), space="l1")),
        *_loops(name, rows, elements, (added,), reduce=True),
        *_loops(f"{name}.kept", rows, None, (Store(target=one.place, value=Load(tensor=here.tensor, index=own, dtype=dtype)),)),
    )


def _loops(stage: str, own: tuple[For, ...], elements: For | None, body: Block, *, reduce: bool = False) -> Block:
    """The loops `own` and the one over the elements, as those of `stage`, around `body`."""
    loops = (*own, *((elements,) if elements is not None else ()))
    at: dict[str, Expr] = {l.var: Var(name=f"{stage}:{axis_of(l.var)}") for l in loops}
    body = tuple(substitute(s, at) for s in body)
    for loop in reversed(loops):
        body = (For(var=f"{stage}:{axis_of(loop.var)}", extent=substitute(loop.extent, at), bound=loop.bound, body=body, reduce=reduce and loop is elements, span=loop.span),)
    return body


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
