"""`parallel(i)`; Halide: parallel."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate, Alloc, Copy, For, Kernel, Store
from tridsl.ir.walk import variables, walk
from tridsl.schedule.nest import axis_of, enclosing, find_loop, replace_loop, require_serial
from tridsl.schedule.steps import Bind, Parallel
from tridsl.structs import replace


def parallel(kernel: Kernel, step: Parallel, spec: DeviceSpec) -> Kernel:
    """
    before:  for i < M: body
    after:   parallel i < M: body

    Legal when the loop is neither reduced over nor carried (E0408: its iterations depend on one another) and no loop around
    or inside it is parallel (E0405). Iterations then write different elements: a stage writes each element once.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "parallel", step.span)
    require_independent(loop, "parallel", step)
    around = [l for l in enclosing(kernel, loop.var) if l.kind in ("parallel", "vector")]
    inside = [n for s in loop.body for n in walk(s) if isinstance(n, For) and n.kind == "parallel"]
    for other in (*around, *inside):
        raise error(
            "E0405",
            f"`{step.axis}` cannot be parallel: the {other.kind} loop `{axis_of(other.var)}` is {'around' if around else 'inside'} it",
            step.span,
            help="one loop of a nest is parallel; fuse two loops to use both",
        )
    return replace_loop(kernel, loop.var, lambda found: replace(found, kind="parallel"))


def require_independent(loop: For, verb: str, step: Parallel) -> None:
    """E0408 unless the iterations may run in any order and at once."""
    if loop.reduce or loop.carried:
        why = "it is reduced over" if loop.reduce else "each iteration needs the one before"
        raise error(
            "E0408",
            f"`{step.axis}` cannot be {verb}: {why}",
            step.span,
            help="choose an axis of the stage's result",
        )
    require_own_elements(loop, verb, step)


def require_own_elements(loop: For, verb: str, step: Parallel | Bind) -> None:
    """E0408 where every iteration writes one element of shared storage again (a monoid's state that lacks the axis)."""
    if loop.reduce:
        return
    local = {n.buffer.name for n in walk(loop) if isinstance(n, Alloc)}
    targets = [n.target for n in walk(loop) if isinstance(n, Store | Copy)]
    targets += [t for n in walk(loop) if isinstance(n, Accumulate) for t in n.targets]
    ranks = {t.tensor for t in targets for n in walk(t.index) if isinstance(n, Load) and n.tensor in local}  # places that no two iterations share
    again = next((t.tensor for t in targets if t.tensor not in local | ranks and loop.var not in variables(t)), None)
    if again is not None:
        raise error(
            "E0408", f"`{axis_of(loop.var)}` cannot be {verb}: each of its iterations writes the same elements of `{again}`",
            step.span, help="choose an axis that all results of the stage have",
        )  # fmt: skip
