"""`v.parts(n, 256, into=ranks)` of a top-k: the place of an element is the number of those that come before it."""

from __future__ import annotations

from tridsl.dtypes import BOOL, I32, INDEX
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Unary, Var, binary
from tridsl.ir.insertion import Insertion
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Ref, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import substitute
from tridsl.structs import replace

RANKS = "ranks"

COUNT = Reducer(
    name="sum", states=("s",), dtypes=(I32,), identity=(Const(value=0, dtype=I32),), op="add",
    merge=(Binary(op="add", a=Var(name="a.s", dtype=I32), b=Var(name="b.s", dtype=I32), dtype=I32),),
)  # fmt: skip


def ranked(found: Insertion, loop: For) -> For:
    """
    before:  for i < N carried: insert x[i] into v[0..k]
    after:   for i < N: rank = sum[j < N](x[j] comes before x[i]); if rank < k: v[rank] = x[i]

    N comparisons for each element, but no element waits for another. `loop` is that over `i`; its variable is `found.point`'s.
    """
    value = Buffer(name=f"{found.stage}:ranked", dtype=found.dtypes[0], shape=(), space="reg")
    rank = Buffer(name=f"{found.stage}:rank", dtype=I32, shape=(), space="reg")
    here, count = Ref(tensor=value.name, index=()), Ref(tensor=rank.name, index=())
    other = Var(name=f"{loop.var}.j")
    mine = found.element(here, found.dtypes[0])
    before = _before(found, substitute(found.value, {loop.var: other}), mine, other, Var(name=loop.var))
    place = Load(tensor=rank.name, index=(), dtype=I32)
    slot = Cast(a=place, dtype=INDEX)
    stores: Block = tuple(
        Store(target=replace(ref, index=(*ref.index[:-1], slot)), value=what)
        for ref, what in ((found.values, mine), (found.indices, found.position))
    )
    counted = Accumulate(targets=(count,), reducer=COUNT, values=(Cast(a=before, dtype=I32),), init=True, span=loop.span)
    body: Block = (
        Alloc(buffer=value),
        Store(target=here, value=found.value),
        Alloc(buffer=rank),
        For(var=other.name, extent=loop.extent, bound=loop.bound, body=(counted,), reduce=True, span=loop.span),
        If(condition=binary("lt", slot, found.k), then=stores),
    )
    return replace(loop, body=body, carried=False)


def _before(found: Insertion, other: Expr, mine: Expr, at: Expr, own: Expr) -> Expr:
    """Whether element `at` of value `other` comes before element `own` of value `mine`: of equals the earlier does."""
    earlier = Unary(op="not", a=found.beats(mine, other), dtype=BOOL)
    return Select(condition=binary("lt", at, own), a=earlier, b=found.beats(other, mine), dtype=BOOL)
