"""`hoist`: fragments that every iteration of a loop would load from the same place are loaded before it.

    for t.o < 64:                                            alloc Q.f: f16[2, 4, 16, 16] in fragment
      subgroup s < 4:                                        subgroup s' < 4: … copy Q[s'*32 + …] → Q.f[…]
        alloc Q.f: f16[2, 4, 16, 16] in fragment      →      for t.o < 64:
        … copy Q[s*32 + …] → Q.f[…]                            subgroup s < 4:
        mma … Q.f …                                              mma … Q.f …

They take registers all the while, so only a few are.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from tridsl.backends.vulkan.lower_access import allocated, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const
from tridsl.ir.loop import Alloc, Block, Copy, CopyAxis, For, If, Kernel, Stmt
from tridsl.ir.walk import variables, walk
from tridsl.passes.fresh import fresh

MOST_ELEMENTS = 2048
"""Of fragments that a subgroup keeps: with 32 lanes and 2 bytes, 32 registers of each lane."""


def hoist(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Out of every serial loop around subgroups."""
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body)) for p in kernel.phases))


def _block(block: Block) -> Block:
    out: list[Stmt] = []
    for statement in block:
        match statement:
            case For(body=body):
                statement = replace(statement, body=_block(body))
                if statement.kind == "serial":
                    before, statement = _hoisted(statement)
                    out += before
            case If(then=then, otherwise=otherwise):
                statement = replace(statement, then=_block(then), otherwise=_block(otherwise))
        out.append(statement)
    return tuple(out)


def _hoisted(loop: For) -> tuple[Block, For]:
    before: list[Stmt] = []
    body: list[Stmt] = []
    changed = {ref.tensor for ref in written(loop.body)} | allocated(loop.body)
    inside = {n.var for n in walk(loop) if isinstance(n, For | CopyAxis)}
    for team in loop.body:
        if not isinstance(team, For) or team.kind != "subgroup":
            body.append(team)
            continue
        kept = list(team.body)
        for alloc in [s for s in team.body if isinstance(s, Alloc) and s.buffer.space == "fragment"]:
            fills = [s for s in team.body if s is not alloc and any(ref.tensor == alloc.buffer.name for ref in written(s))]
            sizes = [int(n.value) for n in alloc.buffer.shape if isinstance(n, Const)]
            if len(fills) != 1 or prod(sizes) > MOST_ELEMENTS or not _is_fixed(fills[0], changed - {alloc.buffer.name}, inside, team.var):
                continue
            kept = [s for s in kept if s is not alloc and s is not fills[0]]
            (own,) = fresh((replace(team, body=(fills[0],)),), ".once")
            before += (alloc, own)
        body.append(replace(team, body=tuple(kept)))
    return tuple(before), replace(loop, body=tuple(body))


def _is_fixed(fill: Stmt, changed: set[str], inside: set[str], team: str) -> bool:
    """Whether unrolled loops around one copy say where it reads, besides the subgroup and what is around the loop."""
    own: set[str] = {team}
    while isinstance(fill, For) and fill.kind == "unroll" and len(fill.body) == 1:
        own.add(fill.var)
        fill = fill.body[0]
    if not isinstance(fill, Copy) or fill.cooperative or fill.source.tensor in changed:
        return False
    own |= {axis.var for axis in fill.axes}
    return not (variables(fill.source) & inside) - own
