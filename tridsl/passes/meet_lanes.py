"""`meet_lanes`: lanes that add to one tile of results meet once, in shared memory, and each adds up some of the results.

    lane z < 4: lane x < 8:                       alloc parts: f32[4, 4, 8, 4] in shared
      acc[i, j] = …                               lane z < 4: lane x < 8:
      unroll i < 4: vector j < 4:                   acc[i, j] = …
        C[i, x*4 + j] += acc[i, j]  (init)   →      unroll i < 4: vector j < 4: parts[z, i, x, j] = acc[i, j]
                                                  lane z < 4: lane x < 8: unroll i < 1: vector j < 4:
                                                    C[z + i, x*4 + j] = parts[0, z + i, x, j] + parts[1, …] + parts[2, …] + parts[3, …]

Merged one by one, every element would cost the lanes a wait for each other of its own, and results that lie in memory a way there and back.
The parts are added in the order of the lanes, so the results are the same each time. It is done where the lanes that meet can divide the
tile among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import gcd

from tridsl.ir.expr import Binary, Const, Expr, Load, Var, add, binary, index, mul
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.walk import substitute
from tridsl.schedule.nest import stage_of
from tridsl.structs import dataclass, replace


def meet_lanes(kernel: Kernel) -> Kernel:
    """Every such tile, in every phase."""
    return replace(kernel, phases=tuple(replace(p, body=_block(p.body, frozenset())) for p in kernel.phases))


def _block(block: Block, reducing: frozenset[str]) -> Block:
    """`reducing`: stages with a loop of their sum around this block."""
    out: list[Stmt] = []
    for statement in block:
        match statement:
            case For(kind="lane"):
                meeting = _meeting(statement)
                out += (statement,) if meeting is None else _apart(meeting, alone=stage_of(statement.var) not in reducing)
            case For(var=variable, body=body):
                inside = reducing | {stage_of(variable)} if statement.reduce else reducing
                out.append(replace(statement, body=_block(body, inside)))
            case If(then=then, otherwise=otherwise):
                out.append(replace(statement, then=_block(then, reducing), otherwise=_block(otherwise, reducing)))
            case _:
                out.append(statement)
    return tuple(out)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Meeting:
    """`lanes`: nested loops over lanes, outer first; `shared`: the one of them whose lanes add to the same tile. `before`: what each lane
    does until then; `tile`: the loops over its results; `divided`: among how many of those lanes each of these loops is."""

    lanes: tuple[For, ...]
    shared: For
    before: Block
    tile: tuple[For, ...]
    divided: tuple[int, ...]
    accumulate: Accumulate


def _meeting(root: For) -> _Meeting | None:
    lanes, body = [root], root.body
    while len(body) == 1 and isinstance(body[0], For) and body[0].kind == "lane":
        lanes.append(body[0])
        body = body[0].body
    sharing = [loop for loop in lanes if loop.reduce]
    tile, inner = _nest(body[-1]) if len(body) > 1 else ((), None)
    if len(sharing) != 1 or not tile or not isinstance(inner, Accumulate) or inner.reducer.op is None:
        return None
    if not all(isinstance(loop.extent, Const) for loop in (*lanes, *tile)):
        return None
    place = tuple(Var(name=loop.var) for loop in tile)
    if not isinstance(inner.values[0], Load) or inner.values[0].index != place:
        return None
    left, divided = _count(sharing[0]), []
    for loop in tile:
        divided.append(gcd(_count(loop), left))
        left //= divided[-1]
    if left != 1:
        return None
    return _Meeting(lanes=tuple(lanes), shared=sharing[0], before=body[:-1], tile=tile, divided=tuple(divided), accumulate=inner)


def _nest(statement: Stmt) -> tuple[tuple[For, ...], Stmt]:
    """Directly nested loops of a lane's own, and the statement in them."""
    loops: list[For] = []
    while isinstance(statement, For) and statement.kind in ("unroll", "vector") and len(statement.body) == 1:
        loops.append(statement)
        statement = statement.body[0]
    return tuple(loops), statement


def _count(loop: For) -> int:
    return int(loop.extent.value) if isinstance(loop.extent, Const) else 0


def _apart(meeting: _Meeting, *, alone: bool) -> Block:
    """`alone`: the lanes' parts are the whole sum."""
    lanes, shared, tile, accumulate = meeting.lanes, meeting.shared, meeting.tile, meeting.accumulate
    reducer, parts = accumulate.reducer, _count(meeting.shared)
    others = [loop for loop in lanes if loop is not shared]
    axes = (shared, *tile[:-1], *others, tile[-1])  # neighbouring lanes write neighbouring words
    buffer = Buffer(
        name=f"{stage_of(shared.var)}:parts", dtype=reducer.dtypes[0], shape=tuple(index(_count(loop)) for loop in axes), space="shared"
    )
    mine = Store(target=Ref(tensor=buffer.name, index=tuple(Var(name=loop.var) for loop in axes)), value=accumulate.values[0])
    first = _around((*lanes,), (*meeting.before, *_around(tile, (mine,))))

    names = {loop.var: Var(name=f"{loop.var}.meet") for loop in (*lanes, *tile)}
    places: dict[str, Expr] = {**names}
    lane: Expr = names[shared.var]
    left = parts
    less = []
    for loop, among in zip(tile, meeting.divided):
        few = _count(loop) // among
        if among > 1:
            place = lane if among == left else binary("mod", lane, index(among))
            places[loop.var] = add(mul(place, index(few)), names[loop.var])
            lane, left = binary("floordiv", lane, index(among)), left // among
        less.append(replace(loop, extent=index(few), bound=few))
    total: Expr | None = None
    for part in range(parts):
        at = (index(part), *(places[loop.var] for loop in axes[1:]))
        value = Load(tensor=buffer.name, index=at, dtype=buffer.dtype)
        total = value if total is None else Binary(op=reducer.op, a=total, b=value, dtype=reducer.dtypes[0])  # type: ignore[arg-type]  # `_meeting` asked for an operation
    assert total is not None
    target = substitute(accumulate.targets[0], places)
    mask = None if accumulate.mask is None else substitute(accumulate.mask, places)
    merged: Stmt = replace(accumulate, targets=(target,), values=(total,), mask=mask)
    if accumulate.init and alone:
        merged = Store(target=target, value=total, mask=mask)
    second = _around([_renamed(loop, names) for loop in (*lanes, *less)], (merged,))
    return (Alloc(buffer=buffer), *first, *second)


def _renamed(loop: For, names: dict[str, Var]) -> For:
    return replace(loop, var=names[loop.var].name, reduce=False)


def _around(loops: Sequence[For], body: Block) -> Block:
    for loop in reversed(loops):
        body = (replace(loop, body=body),)
    return body
