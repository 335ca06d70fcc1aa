"""A sum that goes on from a buffer which was just updated as a whole takes the update along.

    for q < 64: vector e < 64: o[q, e] = o[q, e] * scale[q]          for q.o < 8:
    for q.o < 8:                                                       acc = 0
      acc = 0                                                          for t: … acc += …
      for t: … acc += …                                      ->        unroll q.i < 8: vector e < 64:
      unroll q.i < 8: vector e < 64: o[q.o*8 + q.i, e] += acc             o[q.o*8 + q.i, e] = o[q.o*8 + q.i, e] * scale[q.o*8 + q.i] + acc

The buffer is loaded and stored once less, and a multiply-add does both. Both nests must go over the same elements, each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tridsl.ir.affine import equal, normal_form
from tridsl.ir.expr import Binary, Expr, Load, Var, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Block, For, If, Kernel, Prefetch, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.schedule.nest import written
from tridsl.structs import replace

PLAIN = ("serial", "unroll", "vector")


def join_updates(kernel: Kernel) -> Kernel:
    """Every update directly before such a sum, in every phase."""
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body)) for p in kernel.phases))


def _block(block: Block) -> Block:
    out: list[Stmt] = []
    for statement in block:
        if isinstance(statement, For):
            statement = replace(statement, body=_block(statement.body))
            joined = _joined(out[-1], statement) if out else None
            if joined is not None:
                out[-1] = joined
                continue
        elif isinstance(statement, If):
            statement = replace(statement, then=_block(statement.then), otherwise=_block(statement.otherwise))
        out.append(statement)
    return tuple(out)


def _joined(update: Stmt, sum_: For) -> For | None:
    found = _nest(update)
    if found is None:
        return None
    loops, store = found
    name = store.target.tensor
    own = [n for n in walk(store.value) if isinstance(n, Load) and n.tensor == name]
    others = {n.tensor for n in walk(store.value) if isinstance(n, Load)} - {name}
    adding = list(_adding(sum_, name, ()))
    if store.mask is not None or not own or any(n.index != store.target.index or n.mask is not None for n in own) or len(adding) != 1 or others & written(sum_):
        return None
    path, added = adding[0]
    places = None if added is None else _places(store.target, loops, added.targets[0], path)
    if places is None or added is None or added.mask is not None or added.reducer.op is None:
        return None
    value = Binary(op=added.reducer.op, a=substitute(store.value, places), b=added.values[0], dtype=store.value.dtype)
    whole = Store(target=added.targets[0], value=value, span=added.span)
    return rewrite(sum_, {Accumulate: lambda node: whole if node == added else node})


def _nest(statement: Stmt) -> tuple[tuple[For, ...], Store] | None:
    """Plain loops around one store."""
    loops: list[For] = []
    while isinstance(statement, For) and len(statement.body) == 1 and statement.kind in PLAIN and not (statement.reduce or statement.carried):
        loops.append(statement)
        statement = statement.body[0]
    return (tuple(loops), statement) if loops and isinstance(statement, Store) else None


def _adding(statement: Stmt, name: str, path: tuple[For, ...]) -> Iterator[tuple[tuple[For, ...], Accumulate | None]]:
    """Where the tensor is touched, hints aside; None: in another way than by adding to it."""
    if isinstance(statement, For):
        if any(isinstance(n, Load) and n.tensor == name for n in walk(statement.extent)):
            yield path, None
        for inner in statement.body:
            yield from _adding(inner, name, (*path, statement))
    elif isinstance(statement, Accumulate) and [t.tensor for t in statement.targets] == [name] and not statement.init:
        yield path, None if any(isinstance(n, Load) and n.tensor == name for v in statement.values for n in walk(v)) else statement
    elif not isinstance(statement, Prefetch) and (name in written(statement) or any(isinstance(n, Load) and n.tensor == name for n in walk(statement))):
        yield path, None


def _places(target: Ref, loops: Sequence[For], tiled: Ref, path: Sequence[For]) -> dict[str, Expr] | None:
    """What stands for the update's variables at an element of the sum, where the loops around both go over all of the same elements."""
    places: dict[str, Expr] = {}
    left = {loop.var: loop for loop in path}
    if any(loop.reduce or loop.kind not in PLAIN for loop in path) or len(target.index) != len(tiled.index):
        return None
    extents = {loop.var: loop.extent for loop in loops}
    for at, place in zip(target.index, tiled.index):
        if not isinstance(at, Var) or at.name not in extents:
            if not equal(at, place):
                return None
            continue
        own = {name: loop for name, loop in left.items() if normal_form(place).coefficient(name) != 0}
        if at.name in places or not _covers(place, own, extents[at.name]):
            return None
        places[at.name] = place
        left = {name: loop for name, loop in left.items() if name not in own}
    return places if not left and set(places) == set(extents) else None


def _covers(place: Expr, loops: dict[str, For], extent: Expr) -> bool:
    """Whether `place` is each number below `extent` once: a number in digits, the last of them clipped where the extent is no multiple."""
    form = normal_form(place)
    factors = {name: form.coefficient(name) for name in loops}
    if form.constant or len(form.terms) != len(loops) or any(not f or f < 0 for f in factors.values()):
        return False
    for name in sorted(loops, key=lambda n: -(factors[n] or 0)):
        factor, loop = factors[name] or 0, loops[name]
        if not equal(loop.extent, extent if factor == 1 else ceildiv(extent, index(factor))):
            return False
        rest = minimum(index(factor), sub(extent, mul(Var(name=name), index(factor))))
        whole = normal_form(extent)
        extent = index(factor) if not whole.terms and whole.constant % factor == 0 else rest
    return bool(loops) and 1 in factors.values()
