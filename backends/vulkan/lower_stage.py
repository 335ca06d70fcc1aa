"""`stage`: copies that lanes make together become copies of each lane, 16 bytes at a time, and are fetched ahead of use.

                                                           alloc A.next: f32[8] in reg
    for k.o < 256:                                         unroll q < 2: copy A[… 0 …] → A.next[q*4 + e], e < 4
      copy A[… k.o …] → A.s[i, k] cooperative (× 2)    →   for k.o < 256:
      … A.s …                                                barrier;  unroll q < 2: copy A.next[q*4 + e] → A.s[…];  barrier
                                                             if k.o + 1 < 256: unroll q < 2: copy A[… k.o + 1 …] → A.next[…]
                                                             … A.s …

Memory answers while the lanes compute: that is what `pipeline(1)` (two buffers) means here; the second buffer is the lanes' registers. With one
buffer both halves stand together. Further ahead, or with several panels in shared memory, iterations take turns (`panel_turns`). A panel whose size
is not known is left to the emitter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from tridsl.backends.vulkan.contiguous import Strides, plain_tensors
from tridsl.backends.vulkan.group_shape import group_lanes, subgroup_lanes
from tridsl.backends.vulkan.lower_access import is_bound, written
from tridsl.backends.vulkan.panel_chunks import Panel, in_lanes, moves_of, panel_of
from tridsl.backends.vulkan.panel_turns import Turns, panel_name, with_turns
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.expr import Const, Expr, Var, add, binary, index
from tridsl.ir.loop import Alloc, Barrier, Block, Buffer, Copy, For, If, Kernel, Stmt
from tridsl.ir.walk import substitute, walk
from tridsl.passes.fresh import fresh


def stage(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Cooperative copies that stand in a serial loop inside lanes or subgroups, or around them."""
    tensors, around, row = plain_tensors(kernel), 0, True
    subgroup = subgroup_lanes(spec)

    def size(team: tuple[For, ...]) -> int | None:
        return _team_size(team, subgroup) if row or in_lanes(team) else None

    def visit(block: Block, team: tuple[For, ...], buffers: Mapping[str, Buffer]) -> Block:
        out: list[Stmt] = []
        for statement in block:
            if isinstance(statement, Alloc):
                buffers = {**buffers, statement.buffer.name: statement.buffer}
            if isinstance(statement, For):
                inner = (*team, statement) if statement.kind in ("lane", "subgroup") else team
                body = visit(statement.body, inner, buffers)
                body = _at_once(body, inner, size(inner), tensors, buffers) if inner is not team else body
                statement = replace(statement, body=body)
                width = size(team) if team else around
                out += _staged(statement, team, width, tensors, buffers) if width and statement.kind == "serial" else (statement,)
            elif isinstance(statement, If):
                then, otherwise = visit(statement.then, team, buffers), visit(statement.otherwise, team, buffers)
                out.append(replace(statement, then=then, otherwise=otherwise))
            else:
                out.append(statement)
        return tuple(out)

    phases = []
    for phase in kernel.phases:
        lanes = group_lanes(phase, spec)
        row = lanes[1:] == (1, 1)  # what lanes in a plane keep around their loops has no place in `lower_registers`
        around = prod(lanes) if row and is_bound(phase.body) else 0  # for loops around those over lanes
        body = visit(phase.body, (), {})
        several = {n.target.tensor: n.panels for n in walk(phase.body) if isinstance(n, Copy) and n.panels > 1}
        filled = {n.target.tensor for n in walk(body) if isinstance(n, Copy)} if several else set()
        turns = {name: panels for name, panels in several.items() if panel_name(name, panels - 1) in filled}
        phases.append(replace(phase, body=with_turns(body, turns) if turns else body))
    return replace(kernel, phases=tuple(phases))


def _team_size(team: tuple[For, ...], subgroup: int) -> int | None:
    """Lanes of the workgroup, where all of them are always there."""
    count = subgroup if any(loop.kind == "subgroup" for loop in team) else 1
    for loop in team:
        if not isinstance(loop.extent, Const):
            return None
        count *= int(loop.extent.value)
    return count if team else None


