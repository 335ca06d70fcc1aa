"""Accumulate in registers (or the nearest cache) while the innermost reduction runs.

    for k.o: for i.o:                               for k.o: for i.o:
      for k.i < 256:                                  alloc acc: f32[12, 32] in reg = 0;  prefetch C
        unroll i.i < 12: vector j.i < 32:       ->    for k.i < 256: … acc[i.i, j.i] += A * B
          C[i, j] += A * B                            if k.o == 0: C = acc   else: C += acc

What earlier rounds left in `C` is added behind the loop: loaded before it, the loop would wait for it. (A reducer of several
states, or whose merge is no single operation, continues from what is in memory.)
Lanes that share a reduction each have a tile, and add them up behind their loops. An accumulation without `init` goes on from what its targets hold.
The tile is made of the independent loops inside the innermost run of reduce loops. Its size must be constant and small;
otherwise `place_init` lets the reduction work in memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import takewhile

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.dtypes import BOOL, DType, compute_type
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var, binary, both, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, Copy, For, If, Kernel, Prefetch, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.place_init import start_nest
from tridsl.schedule.nest import stage_of, trip_bound
from tridsl.structs import replace

REGISTER_BYTES = 2048
"""A tile of unrolled and vector loops up to this size is held in registers (32 of 64 bytes)."""
CACHE_BYTES = 16384
GROUP_BYTES = 131072
"""A tile up to this size is held in the registers of all lanes of a workgroup (a GPU's core has 256 KiB of them)."""
PREFETCHED_BYTES = 512
"""A tile from this size on (eight cache lines, which a core waits for in turns) is fetched while the loop runs, if it is read. (Lines that are
only stored are better left alone: f32 4096 x 64 x 4096 takes 0.98 of the time that it takes with hints, 1024 cubed the same.)"""


def register_tiles(kernel: Kernel, *, joining: bool = True) -> Kernel:
    """Every reduction that fits, in every phase. `joining` False: every tile starts from what is in memory, for devices whose accumulators
    are loaded as they are (AI Engine) and that do not wait for it, and none is held while a panel is waited for."""
    types = {b.name: b.dtype for b in kernel.scratch} | {p.name: p.dtype for p in kernel.params}
    types |= {n.buffer.name: n.buffer.dtype for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}

    kept = frozenset(n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc) and n.buffer.space == "fragment")

    def visit(block: Block, above: tuple[For, ...]) -> Block:
        out: list[Stmt] = []
        for statement in block:
            if isinstance(statement, For):
                waits = not joining and any(isinstance(n, Copy) for n in statement.body)
                tiled = _tile(statement, above, types, kept, joining) if statement.reduce and not waits else None
                if tiled is None:
                    inner = replace(statement, body=visit(statement.body, (*above, statement)))
                    out += (*_when_empty(statement, inner, above), inner)
                else:
                    out += tiled
            elif isinstance(statement, If):
                out.append(replace(statement, then=visit(statement.then, above), otherwise=visit(statement.otherwise, above)))
            else:
                out.append(statement)
        return tuple(out)

    return replace(kernel, phases=tuple(replace(p, body=visit(p.body, ())) for p in kernel.phases))


def _when_empty(before: For, after: For, above: tuple[For, ...]) -> Block:
    """A reduction of several loops that were tiled inside starts in the first iteration; with none, it starts here.

    Loops that shrink as others advance (tails) are longest in the first iteration: one that is empty there is never entered.
    """
    stage = stage_of(before.var)
    first = before.reduce and not any(l.reduce and stage_of(l.var) == stage for l in above)
    found = _path((before,), stage)
    if not first or found is None or not found[1].init or any(isinstance(n, Accumulate) and n.init for n in walk(after)):
        return ()
    loops, _ = found
    last = max(n for n, loop in enumerate(loops) if loop.reduce)
    while last and loops[last - 1].reduce and _path((loops[last - 1],)) is not None:
        last -= 1  # the innermost run of reduce loops is inside the tile, up to where another stage is computed
    start = {loop.var: index(0) for loop in loops}
    empty: Expr | None = None
    for loop in loops[:last]:
        extent = simplify_index(substitute(loop.extent, start))
        if loop.reduce and not (isinstance(extent, Const) and int(extent.value) > 0):
            nothing = binary("le", extent, index(0))
            empty = nothing if empty is None else Binary(op="or", a=empty, b=nothing, dtype=BOOL)
    return () if empty is None else (If(condition=empty, then=start_nest(*found)),)


