"""`partials`: lanes combine once, after their loops, and not at every step.

    lane l < 128                               lane l < 128
      for o < ceil((N - l) / 128)                alloc s.lane: f32 in reg;  s.lane = 0
        s[] += x[o*128 + l]              →       for o < ceil((N - l) / 128): s.lane += x[o*128 + l]
                                                 s[] += s.lane                                      # across the lanes

Reducers are associative, and lanes have no order, so this is the same reduction. It is done where nothing in the lane's body
reads the target and its index does not change there, or only with short loops that are written out: then a lane has a register for each.
(`s.part` are the parts of a schedule.)

Sums, products and extremes of floats are made in their order, each waiting for the one before it, so a lane with a short loop around
one has a register for each of its iterations, too:

    lane l < 128                               lane l < 128
      for o < 8                                  alloc s.lane: f32[4] in reg;  unroll w < 4: s.lane[w] = 0
        vector i < 4                      →      for o < 8: vector i < 4: s.lane[i] += x[o*512 + l*4 + i]
          s[] += x[o*512 + l*4 + i]              unroll w < 3: s.lane[0] += s.lane[w + 1]
                                                 s[] += s.lane[0]                                   # across the lanes

(*Measured* on an H200, softmax of rows of 16384 halves: 147 us with one register, 133 with four or eight; the memory alone takes 129.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tridsl.backends.vulkan.collective import Lanes, lanes_of
from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const, Expr, Load, Var, add, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import rewrite, substitute, variables, walk

SHORT = 16
"""Registers of a lane for one reduction, at most."""


def partials(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Accumulations across lanes inside loops go by way of a register of each lane."""
    phases = tuple(replace(p, body=_block(p.body, (), lanes_of(p.body))) for p in kernel.phases)
    return replace(kernel, phases=phases)


def _block(block: Block, lanes: tuple[str, ...], buffers: Lanes) -> Block:
    return tuple(_statement(statement, lanes, buffers) for statement in block)


def _statement(statement: Stmt, lanes: tuple[str, ...], buffers: Lanes) -> Stmt:
    match statement:
        case For(kind="lane", var=var, body=body):
            inner = (*lanes, var)
            return replace(statement, body=_with_partials(_block(body, inner, buffers), inner, buffers))
        case For(body=body):
            return replace(statement, body=_block(body, lanes, buffers))
        case If(then=then, otherwise=otherwise):
            return replace(statement, then=_block(then, lanes, buffers), otherwise=_block(otherwise, lanes, buffers))
    return statement


def _with_partials(body: Block, lanes: tuple[str, ...], buffers: Lanes) -> Block:
    before: list[Stmt] = []
    after: list[Stmt] = []
    for accumulation, along in _candidates(body, lanes, buffers):
        parts = tuple(f"{target.tensor}.lane" for target in accumulation.targets)
        reducer = accumulation.reducer
        beside = None if along else _chained(body, accumulation)
        kept = along if beside is None else (beside,)
        place: tuple[Expr, ...] = tuple(Var(name=loop.var) for loop in kept)
        refs = tuple(Ref(tensor=part, index=place) for part in parts)
        shape = tuple(loop.extent for loop in kept)
        before += [Alloc(buffer=Buffer(name=part, dtype=dtype, shape=shape, space="reg")) for part, dtype in zip(parts, reducer.dtypes)]
        before += _written_out(kept, "first", tuple(Store(target=ref, value=identity) for ref, identity in zip(refs, reducer.identity)))
        body = rewrite(body, {Accumulate: partial(_exchange, accumulation, replace(accumulation, targets=refs))})
        if beside is not None:
            after.append(_joined(beside, parts, reducer))
            place = (index(0),)
        values = tuple(Load(tensor=part, index=place, dtype=dtype) for part, dtype in zip(parts, reducer.dtypes))
        after += _written_out(along, "lanes", (Accumulate(targets=accumulation.targets, reducer=reducer, values=values),))
    return (*before, *body, *after)


def _chained(body: Block, node: Accumulate) -> For | None:
    """The innermost loop around an accumulation of floats whose iterations need not wait for each other."""
    if not any(dtype.is_float for dtype in node.reducer.dtypes) or not node.reducer.commutative:
        return None
    around = _around(body, node)
    return around[-1] if len(around) > 1 and _is_short(around[-1]) and around[-1].reduce else None


def _joined(beside: For, parts: tuple[str, ...], reducer: Reducer) -> For:
    """What the registers of a lane come to, in the first of them."""
    var = f"{beside.var}.join"
    assert isinstance(beside.extent, Const)
    values = tuple(Load(tensor=part, index=(add(Var(name=var), index(1)),), dtype=dtype) for part, dtype in zip(parts, reducer.dtypes))
    body = (Accumulate(targets=tuple(Ref(tensor=part, index=(index(0),)) for part in parts), reducer=reducer, values=values),)
    return For(var=var, extent=index(int(beside.extent.value) - 1), body=body, kind="unroll")


def _written_out(along: tuple[For, ...], what: str, block: Block) -> Block:
    """`block` for every point of the loops `along`, as loops of other names."""
    for loop in reversed(along):
        name = f"{loop.var}.{what}"
        block = (replace(loop, var=name, kind="unroll", reduce=False, body=substitute(block, {loop.var: Var(name=name)})),)
    return block


def _exchange(old: Accumulate, new: Accumulate, node: Accumulate) -> Accumulate:
    return new if node is old else node


def _candidates(body: Block, lanes: tuple[str, ...], buffers: Lanes) -> list[tuple[Accumulate, tuple[For, ...]]]:
    """Accumulations across lanes that stand in a loop, alone in using their targets, at a place fixed for the lane; or in few places, which
    short loops name."""
    loops = {node.var: node for node in walk(body) if isinstance(node, For)}
    in_loops = [node for loop in body if isinstance(loop, For) and loop.kind != "lane" for node in walk(loop.body)]
    found = []
    for node in in_loops:
        if not isinstance(node, Accumulate) or not buffers.reduced(node, lanes):
            continue
        names = {target.tensor for target in node.targets}
        uses = sum(name in names for name, _ in read(body)) + sum(ref.tensor in names for ref in written(body))
        moving = [variables(target) & set(loops) for target in node.targets]
        along = tuple(loop for var, loop in loops.items() if var in moving[0])
        if (
            all(names == moving[0] for names in moving)
            and all(_is_short(loop) for loop in along)
            and not all(loop in along for loop in _around(body, node))
            and uses == 2 * len(node.targets)
            and not any(isinstance(n, For) and n.kind == "lane" for n in in_loops)
        ):
            found.append((node, along))
    return found


def _is_short(loop: For) -> bool:
    """Whether a lane may have a register for each of its iterations."""
    return loop.kind in ("vector", "unroll") and isinstance(loop.extent, Const) and int(loop.extent.value) <= SHORT


def _around(body: Block, node: Accumulate) -> list[For]:
    """The loops of `body` around an accumulation."""
    return [loop for statement in body for loop in walk(statement) if isinstance(loop, For) and any(inner is node for inner in walk(loop.body))]
