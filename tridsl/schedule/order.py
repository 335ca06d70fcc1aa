"""`order(j, i, k)`; Halide: reorder."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Block, For, Kernel
from tridsl.ir.walk import variables
from tridsl.schedule.apart import apart
from tridsl.schedule.nest import CROSSED, axis_of, find_loop, replace_loop
from tridsl.schedule.steps import Order
from tridsl.structs import replace


def order(kernel: Kernel, step: Order, spec: DeviceSpec) -> Kernel:
    """
    before:  for i: for j: for k: body          order(k, i, j)
    after:   for k: for i: for j: body

    The named loops take, in the given order, the places they have now; loops not named stay. Legal when the loops from the
    first to the last place are directly nested (E0406), no loop's extent would use a variable from inside it (E0407), no
    parallel loop would stand inside lanes (E0405), and carried loops keep their order among themselves (E0408). Reductions are
    commutative, so any order gives the same set of additions; the order of floating additions may change, as the language
    allows unless `order=seq`.

    Storage for running values, which a scan makes between two loops, is in nobody's way: it gets a place for each iteration of the
    outer loop where that has a bound, and `j.init` is the loop that starts them (`schedule.apart`).
    """
    wanted = [find_loop(kernel, step.stage, axis, step.span) for axis in step.axes]
    if len({loop.var for loop in wanted}) != len(wanted):
        raise error("E0406", "`order` names a loop twice", step.span, help="name each loop once, outermost first")
    top = next(loop for loop in wanted if not any(_contains(other, loop.var) for other in wanted if other is not loop))
    chain = [top]
    missing = {loop.var for loop in wanted} - {top.var}
    while missing:
        body = chain[-1].body
        if len(body) != 1 or not isinstance(body[0], For):
            parted = apart(top) if chain == [top] else None
            if parted is not None:
                return order(_with_block(kernel, top, parted), step, spec)
            inner = ", ".join(axis_of(v) for v in sorted(missing))
            raise error(
                "E0406",
                f"the loops are not directly nested: other statements stand between `{axis_of(chain[-1].var)}` and `{inner}`",
                step.span,
                help="put `.order(…)` before `.at(…)`, `.pack(…)` and `.store(…)` place work between these loops",
            )
        chain.append(body[0])
        missing.discard(body[0].var)
    names = {loop.var for loop in wanted}
    queue = iter(wanted)
    arranged = [next(queue) if loop.var in names else loop for loop in chain]
    _check(arranged, step)
    carried = [loop.var for loop in chain if loop.carried]
    if [loop.var for loop in arranged if loop.carried] != carried:
        raise error(
            "E0408",
            f"the iterations of {' and '.join(f'`{axis_of(v)}`' for v in carried)} depend on one another and keep their order",
            step.span,
            help=f"name them in the order {', '.join(axis_of(v) for v in carried)}",
        )
    body = chain[-1].body
    for loop in reversed(arranged):
        body = (replace(loop, body=body),)
    result = body[0]
    return replace_loop(kernel, top.var, lambda _: result)


def _with_block(kernel: Kernel, loop: For, block: Block) -> Kernel:
    return replace_loop(kernel, loop.var, lambda _: block)


def _contains(loop: For, variable: str) -> bool:
    return any(isinstance(s, For) and (s.var == variable or _contains(s, variable)) for s in loop.body)


def _check(arranged: list[For], step: Order) -> None:
    for position, loop in enumerate(arranged):
        lanes = next((outer for outer in arranged[:position] if loop.kind in CROSSED.get(outer.kind, ())), None)
        if lanes is not None:
            raise error(
                "E0405",
                f"the {loop.kind} loop `{axis_of(loop.var)}` cannot stand inside the {lanes.kind} loop `{axis_of(lanes.var)}`",
                step.span,
                help=f"name `{axis_of(loop.var)}` before `{axis_of(lanes.var)}`",
            )
        needs = variables(loop.extent)
        inside = [other for other in arranged[position + 1 :] if other.var in needs]
        if inside:
            raise error(
                "E0407",
                f"`{axis_of(loop.var)}` cannot stand outside `{axis_of(inside[0].var)}`: its range depends on it",
                step.span,
                help=f"name `{axis_of(inside[0].var)}` before `{axis_of(loop.var)}`",
            )
