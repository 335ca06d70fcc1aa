"""`fragments`: what only matrix instructions work on lies where they want it.

    alloc acc: f32[4, 4, 16, 16] in l1                        alloc acc: f32[4, 4, 16, 16] in fragment
    for m < 16: for n < 16: acc[i, j, m, n] = 0
    mma coopmat_16x16x16 acc[i, j, m, n] += A.s[…] * B.s[…]
    for m < 16: for n < 16: C[…] = acc[i, j, m, n]

A fragment is spread over the lanes of a subgroup in an order that the device alone knows, so it is made, used and stored whole.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from tridsl.backends.vulkan.group_shape import is_grouped
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.loop import Alloc, Block, For, If, Kernel, Mma, Ref
from tridsl.ir.walk import rewrite, walk
from tridsl.passes.whole_fragments import whole_use


def fragments(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Accumulators of matrix instructions that the device has, inside its subgroups."""
    phases = []
    for phase in kernel.phases:
        kind = "group" if is_grouped(phase) else "subgroup"
        inside = [loop for loop in walk(phase.body) if isinstance(loop, For) and loop.kind == kind]
        used = {n.target.tensor for loop in inside for n in walk(loop) if isinstance(n, Mma) and _has(n, spec)}
        whole = {name for name in used if _is_whole(phase.body, name)}
        phases.append(replace(phase, body=rewrite(phase.body, {Alloc: partial(_moved, whole)})) if whole else phase)
    return replace(kernel, phases=tuple(phases))


def _moved(names: set[str], alloc: Alloc) -> Alloc:
    return replace(alloc, buffer=replace(alloc.buffer, space="fragment")) if alloc.buffer.name in names else alloc


def _has(mma: Mma, spec: DeviceSpec) -> bool:
    row = INTRINSICS[mma.intrinsic]
    return row.is_matrix and row.feature in spec.features


def _is_whole(block: Block, name: str) -> bool:
    """Whether every use of `name` is an instruction's, or one of `whole_use`."""
    for statement in block:
        match statement:
            case For():
                use = whole_use(statement)
                if use is not None and use.keeps(name):
                    continue
                if name in {n.tensor for n in walk(statement.extent) if isinstance(n, Load)} or not _is_whole(statement.body, name):
                    return False
            case If(condition=condition, then=then, otherwise=otherwise):
                if any(isinstance(n, Load) and n.tensor == name for n in walk(condition)):
                    return False
                if not (_is_whole(then, name) and _is_whole(otherwise, name)):
                    return False
            case Mma(a=a, b=b):
                if not all(isinstance(operand, Load) and operand.tensor != name for operand in (a, b)):
                    return False
            case _:
                if any(isinstance(n, Load | Ref) and n.tensor == name for n in walk(statement)):
                    return False
    return True
