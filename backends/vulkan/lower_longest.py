"""`longest`: workgroups that have more to do start first.

    group.y q < 32: for t < 4*q + 4: …      →      group.y q < 32: for t < 4*(31 - q) + 4: …

Devices start workgroups in order. Under a causal mask the last rows see the most elements; started last, they would run alone at the end.
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Const, Var, index, sub
from tridsl.ir.loop import For, Kernel
from tridsl.ir.walk import rewrite, substitute, walk


def longest(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every loop over workgroups whose serial loops grow with it."""
    return replace(kernel, phases=rewrite(kernel.phases, {For: _turned}))


def _turned(loop: For) -> For:
    if loop.kind != "group" or not isinstance(loop.extent, Const):
        return loop
    extents = [n.extent for n in walk(loop.body) if isinstance(n, For) and n.kind == "serial"]
    if not any((normal_form(extent).coefficient(loop.var) or 0) > 0 for extent in extents):
        return loop
    last = index(int(loop.extent.value) - 1)
    return replace(loop, body=substitute(loop.body, {loop.var: sub(last, Var(name=loop.var))}))