def _staged(loop: For, team: tuple[For, ...], lanes: int, tensors: Mapping[str, tuple[DType, Strides]], buffers: Mapping[str, Buffer]) -> Block:
    copies = [s for s in loop.body if isinstance(s, Copy) and s.cooperative]
    buffers = {**buffers, **{s.buffer.name: s.buffer for s in loop.body if isinstance(s, Alloc)}}
    panels = [panel_of(copy, lanes, tensors, buffers) for copy in copies]
    known = [panel for panel in panels if panel is not None]
    touched = {ref.tensor for ref in written(loop.body)}
    if not known or len(known) < len(panels) or any(copy.source.tensor in touched for copy in copies):
        return (loop,)
    first = loop.body.index(copies[0])
    before = loop.body[: first - 1] if first and loop.body[first - 1] == Barrier() else loop.body[:first]
    if any(isinstance(n, Copy) and n.cooperative for s in loop.body if s not in copies for n in walk(s)):
        return (loop,)
    behind = loop.body[first:]
    last = max(n for n, s in enumerate(behind) if s in copies)
    rest = tuple(s for n, s in enumerate(behind) if s not in copies and not (n < last and s == Barrier()))
    filled = {copy.target.tensor for copy in copies}
    own = tuple(s for s in rest if isinstance(s, Alloc) and s.buffer.name in filled)
    before, rest = (*before, *own), tuple(s for s in rest if s not in own)
    extent = int(loop.extent.value) if isinstance(loop.extent, Const) else 0
    shared = min(copy.panels for copy in copies) if extent > 1 else 1
    depth = min(copy.buffers for copy in copies) - 1
    if extent and (depth > 1 or shared > 1):
        depth = max(1, min(depth, extent - shared + 1))
        held = tuple(s for s in before if isinstance(s, Alloc))  # one for all iterations
        body = (*(s for s in before if s not in held), *rest)
        turns = Turns(loop=loop, body=body, panels=tuple(known), team=team, extent=extent, depth=depth, shared=shared)
        registers = tuple(Alloc(buffer=_next(replace(panel, turn=turn), team)) for turn in range(depth) for panel in known)
        return (*registers, *held, *turns.written_out())
    allocs = tuple(Alloc(buffer=_next(panel, team)) for panel in known)
    store = (Barrier(), *(s for panel in known for s in moves_of(panel, team, panel.copy, out=True)), Barrier())

    def load(step: Expr | None) -> Block:
        source = {} if step is None else {loop.var: step}
        return tuple(s for p in known for s in moves_of(p, team, replace(p.copy, source=substitute(p.copy.source, source)), out=False))

    if not depth:
        return (*allocs, replace(loop, body=(*before, *load(None), *store, *rest)))
    following = add(Var(name=loop.var), index(1))
    fetch = If(condition=binary("lt", following, loop.extent), then=fresh(load(following), ".ahead"))
    begin: Block = load(index(0))
    if not extent:
        begin = (If(condition=binary("gt", loop.extent, index(0)), then=begin),)
    return (*allocs, *begin, replace(loop, body=(*before, *store, fetch, *rest)))


def _at_once(block: Block, team: tuple[For, ...], lanes: int | None, tensors: Mapping[str, tuple[DType, Strides]], buffers: Mapping[str, Buffer]) -> Block:
    """Copies that stand in no loop: one panel is the whole sum."""
    if not lanes or not any(isinstance(s, Copy) and s.cooperative for s in block):
        return block
    single = tuple(replace(s, buffers=1) if isinstance(s, Copy) and s.cooperative else s for s in block)
    *allocs, loop = _staged(For(var="<once>", extent=index(1), bound=1, body=single), team, lanes, tensors, buffers)
    assert isinstance(loop, For)
    return (*allocs, *loop.body) if allocs else block


def _next(panel: Panel, team: tuple[For, ...]) -> Buffer:
    """Where a lane keeps its chunks: its own registers inside loops over lanes, its part of an array around them otherwise."""
    own = index(panel.each * panel.held)
    shape = (own,) if in_lanes(team) else (index(panel.lanes), own)
    return Buffer(name=panel.name, dtype=panel.dtype, shape=shape, space="reg")
