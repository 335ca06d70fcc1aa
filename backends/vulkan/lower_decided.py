"""`decided`: fragments that no mask divides are worked on without it.

    subgroup s < 4: for r < 16: for c < 16:                  subgroup s < 4: if t*16 + 15 <= s*16:
      w[…] = if t*16 + c > s*16 + r then 0 else exp(…)   →       for r < 16: for c < 16: w[…] = exp(…)
                                                               else: … as it was, where each element is asked for its place
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.loop import Alloc, Block, For, Kernel, Stmt
from tridsl.ir.walk import rewrite, walk
from tridsl.passes.decide_nests import written_twice

COMPARISONS = 2
"""Of a mask, and of what the block before has merged where the last one begins early."""


def decided(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """What subgroups do with buffers that are in fragments."""
    phases = []
    for phase in kernel.phases:
        held = frozenset(n.buffer.name for n in walk(phase.body) if isinstance(n, Alloc) and n.buffer.space == "fragment")
        phases.append(replace(phase, body=rewrite(phase.body, {For: _team})) if held else phase)
    return replace(kernel, phases=tuple(phases))


def _team(loop: For) -> For:
    return replace(loop, body=_block(loop.body)) if loop.kind == "subgroup" else loop


def _block(block: Block) -> Block:
    return tuple(_statement(statement) for statement in block)


def _statement(statement: Stmt) -> Stmt:
    if not isinstance(statement, For):
        return statement
    elements = frozenset(n.var for n in walk(statement) if isinstance(n, For) and n.kind == "serial")
    twice = written_twice(statement, elements, COMPARISONS)
    return statement if twice is None else twice
