"""`v.parts(n, 64, into=best)` of a top-k: only the parts with the k greatest best elements can hold any of the k greatest.

Each of those parts has an element that comes before every element of any other part; so k elements come before what is there.
"""

from __future__ import annotations

from tridsl.check.reducers import BUILTINS
from tridsl.dtypes import BOOL, I32, INDEX, compute_type
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Var, add, binary, index, mul, sub
from tridsl.ir.insertion import Insertion
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Ref, Store
from tridsl.ir.walk import substitute
from tridsl.schedule.nest import axis_of
from tridsl.schedule.ranks import COUNT
from tridsl.schedule.split import divide
from tridsl.structs import dataclass, replace

BEST = "best"


@dataclass(frozen=True, slots=True, kw_only=True)
class BestParts:
    """`best`: the greatest of every part; `part`: a top-k of these, whose positions are parts; `order`: these parts in order; `left`: their
    elements; `whole`: a top-k of those. Loops without what is around them, each for the stage of its name."""

    buffers: tuple[Buffer, ...]
    best: Block
    part: Block
    order: Block
    left: Block
    whole: Block


def best_parts(found: Insertion, loop: For, factor: int, path: tuple[For, ...]) -> BestParts:
    """
    before:  for n < N: insert x[n]                after:  v.best:  for p < ceil(N / 64): best[p] = max of x[p*64 + i]
                                                           v.part:  for p: insert best[p], of the part p
                                                           v.order: the k parts, in the order of their numbers
                                                           v.left:  for n.o < k*64: left[n.o] = x[order[n.o // 64]*64 + n.o % 64]
                                                           v:       for n.o < k*64: insert left[n.o]

    What is inserted last is in the order of its places, so that of equals the earlier stays in front. Places beyond the end, behind all
    others, hold the least value there is.
    """
    stage, axis, point = found.stage, axis_of(loop.var), tuple(Var(name=l.var) for l in path)
    outer = divide(loop, factor)
    (inside,) = outer.body
    assert isinstance(inside, For)
    dtype = found.dtypes[0]
    wide = compute_type(dtype)
    around = tuple(l.extent for l in path)
    best, order = (Buffer(name=f"{stage}.{what}", dtype=kind, shape=(*around, extent), space="global") for what, kind, extent in ((BEST, dtype, outer.extent), ("order", I32, found.k)))
    ranked = tuple(Buffer(name=f"{stage}.part.{what}", dtype=kind, shape=(*around, found.k), space="global") for what, kind in (("values", dtype), ("indices", I32)))
    part = Var(name=outer.var)
    element = substitute(found.value, {loop.var: add(mul(part, index(factor)), Var(name=inside.var))})
    greatest = Accumulate(targets=(Ref(tensor=best.name, index=(*point, part)),), reducer=BUILTINS["max"].make(wide), values=(element,), init=True)
    first = replace(outer, carried=False, body=(replace(inside, body=(greatest,), reduce=True, carried=False),))

    slot = found.values.index[-1]
    own = Insertion(
        stage=stage, dtypes=(dtype, I32), point=part, k=found.k,
        values=Ref(tensor=ranked[0].name, index=(*point, slot)), indices=Ref(tensor=ranked[1].name, index=(*point, slot)),
        value=found.element(Ref(tensor=best.name, index=(*point, part)), dtype), position=Cast(a=part, dtype=I32),
    )  # fmt: skip
    second = replace(outer, body=own.body())

    number = Var(name=f"{stage}:{axis}.o")
    chosen = Load(tensor=order.name, index=(*point, binary("floordiv", number, index(factor))), dtype=I32)
    place = add(mul(Cast(a=chosen, dtype=INDEX), index(factor)), binary("mod", number, index(factor)))
    last = sub(loop.extent, index(1))
    here = {loop.var: binary("min", place, last)}
    least = Const(value=-float("inf") if wide.is_float else int(wide.low or 0), dtype=wide)
    value = Select(condition=binary("le", place, last), a=substitute(found.value, here), b=least, dtype=found.value.dtype)
    extent = simplify_index(mul(found.k, index(factor)))
    left = Buffer(name=f"{stage}.left", dtype=dtype, shape=(*around, extent), space="global")
    kept = Ref(tensor=left.name, index=(*point, number))
    merged = replace(found, value=found.element(kept, dtype), position=substitute(found.position, here), point=number).body()
    fetched = replace(loop, var=number.name, extent=extent, bound=None, body=(Store(target=kept, value=value),), carried=False)
    return BestParts(
        buffers=(best, *ranked, order, left), best=(first,), left=(fetched,), part=(second,), order=_in_order(stage, axis, ranked[1], order, found.k, point),
        whole=(replace(loop, var=number.name, extent=extent, bound=None, body=merged),),
    )  # fmt: skip


def _in_order(stage: str, axis: str, numbers: Buffer, sorted_: Buffer, k: Expr, point: tuple[Expr, ...]) -> Block:
    """Different numbers, each where as many as come before it say."""
    own, other = Var(name=f"{stage}:{axis}.o"), Var(name=f"{stage}:{axis}.o.j")
    rank = Buffer(name=f"{stage}:rank", dtype=I32, shape=(), space="reg")
    here = Ref(tensor=rank.name, index=())
    mine, theirs = (Load(tensor=numbers.name, index=(*point, which), dtype=I32) for which in (own, other))
    before = Binary(op="lt", a=theirs, b=mine, dtype=BOOL)
    counted = Accumulate(targets=(here,), reducer=COUNT, values=(Cast(a=before, dtype=I32),), init=True)
    slot = Cast(a=Load(tensor=rank.name, index=(), dtype=I32), dtype=INDEX)
    body: Block = (
        Alloc(buffer=rank),
        For(var=other.name, extent=k, body=(counted,), reduce=True),
        If(condition=binary("lt", slot, k), then=(Store(target=Ref(tensor=sorted_.name, index=(*point, slot)), value=mine),)),
    )
    return (For(var=own.name, extent=k, body=body),)


