"""`spaces`: every buffer to a place that a GPU has.

alloc e: f32[512] in l1, filled and read by lanes        → in shared
alloc m: f32[] in l1, the same for all lanes             → in reg: each lane keeps its copy
alloc t: f32[8] in l1, inside a loop over lanes          → in reg
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.backends.vulkan.lower_access import read, written
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, For, If, Kernel, Stmt, Store
from tridsl.ir.walk import variables, walk

FEW = 16
"""Values that every lane may keep a copy of."""


def spaces(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """`l1`, `l2`, `global` and `reg` buffers of bound loops to `reg` or `shared`."""
    phases = []
    for phase in kernel.phases:
        lanes = frozenset(node.var for node in walk(phase.body) if isinstance(node, For) and node.kind == "lane")
        phases.append(replace(phase, body=_block(phase.body, lanes, False) if lanes else _in_registers(phase.body)))
    return replace(kernel, phases=tuple(phases))


def _block(block: Block, lanes: frozenset[str], inside: bool) -> Block:
    return tuple(_statement(statement, block, lanes, inside) for statement in block)


def _statement(statement: Stmt, block: Block, lanes: frozenset[str], inside: bool) -> Stmt:
    match statement:
        case For(body=body):
            return replace(statement, body=_block(body, lanes, inside or statement.kind == "lane"))
        case If(then=then, otherwise=otherwise):
            return replace(statement, then=_block(then, lanes, inside), otherwise=_block(otherwise, lanes, inside))
        case Alloc(buffer=buffer) if buffer.space not in ("shared", "fragment"):
            spread = not inside and not _is_uniform(buffer, block, lanes)
            wanted = spread and (buffer.space != "reg" or _differs_by_lane(buffer, block, lanes))
            return replace(statement, buffer=replace(buffer, space="shared" if wanted else "reg"))
    return statement


def _is_uniform(buffer: Buffer, block: Block, lanes: frozenset[str]) -> bool:
    """A few values that are the same in all lanes: made outside the loops over lanes, or combined from all of them."""
    count = 1
    for size in buffer.shape:
        count *= int(size.value) if isinstance(size, Const) else FEW + 1
    return count <= FEW and not _differs_by_lane(buffer, block, lanes) and not (buffer.shape and _stored_by_lanes(buffer, block))


def _stored_by_lanes(buffer: Buffer, block: Block) -> bool:
    loops = [node for node in walk(block) if isinstance(node, For) and node.kind == "lane"]
    return any(isinstance(n, Store | Copy) and n.target.tensor == buffer.name for loop in loops for n in walk(loop))


def _differs_by_lane(buffer: Buffer, block: Block, lanes: frozenset[str]) -> bool:
    places = [at for name, at in read(block) if name == buffer.name]
    places += [ref.index for ref in written(block) if ref.tensor == buffer.name]
    return any(variables(position) & lanes for at in places for position in at)


def _in_registers(block: Block) -> Block:
    """Phases of one lane."""
    return tuple(
        replace(s, buffer=replace(s.buffer, space="reg"))
        if isinstance(s, Alloc) and s.buffer.space not in ("shared", "fragment")
        else replace(s, body=_in_registers(s.body))
        if isinstance(s, For)
        else s
        for s in block
    )
