"""Vector loops of any length become loops over whole registers, with a masked last one.

    vector n < N: s += x[n]       ->      alloc part: f32[4, 16] in reg;  part = 0
                                          for n.o < N // 64: unroll u < 4: vector w < 16: part[u, w] += x[(n.o*4 + u)*16 + w]
                                          for n.t < ceil(N % 64 / 16): vector w < min(16, …): part[0, w] += x[…]
                                          part[0] += part[1] …;  vector w < 16: s += part[0, w]

Where stores should be aligned (`passes.leads`), the lanes up to the first aligned element come first, as a masked register.
Loops whose bound is already a few registers (a register tile) are left alone. Storage that a vector loop's body
allocates gets a lane axis and moves in front of the loop.
"""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import BOOL, DType, compute_type
from tridsl.ir.affine import simplify_index
from tridsl.ir.counts import counted_condition
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Load, Var, add, binary, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, For, If, Kernel, LoopKind, Ref, Stmt, Store
from tridsl.ir.op import Reducer, Tensor
from tridsl.ir.scans import scan_of
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.passes.fresh import fresh
from tridsl.passes.leads import lead_of
from tridsl.passes.partials import partial_of
from tridsl.structs import dataclass, replace

REDUCE_UNROLL = 8
"""Independent partial results: enough to hide the latency of an addition (4 cycles) with two a cycle. Fewer where each has several
states: more work a register hides more latency, and every copy is code to compile."""
HEAVY_UNROLL = 2
"""The same for bodies that call transcendental functions: they have latency to hide of their own."""
TILE_REGISTERS = 4
"""A vector loop of up to this many whole registers is taken as written."""
COUNTED_BITS = 16
"""Elements whose masks have at least four times the lanes that a register has of 64-bit counts."""
HELD_REGISTERS = 16
"""The same for one that has storage for each lane (scans side by side), or whose lanes go round in rows: its schedule chose how many."""


