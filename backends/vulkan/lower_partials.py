"""`partials`: lanes combine once, after their loops, and not at every step.

    lane l < 128                               lane l < 128
      for o < ceil((N - l) / 128)                alloc s.part: f32 in reg;  s.part = 0
        s[] += x[o*128 + l]              →       for o < ceil((N - l) / 128): s.part += x[o*128 + l]
                                                 s[] += s.part                                      # across the lanes

Reducers are associative, and lanes have no order, so this is the same reduction. It is done where nothing in the lane's body
reads the target and its index does not change there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tridsl.backends.vulkan.collective import Lanes, lanes_of
from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, variables, walk


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
    for accumulation in _candidates(body, lanes, buffers):
        parts = tuple(f"{target.tensor}.part" for target in accumulation.targets)
        reducer = accumulation.reducer
        for part, dtype, identity in zip(parts, reducer.dtypes, reducer.identity):
            before.append(Alloc(buffer=Buffer(name=part, dtype=dtype, shape=(), space="reg")))
            before.append(Store(target=Ref(tensor=part, index=()), value=identity))
        own = replace(accumulation, targets=tuple(Ref(tensor=part, index=()) for part in parts))
        body = rewrite(body, {Accumulate: partial(_exchange, accumulation, own)})
        values = tuple(Load(tensor=part, index=(), dtype=dtype) for part, dtype in zip(parts, reducer.dtypes))
        after.append(Accumulate(targets=accumulation.targets, reducer=reducer, values=values))
    return (*before, *body, *after)


def _exchange(old: Accumulate, new: Accumulate, node: Accumulate) -> Accumulate:
    return new if node is old else node


def _candidates(body: Block, lanes: tuple[str, ...], buffers: Lanes) -> list[Accumulate]:
    """Accumulations across lanes that stand in a loop, alone in using their targets, at a place fixed for the lane."""
    bound = {node.var for node in walk(body) if isinstance(node, For)}
    in_loops = [node for loop in body if isinstance(loop, For) and loop.kind != "lane" for node in walk(loop.body)]
    found = []
    for node in in_loops:
        if not isinstance(node, Accumulate) or not buffers.reduced(node, lanes):
            continue
        names = {target.tensor for target in node.targets}
        uses = sum(name in names for name, _ in read(body)) + sum(ref.tensor in names for ref in written(body))
        fixed = not any(variables(target) & bound for target in node.targets)
        if (
            fixed
            and uses == 2 * len(node.targets)
            and not any(isinstance(n, For) and n.kind == "lane" for n in in_loops)
        ):
            found.append(node)
    return found