def _path(block: Block, stage: str | None = None) -> tuple[tuple[For, ...], Accumulate] | None:
    """The one accumulation in `block` (of its stage, not of those that are computed where it reads them) and the loops leading to it."""
    found: list[tuple[tuple[For, ...], Accumulate]] = []

    def search(inner: Block, loops: tuple[For, ...]) -> None:
        for statement in inner:
            if isinstance(statement, For):
                if stage is None or stage_of(statement.var) == stage:
                    search(statement.body, (*loops, statement))
            elif isinstance(statement, If):
                found.extend([((), n) for n in walk(statement) if isinstance(n, Accumulate)] * 2)
            elif isinstance(statement, Accumulate):
                found.append((loops, statement))

    search(block, ())
    return found[0] if len(found) == 1 else None


def _tile(
    root: For, above: tuple[For, ...], types: Mapping[str, DType], kept: frozenset[str], joining: bool) -> Block | None:
    """`kept`: buffers in registers as it is."""
    found = _path((root,))
    if found is None:
        return None
    loops, accumulate = found
    stage = stage_of(root.var)
    sharing = [l for l in above if l.reduce and l.kind in ("vector", "lane", "subgroup") and stage_of(l.var) == stage]
    if any(l.kind != "lane" for l in sharing):
        return None  # the lanes add to one result: none of them can hold it
    run = list(takewhile(lambda l: l.reduce, loops))
    inside = list(loops)[len(run) :]
    # an instruction's own depth stays inside the tile; any other reduction there starts a tile of its own
    depth = [l for l in inside if l.reduce] if accumulate.intrinsic else []
    tile = [l for l in inside if not l.reduce]
    if inside != tile + depth or any(l.kind in ("parallel", "group", "column", "row") for l in tile):
        return None
    if (sharing and not (tile and _joins(accumulate, types))) or (root.kind == "lane" and tile and len(run) > 1):
        return None  # a single value of each lane is `vulkan.partials`' work; a tile of each lane starts inside its loop
    if any(t.tensor in kept for t in accumulate.targets):
        return None  # fragments are registers
    bounds = [l.bound if l.kind == "vector" and l.bound else trip_bound(l) for l in tile]  # whole vectors of lanes
    if any(b is None for b in bounds):
        return None
    sizes = [int(b or 0) for b in bounds]
    count = 1
    for size in sizes:
        count *= size
    reducer = accumulate.reducer
    total = sum(count * dtype.storage_bytes for dtype in reducer.dtypes)
    row = INTRINSICS[accumulate.intrinsic] if accumulate.intrinsic is not None else None
    straight = not (row is not None and row.is_matrix) and all(l.kind in ("unroll", "vector", "lane") for l in tile)
    if total > (GROUP_BYTES if row is not None and row.grouped else REGISTER_BYTES if straight else CACHE_BYTES):
        return None
    space = "reg" if straight else "l1"
    buffers = [
        Buffer(name=f"{stage}:acc.{state}", dtype=dtype, shape=tuple(index(n) for n in sizes), space=space, padded=(True,) * len(sizes))  # type: ignore[arg-type]
        for state, dtype in zip(reducer.states, reducer.dtypes)
    ]
    place = tuple(Var(name=l.var) for l in tile)
    outer = [l for l in above if l.reduce and stage_of(l.var) == stage]
    starting: Expr | None = None
    for loop in outer:
        if loop.extent == index(1):
            continue  # what it holds is never read again: no need to fetch it, either
        starting = both(starting, Binary(op="eq", a=Var(name=loop.var), b=index(0), dtype=BOOL))

    def fill(suffix: str, full: bool, body: Block) -> Block:
        names: dict[str, Expr] = {l.var: Var(name=f"{l.var}.{suffix}") for l in tile}
        inner = substitute(body, names)
        for loop, size in reversed(list(zip(tile, sizes))):
            extent = index(size) if full else substitute(loop.extent, names)
            inner = (replace(loop, var=f"{loop.var}.{suffix}", extent=extent, bound=size, body=inner),)
        return inner

    valid: Expr | None = None
    for loop, size in zip(tile, sizes):
        if loop.extent != index(size):
            valid = both(valid, binary("lt", Var(name=loop.var), loop.extent))
    asked = accumulate.mask is not None and variables(accumulate.mask) & {l.var for l in (*run, *depth, *outer)}
    written = None if asked else accumulate.mask  # which results there are is asked where they are stored, which terms count in the loop
    zero, load, store, held = [], [], [], []
    for buffer, target, identity in zip(buffers, accumulate.targets, reducer.identity):
        here = Ref(tensor=buffer.name, index=place)
        zero.append(Store(target=here, value=identity))
        dtype = types[target.tensor]
        there = both(valid, written)
        other = None if there is None else Const(value=identity.value, dtype=dtype)
        before = Load(tensor=target.tensor, index=target.index, dtype=dtype, mask=there, other=other)
        load.append(Store(target=here, value=_as(compute_type(buffer.dtype), before)))
        held.append(_as(compute_type(buffer.dtype), Load(tensor=buffer.name, index=place, dtype=buffer.dtype)))
        store.append(Store(target=target, value=_as(compute_type(dtype), held[-1]), mask=written))  # sums may be kept in a narrower type
    zeroed, loaded = fill("zero", True, tuple(zero)), fill("in", True, tuple(load))
    stored = fill("out", False, tuple(store))
    from_memory = row is not None and row.loads_sums
    joins = bool(sharing) or (joining and not from_memory and _joins(accumulate, types) and (starting is not None or not accumulate.init))
    added = replace(accumulate, values=tuple(held), init=bool(sharing) and accumulate.init, intrinsic=None)
    joined = fill("add", False, (added,)) if joins else stored
    entry = zeroed if joins or accumulate.init else loaded
    leave = stored if accumulate.init else joined
    if sharing:
        leave = joined  # across the lanes
    elif accumulate.init and starting is not None:
        if joins:
            leave = (If(condition=starting, then=stored, otherwise=joined),)
        else:
            entry = (If(condition=starting, then=zeroed, otherwise=loaded),)
    if joins and straight and total >= PREFETCHED_BYTES:
        fetch = tuple(Prefetch(tensor=t.tensor, index=t.index) for t in accumulate.targets)
        entry = (*entry, *fill("fetch", False, fetch))
    local = replace(
        accumulate, targets=tuple(Ref(tensor=b.name, index=place) for b in buffers), init=False, mask=accumulate.mask if asked else None
    )
    main = rewrite((root,), {Accumulate: lambda node: local if node == accumulate else node})
    return (*(Alloc(buffer=b) for b in buffers), *entry, *main, *leave)


def _joins(accumulate: Accumulate, types: Mapping[str, DType]) -> bool:
    """Whether a part's result can be merged into what is in memory: one operation, in the type that memory has."""
    reducer = accumulate.reducer
    return reducer.op is not None and all(types[t.tensor] == d for t, d in zip(accumulate.targets, reducer.dtypes))


def _as(dtype: DType, value: Expr) -> Expr:
    return value if value.dtype == dtype else Cast(a=value, dtype=dtype)
