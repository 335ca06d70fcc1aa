"""`partials`: lanes combine once, after their loops, and not at every step.

    lane l < 128                               lane l < 128
      for o < ceil((N - l) / 128)                alloc s.lane: f32 in reg;  s.lane = 0
        s[] += x[o*128 + l]              →       for o < ceil((N - l) / 128): s.lane += x[o*128 + l]
                                                 s[] += s.lane                                      # across the lanes

Reducers are associative, and lanes have no order, so this is the same reduction. It is done where nothing in the lane's body
reads the target and its index does not change there, or only with short loops that are written out: then a lane has a register for each.
(`s.part` are the parts of a schedule.)
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tridsl.backends.vulkan.collective import Lanes, lanes_of
from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const, Load, Var
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Kernel, Ref, Stmt, Store
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
        reducer, place = accumulation.reducer, tuple(Var(name=loop.var) for loop in along)
        refs = tuple(Ref(tensor=part, index=place) for part in parts)
        shape = tuple(loop.extent for loop in along)
        before += [Alloc(buffer=Buffer(name=part, dtype=dtype, shape=shape, space="reg")) for part, dtype in zip(parts, reducer.dtypes)]
        before += _written_out(along, "first", tuple(Store(target=ref, value=identity) for ref, identity in zip(refs, reducer.identity)))
        body = rewrite(body, {Accumulate: partial(_exchange, accumulation, replace(accumulation, targets=refs))})
        values = tuple(Load(tensor=part, index=place, dtype=dtype) for part, dtype in zip(parts, reducer.dtypes))
        after += _written_out(along, "lanes", (Accumulate(targets=accumulation.targets, reducer=reducer, values=values),))
    return (*before, *body, *after)


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
