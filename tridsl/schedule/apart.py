"""Storage that each iteration of a loop has for itself gets a place for each, so that the loop may stand inside another.

    for j: alloc run; run = 0; for i: run += x[i, j]; y[i, j] = run
    ->   alloc run[J];  for j.init: run[j.init] = 0;  for j: for i: run[j] += x[i, j]; y[i, j] = run[j]
"""

from __future__ import annotations

from tridsl.ir.expr import Load, Var, index
from tridsl.ir.loop import Alloc, Block, For, Ref, Store
from tridsl.ir.walk import rewrite, substitute
from tridsl.schedule.nest import trip_bound
from tridsl.structs import replace

START = ".init"
"""Behind the name of the loop that starts what each iteration keeps."""


def apart(loop: For) -> Block | None:
    """What to write instead of `loop`, the last statement of which is the loop directly inside the last one's. None unless before its
    last statement, a loop, it only makes storage and stores its first values there, and is not longer than a known number."""
    bound = trip_bound(loop)
    *before, inner = loop.body
    allocs = [s for s in before if isinstance(s, Alloc)]
    starts = [s for s in before if isinstance(s, Store)]
    own = {a.buffer.name for a in allocs}
    if bound is None or not isinstance(inner, For) or not allocs or len(allocs) + len(starts) < len(before) or loop.carried or loop.kind != "serial":
        return None
    if any(s.target.tensor not in own or s.mask is not None for s in starts) or any(a.buffer.space == "shared" for a in allocs):
        return None  # what lanes share is one panel, filled again for each iteration
    variable = Var(name=loop.var)

    def each(block: Block) -> Block:
        return rewrite(
            block,
            {
                Load: lambda l: replace(l, index=(*l.index, variable)) if l.tensor in own else l,
                Ref: lambda r: replace(r, index=(*r.index, variable)) if r.tensor in own else r,
            },
        )

    wide = tuple(Alloc(buffer=replace(a.buffer, shape=(*a.buffer.shape, index(bound)), space="l1")) for a in allocs)
    first = f"{loop.var}{START}"
    started = replace(loop, var=first, body=substitute(each(tuple(starts)), {loop.var: Var(name=first)}))
    return (*wide, started, replace(loop, body=each((inner,))))
