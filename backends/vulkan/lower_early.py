"""`early`: lanes wait before they multiply fragments, not behind that.

    copy A.s → A.f;  copy B.s → B.f                     copy A.s → A.f;  copy B.s → B.f
    mma acc[…] += A.f[…] * B.f[…]             →         barrier
    barrier                                             mma acc[…] += A.f[…] * B.f[…]

What others may overwrite or read is read and written by then. The instructions are still at work when the next panel's fragments are loaded,
which would have to wait for the barrier behind them.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.loop import Alloc, Barrier, Block, For, If, Kernel, Mma, Ref, Stmt
from tridsl.ir.walk import walk


def early(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every barrier that stands right behind instructions on fragments."""
    phases = []
    for phase in kernel.phases:
        fragments = frozenset(n.buffer.name for n in walk(phase.body) if isinstance(n, Alloc) and n.buffer.space == "fragment")
        phases.append(replace(phase, body=_block(phase.body, fragments)) if fragments else phase)
    return replace(kernel, phases=tuple(phases))


def _block(block: Block, fragments: frozenset[str]) -> Block:
    out: list[Stmt] = []
    for statement in block:
        match statement:
            case For(body=body):
                statement = replace(statement, body=_block(body, fragments))
            case If(then=then, otherwise=otherwise):
                statement = replace(statement, then=_block(then, fragments), otherwise=_block(otherwise, fragments))
        place = len(out)
        while isinstance(statement, Barrier) and place and _multiplies(out[place - 1], fragments):
            place -= 1
        out.insert(place, statement)
    return tuple(out)


def _multiplies(statement: Stmt, fragments: frozenset[str]) -> bool:
    """Whether `statement` is nothing but instructions on fragments."""
    nodes = list(walk(statement))
    inside = all(n.tensor in fragments for n in nodes if isinstance(n, Load | Ref))
    return inside and any(isinstance(n, Mma) for n in nodes) and not any(isinstance(n, Barrier | Alloc) for n in nodes)
