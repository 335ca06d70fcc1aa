"""Drivers that cut loops short: Mesa's llvmpipe ends an invocation's loops after 65535 iterations in all, and says nothing.

`iterations` bounds what one invocation of a phase runs; more than `DeviceSpec.max_loop_iterations` is refused (E0712). Where sizes
are only known at the call, the kernel checks them itself:

    for i < N: …       ->       check N <= 65535;  for i < N: …
"""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import Diagnostic
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, Expr, add, binary, index, mul
from tridsl.ir.loop import Alloc, Block, Check, For, If, Kernel
from tridsl.ir.walk import variables, walk
from tridsl.passes.whole_fragments import reduced_rows, whole_use

SHARED = ("group", "lane", "subgroup")
"""Loops that invocations share: one of them runs few iterations of each."""


def limits(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Checks of symbolic loops, on a device that has a limit."""
    most = spec.max_loop_iterations
    if most is None:
        return kernel
    number, phases = len(kernel.messages), []
    for phase in kernel.phases:
        count = iterations(phase.body)
        inner = {n.var for n in walk(phase) if isinstance(n, For)} & variables(count)
        if isinstance(count, Const) or inner:
            phases.append(phase)
            continue
        check = Check(condition=binary("le", count, index(most)), number=number)
        phases.append(replace(phase, body=(check, *phase.body)))
    if all(new is old for new, old in zip(phases, kernel.phases)):
        return kernel
    message = f"`{spec.name}` runs at most {most} iterations of loops in a kernel: use another device"
    return replace(kernel, phases=tuple(phases), messages=(*kernel.messages, message))


def too_long(kernel: Kernel, spec: DeviceSpec) -> tuple[Diagnostic, ...]:
    """E0712 for each phase that is known to run more iterations than the device's driver lets it."""
    most = spec.max_loop_iterations
    found: list[Diagnostic] = []
    for phase in kernel.phases:
        count = iterations(phase.body)
        if most is not None and isinstance(count, Const) and int(count.value) > most:
            found.append(
                Diagnostic(
                    code="E0712",
                    message=f"stage `{phase.name}` loops {count.value} times in one invocation; `{spec.name}` stops after {most}",
                    help="run this operation on `cpu`, or on a GPU",
                )
            )
    return tuple(found)


def iterations(block: Block) -> Expr:
    """Loop iterations of one invocation, at most. What is done with a fragment as a whole is no loop."""
    return _iterations(block, frozenset(n.buffer.name for s in block for n in walk(s) if isinstance(n, Alloc) and n.buffer.space == "fragment"))


def _is_whole(loop: For, fragments: frozenset[str]) -> bool:
    use, reduced = whole_use(loop, places=True), reduced_rows(loop)
    return (use is not None and bool({use.tensor, *(m.tensor for m in use.matrices)} & fragments)) or (reduced is not None and reduced.target.tensor in fragments)


def _iterations(block: Block, fragments: frozenset[str]) -> Expr:
    total: Expr = index(0)
    for statement in block:
        if isinstance(statement, For):
            if _is_whole(statement, fragments):
                continue
            extent = statement.extent if statement.bound is None else index(statement.bound)
            inner = _iterations(statement.body, fragments)
            if statement.kind in SHARED:
                total = add(total, inner)
            elif statement.kind == "unroll":
                total = add(total, mul(extent, inner))
            else:
                total = add(total, mul(extent, add(inner, index(1))))
        elif isinstance(statement, If):
            total = add(total, binary("max", _iterations(statement.then, fragments), _iterations(statement.otherwise, fragments)))
    return simplify_index(total)
