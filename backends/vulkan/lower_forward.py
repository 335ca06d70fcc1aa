"""`forward`: what a lane has just written to shared memory it does not read from there.

    scale.s[q] = exp(…)                           alloc scale.s.now: f32 in reg;  scale.s.now = exp(…)
    l[q] *= scale.s[q]                     →      scale.s[q] = scale.s.now;       l[q] *= scale.s.now

Only types that registers have, too: others are rounded by the memory for nothing, and by arithmetic for a price.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tridsl.backends.vulkan.lower_access import written
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Load
from tridsl.ir.loop import Alloc, Barrier, Block, Buffer, Copy, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, walk


def forward(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Reads of an element of shared memory behind its store in one block, with nothing between that might change it."""
    phases = []
    for phase in kernel.phases:
        buffers = [n.buffer for n in walk(phase.body) if isinstance(n, Alloc)]
        shared = {b.name: b for b in buffers if b.space == "shared" and compute_type(b.dtype) == b.dtype}
        phases.append(replace(phase, body=_block(phase.body, shared)) if shared else phase)
    return replace(kernel, phases=tuple(phases))


def _block(block: Block, shared: dict[str, Buffer]) -> Block:
    out: list[Stmt] = []
    rest = block
    while rest:
        statement, rest = rest[0], rest[1:]
        match statement:
            case For(body=body):
                out.append(replace(statement, body=_block(body, shared)))
            case If(then=then, otherwise=otherwise):
                out.append(replace(statement, then=_block(then, shared), otherwise=_block(otherwise, shared)))
            case Store(target=target, mask=None) if target.tensor in shared and _reads(rest, target):
                buffer = shared[target.tensor]
                own = Buffer(name=f"{buffer.name}.now{len(out)}", dtype=buffer.dtype, shape=(), space="reg")
                value = Load(tensor=own.name, index=(), dtype=own.dtype)
                out += (Alloc(buffer=own), replace(statement, target=Ref(tensor=own.name, index=())), replace(statement, value=value))
                count = _unchanged(rest, target)
                rest = (*rewrite(rest[:count], {Load: _now(target, value)}), *rest[count:])
            case _:
                out.append(statement)
    return tuple(out)


def _now(target: Ref, value: Load) -> Callable[[Load], Load]:
    return lambda load: value if (load.tensor, load.index, load.mask) == (target.tensor, target.index, None) else load


def _unchanged(block: Block, target: Ref) -> int:
    """Statements up to the first that may write the tensor, or lets others write it."""
    for position, statement in enumerate(block):
        loops = any(isinstance(n, For | If | Barrier) or (isinstance(n, Copy) and n.cooperative) for n in walk(statement))
        if loops or any(ref.tensor == target.tensor for ref in written(statement)):
            return position
    return len(block)


def _reads(block: Block, target: Ref) -> bool:
    reads = (n for s in block[: _unchanged(block, target)] for n in walk(s) if isinstance(n, Load))
    return any((n.tensor, n.index, n.mask) == (target.tensor, target.index, None) for n in reads)
