"""`fragments`: what only matrix instructions work on lies where they want it.

    alloc acc: f32[4, 4, 16, 16] in l1                        alloc acc: f32[4, 4, 16, 16] in fragment
    for m < 16: for n < 16: acc[i, j, m, n] = 0
    mma coopmat_16x16x16 acc[i, j, m, n] += A.s[…] * B.s[…]
    for m < 16: for n < 16: C[…] = acc[i, j, m, n]

A fragment is spread over the lanes of a subgroup in an order that the device alone knows, so it is made, used and stored whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Cast, Const, Expr, Load, Var
from tridsl.ir.loop import Alloc, Block, For, If, Kernel, Mma, Ref, Store
from tridsl.ir.walk import rewrite, variables, walk


def fragments(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Accumulators of matrix instructions that the device has, inside its subgroups."""
    phases = []
    for phase in kernel.phases:
        inside = [loop for loop in walk(phase.body) if isinstance(loop, For) and loop.kind == "subgroup"]
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
                if use is not None and name in (use.tensor, getattr(use.value, "tensor", "")):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeUse:
    """`for m: for n: tensor[index] = value` over the last two axes of one side: a fragment filled (`value` is a constant) or
    stored (`value` loads it)."""

    rows: str
    columns: str
    extents: tuple[int, int]
    tensor: str
    index: tuple[Expr, ...]
    value: Const | Load


def whole_use(loop: For) -> WholeUse | None:
    """The use of a fragment that a nest of two loops is, if it is one."""
    inner = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(inner, For) or len(inner.body) != 1 or not isinstance(inner.body[0], Store):
        return None
    store = inner.body[0]
    value = store.value.a if isinstance(store.value, Cast) else store.value
    if store.mask is not None or not isinstance(value, Const | Load) or (isinstance(value, Load) and value.mask is not None):
        return None
    side = value.index if isinstance(value, Load) else store.target.index
    names = {loop.var, inner.var}
    if side[-2:] != (Var(name=loop.var), Var(name=inner.var)) or any(names & variables(place) for place in side[:-2]):
        return None
    if not isinstance(loop.extent, Const) or not isinstance(inner.extent, Const):
        return None
    extents = int(loop.extent.value), int(inner.extent.value)
    return WholeUse(
        rows=loop.var, columns=inner.var, extents=extents, tensor=store.target.tensor, index=store.target.index, value=value
    )