def strip_vectors(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Strips the vector loops for the device's registers; a device without a vector width keeps its loops."""
    if not spec.vector_bits:
        return kernel
    types: dict[str, DType] = {b.name: b.dtype for b in kernel.scratch} | {p.name: p.dtype for p in kernel.params}
    types |= {n.buffer.name: n.buffer.dtype for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    results = {p.name: p for p in kernel.params if isinstance(p, Tensor) and p.role != "input"}

    def visit(block: Block) -> Block:
        out: list[Stmt] = []
        for statement in block:
            if isinstance(statement, For):
                inner = replace(statement, body=visit(statement.body))
                if inner.kind == "vector" and inner.carried and not _in_lane_order(inner):
                    inner = replace(inner, kind="serial")  # a panel was put into it, say
                out += _strip(inner, spec, types, results) if inner.kind == "vector" else (inner,)
            elif isinstance(statement, If):
                out.append(replace(statement, then=visit(statement.then), otherwise=visit(statement.otherwise)))
            else:
                out.append(statement)
        return tuple(out)

    return replace(kernel, phases=tuple(replace(p, body=visit(p.body)) for p in kernel.phases))


def _lanes(loop: For, spec: DeviceSpec, types: dict[str, DType]) -> int:
    """Lanes of the widest type in the body; twice that when narrow memory is widened (two registers a step)."""
    bits = {t.storage_bits for t in _types(loop, spec, types)}
    widest, narrowest = max(bits, default=32), min(bits, default=32)
    lanes = max(1, (spec.vector_bits or 0) // widest)
    return lanes * 2 if narrowest * 4 <= widest else lanes


def _types(loop: For, spec: DeviceSpec, types: dict[str, DType]) -> list[DType]:
    found: list[DType] = []
    counting = _counts(loop, spec)
    for statement in loop.body:
        if isinstance(statement, Store) and (source := statement.copied(types.get(statement.target.tensor, BOOL))) is not None:
            found.append(source.dtype)
            continue
        for node in walk(statement):
            if isinstance(node, Load) and any(loop.var in variables(i) for i in node.index):
                found += [node.dtype, compute_type(node.dtype)]
            elif isinstance(node, Ref) and node.tensor in types and any(loop.var in variables(i) for i in node.index):
                found += [types[node.tensor], compute_type(types[node.tensor])]
            elif isinstance(node, Accumulate):
                if counting:
                    continue
                reducer = partial_of(node, loop, spec).reducer if _across(node, loop) and not _in_place(loop, spec) else node.reducer
                found += [d for d in reducer.dtypes if d != BOOL]
            elif isinstance(node, Append):
                found += [types[tensor] for tensor in node.tensors]
            elif isinstance(node, Cast) and node.dtype.bits > 8 and node.dtype.name != "i64" and not (counting and node.a.dtype == BOOL):
                found.append(node.dtype)
    return found


def _strip(loop: For, spec: DeviceSpec, types: dict[str, DType], results: dict[str, Tensor]) -> Block:
    lanes = _lanes(loop, spec, types)
    states = sum(len(partial_of(n, loop, spec).reducer.states) for n in _reductions(loop))
    size = int(loop.extent.value) if isinstance(loop.extent, Const) else loop.bound
    while size is not None and lanes >= 2 * size > 0:
        lanes //= 2  # a short loop gets a short vector
    if _is_tile(loop, lanes, size):
        return _with_lane_axis(loop, loop.bound or 0)
    appends = any(isinstance(n, Append) for s in loop.body for n in walk(s))
    factor = 1
    if states and not _in_place(loop, spec):
        heavy = any(isinstance(n, Call) and n.dtype != BOOL for s in loop.body for n in walk(s))
        factor = HEAVY_UNROLL if heavy else REDUCE_UNROLL
        while factor > HEAVY_UNROLL and factor * states > (spec.vector_registers or 16) // 4:
            factor //= 2
    if appends:
        factor = 1
    while factor > 1 and size is not None and size < lanes * factor * 2:
        factor //= 2
    body, before, after = _partials(loop, lanes, factor, spec)
    width, step = index(lanes), index(lanes * factor)
    lead = lead_of(loop, lanes, results, spec)
    first = index(0) if lead is None else lead
    whole = simplify_index(binary("floordiv", sub(loop.extent, first), step))
    done = add(first, mul(whole, step))
    rest = simplify_index(sub(loop.extent, done))
    outer, copy, lane, tail = (Var(name=f"{loop.var}.{part}") for part in ("v", "u", "w", "t"))
    base = replace(loop, kind="serial", binding=None)

    def at(position: Expr, unrolled: Expr) -> Block:
        return substitute(body, {loop.var: position, f"{loop.var}.u": unrolled, f"{loop.var}.w": lane})

    main = at(simplify_index(add(add(first, add(mul(outer, step), mul(copy, width))), lane)), copy)
    across = loop.reduce and _in_place(loop, spec)  # else lanes have their own parts
    scans = scan_of(loop) is not None
    vector = For(var=lane.name, extent=width, bound=lanes, kind="vector", body=main, reduce=across, carried=scans)
    if factor > 1:
        vector = For(var=copy.name, extent=index(factor), bound=factor, kind="unroll", body=(vector,))
    else:
        vector = substitute(vector, {copy.name: index(0)})
    blocks: list[Stmt] = [replace(base, var=outer.name, extent=whole, bound=None if size is None else size // (lanes * factor), body=(vector,))]
    if lead is not None:
        head = For(var=lane.name, extent=lead, bound=lanes, kind="vector", body=at(lane, index(0)))
        blocks = [*fresh((head,), ".h"), *blocks]
    if rest != index(0):
        last = at(simplify_index(add(add(done, mul(tail, width)), lane)), index(0))
        partial = minimum(width, simplify_index(sub(rest, mul(tail, width))))
        masked = For(var=lane.name, extent=partial, bound=lanes, kind="vector", body=last, reduce=across, carried=scans)
        remaining = replace(base, var=tail.name, extent=simplify_index(ceildiv(rest, width)), bound=factor, body=(masked,))
        blocks += fresh((remaining,), ".r")
    done_blocks: list[Stmt] = []
    for block in blocks:
        done_blocks += rewrite((block,), {For: lambda f: _with_lane_axis(f, lanes) if f.kind == "vector" else f})
    return (*before, *done_blocks, *after)


def _is_tile(loop: For, lanes: int, size: int | None) -> bool:
    """A few whole registers, of which at most the last has idle lanes."""
    if loop.bound is None or size is None or loop.bound % lanes or loop.bound - size >= lanes:
        return False
    held = any(isinstance(s, Alloc) for s in loop.body) or _is_periodic(loop)
    return loop.bound <= lanes * (1 if _reductions(loop) else HELD_REGISTERS if held else TILE_REGISTERS)


def _is_periodic(loop: For) -> bool:
    """Whether lanes are at places such as `n % 3` of rows: those of other numbers of registers would be elsewhere each time."""
    places = (i for n in walk(loop.body) if isinstance(n, Load | Ref) for i in n.index)
    found = (n for i in places for n in walk(i) if isinstance(n, Binary) and n.op in ("mod", "floordiv"))
    return any(loop.var in variables(n.a) and isinstance(n.b, Const) for n in found)


def _across(node: Accumulate, loop: For) -> bool:
    """Whether the accumulation combines the lanes: its target is one for all of them, made outside the loop."""
    local = {n.buffer.name for s in loop.body for n in walk(s) if isinstance(n, Alloc)}
    return not any(t.tensor in local or any(loop.var in variables(i) for i in t.index) for t in node.targets)


def _in_lane_order(loop: For) -> bool:
    """Whether what goes from one iteration to the next is of a kind that lanes keep in order."""
    return scan_of(loop) is not None or any(isinstance(n, Append) for s in loop.body for n in walk(s))


def _reductions(loop: For) -> list[Accumulate]:
    return [n for s in loop.body for n in walk(s) if isinstance(n, Accumulate) and _across(n, loop)]


def _in_place(loop: For, spec: DeviceSpec) -> bool:
    """Whether lanes are combined at once: in order, running, into a target for each iteration of a loop in the body, or by counting the
    ones of a mask of many narrow lanes, which lanes as wide as the count would have to be made of."""
    if scan_of(loop) is not None or _counts(loop, spec):
        return True
    inner = {n.var for s in loop.body for n in walk(s) if isinstance(n, For)}
    return any(not n.reducer.commutative or inner & variables(tuple(n.targets)) for n in _reductions(loop))


def _counts(loop: For, spec: DeviceSpec) -> bool:
    """Whether all that is combined are counts of conditions on elements of at most 16 bits, each a lane of a mask."""
    found = _reductions(loop)
    counts = bool(found) and all(counted_condition(n) is not None for n in found)
    bits = [n.dtype.storage_bits for s in loop.body for n in walk(s) if isinstance(n, Load) and any(loop.var in variables(i) for i in n.index)]
    return counts and spec.has_masks and len(loop.body) == 1 and max(bits, default=64) <= COUNTED_BITS


def _partials(loop: For, lanes: int, factor: int, spec: DeviceSpec) -> tuple[Block, Block, Block]:
    """The body with reductions across the lanes turned into partial results; statements before and after the loop."""
    before: list[Stmt] = []
    after: list[Stmt] = []
    count = 0
    if _in_place(loop, spec):
        return loop.body, (), ()
    copy, lane = Var(name=f"{loop.var}.u"), Var(name=f"{loop.var}.w")

    def visit(node: Accumulate) -> Accumulate:
        nonlocal count
        if not _across(node, loop):
            return node
        count += 1
        name = f"{loop.var}.part{count if count > 1 else ''}"
        form = partial_of(node, loop, spec)
        parts = _Parts.of(name, form.reducer, lanes, factor, form.shared)
        before.extend(Alloc(buffer=b) for b in parts.buffers)
        u, w = Var(name=f"{name}.u"), Var(name=f"{name}.w")
        start = form.start(simplify_index(add(mul(u, index(lanes)), w)))
        before.append(_over(f"{name}.u", factor, "unroll", _over(f"{name}.w", lanes, "vector", _stores(parts.at(u, w), start))))
        merged, merging = parts, form.reducer
        if not form.mergeable:
            merged, merging = _Parts.of(f"{name}.own", node.reducer, lanes, factor, (False,) * len(node.reducer.states)), node.reducer
            after.extend(Alloc(buffer=b) for b in merged.buffers)
            u, w = Var(name=f"{name}.f"), Var(name=f"{name}.v")
            own = _stores(merged.at(u, w), form.finish(parts.loads(u, w)))
            after.append(_over(u.name, factor, "unroll", _over(w.name, lanes, "vector", own)))
        stride = factor // 2
        while stride:
            u, w = Var(name=f"{name}.j{stride}"), Var(name=f"{name}.m{stride}")
            merge = replace(node, reducer=merging, targets=merged.at(u, w), values=merged.loads(add(u, index(stride)), w), mask=None)
            after.append(_over(u.name, stride, "unroll", _over(w.name, lanes, "vector", (merge,))))
            stride //= 2
        w = Var(name=f"{name}.x")
        states = merged.loads(index(0), w)
        final = replace(node, values=form.finish(states) if form.mergeable else states, mask=None)
        after.append(_over(w.name, lanes, "vector", (final,), reduce=True))
        return replace(node, reducer=form.reducer, targets=parts.at(copy, lane), values=form.values)

    body = rewrite(loop.body, {Accumulate: visit})
    return body, tuple(before), tuple(after)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """Register storage for the states of a reducer: one element for each lane and copy, or for each lane and two copies."""

    buffers: tuple[Buffer, ...]
    shared: tuple[bool, ...]

    @classmethod
    def of(cls, name: str, reducer: Reducer, lanes: int, factor: int, shared: tuple[bool, ...]) -> _Parts:
        shared = tuple(together and factor > 2 for together in shared)  # of two copies each has its own
        copies = [factor // 2 if together else factor for together in shared]
        buffers = tuple(
            Buffer(name=f"{name}.{s}", dtype=d, shape=(index(n), index(lanes)), space="reg", padded=(True, True))
            for s, d, n in zip(reducer.states, reducer.dtypes, copies)
        )
        return cls(buffers=buffers, shared=shared)

    def at(self, copy: Expr, lane: Expr) -> tuple[Ref, ...]:
        return tuple(Ref(tensor=load.tensor, index=load.index) for load in self.loads(copy, lane))

    def loads(self, copy: Expr, lane: Expr) -> tuple[Load, ...]:
        places = [simplify_index(binary("mod", copy, b.shape[0])) if together else copy for b, together in zip(self.buffers, self.shared)]
        return tuple(Load(tensor=b.name, index=(place, lane), dtype=b.dtype) for b, place in zip(self.buffers, places))


def _stores(targets: tuple[Ref, ...], values: tuple[Expr, ...]) -> Block:
    return tuple(Store(target=t, value=v) for t, v in zip(targets, values))


def _over(variable: str, size: int, kind: LoopKind, body: Stmt | Block, *, reduce: bool = False) -> For:
    block = body if isinstance(body, tuple) else (body,)
    return For(var=variable, extent=index(size), bound=size, kind=kind, body=block, reduce=reduce)


def _with_lane_axis(loop: For, lanes: int) -> Block:
    """Register storage allocated in the body: one element a lane, allocated in front of the loop."""
    local = {n.buffer.name: n.buffer for s in loop.body for n in walk(s) if isinstance(n, Alloc)}
    if not local:
        return (loop,)
    lane = Var(name=loop.var)
    wide = tuple(
        Alloc(buffer=replace(b, shape=(*b.shape, index(lanes)), padded=(*(b.padded or (False,) * len(b.shape)), True))) for b in local.values()
    )
    body = rewrite(
        loop.body,
        {
            Alloc: lambda a: (),
            Load: lambda l: replace(l, index=(*l.index, lane)) if l.tensor in local else l,
            Ref: lambda r: replace(r, index=(*r.index, lane)) if r.tensor in local else r,
        },
    )
    return (*wide, replace(loop, body=body))
