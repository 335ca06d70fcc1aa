"""`interchange`: loops over lanes come out of the serial loops that hold nothing else.

    for c < 4: lane l < min(256, 1000 - c*256): body      →      lane l < 256: for c < 4: if l < 1000 - c*256: body

Lanes run at the same time, so each may as well run all its iterations in turn; what it keeps between them then stays in its
registers.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Const, Var, binary, index
from tridsl.ir.loop import Accumulate, Barrier, Copy, For, If, Kernel, Stmt
from tridsl.ir.walk import rewrite, walk


def interchange(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every loop over lanes that is all a serial or unrolled loop holds, outside it."""
    return replace(kernel, phases=rewrite(kernel.phases, {For: _outwards}))


def _outwards(loop: For) -> Stmt:
    inner = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(inner, For) or inner.kind != "lane" or loop.kind not in ("serial", "unroll") or loop.carried:
        return loop
    lanes = int(inner.extent.value) if isinstance(inner.extent, Const) else inner.bound
    if lanes is None or any(map(_needs_order, walk(inner.body))):
        return loop
    body = inner.body
    if not isinstance(inner.extent, Const):
        body = (If(condition=binary("lt", Var(name=inner.var), inner.extent), then=body),)
    within = replace(loop, body=body)
    return replace(inner, extent=index(lanes), bound=lanes, body=(_outwards(within),))


def _needs_order(node: object) -> bool:
    """Work of all lanes together, or of one after the other."""
    if isinstance(node, Accumulate):
        return not node.reducer.commutative
    return isinstance(node, Barrier) or (isinstance(node, Copy) and node.cooperative)
