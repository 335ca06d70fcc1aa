"""`bind(r="group.x")`; TVM: bind."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.loop import Copy, Kernel, LoopKind
from tridsl.ir.scans import running_of
from tridsl.ir.walk import walk
from tridsl.schedule.nest import axis_of, crossed_kinds, enclosing, find_loop, replace_loop, require_serial, trip_bound
from tridsl.schedule.pack import LANES
from tridsl.schedule.parallel import require_own_elements
from tridsl.schedule.steps import Bind
from tridsl.structs import replace

BINDINGS: dict[str, LoopKind] = {
    **{f"group.{d}": "group" for d in "xyz"},
    **{f"lane.{d}": "lane" for d in "xyz"},
    **{f"subgroup.{d}": "subgroup" for d in "xyz"},
    "column": "column",
    "row": "row",
}


SHORT = {"subgroup": "subgroup.x"}
"""Names for the first of several axes."""


def bind(kernel: Kernel, step: Bind, spec: DeviceSpec) -> Kernel:
    """
    before:  for i.o: for i.i < 64: body           bind(i.o="group.x", i.i="lane.x")
    after:   group.x i.o: lane.x i.i < 64: body

    Group, column and row loops must be independent (E0408); a lane or subgroup loop may be reduced over: its lanes hold partial
    results. Lanes may also run over a scan or compaction (alone, or with the loop over each lane's own neighbours inside): they combine
    among themselves what goes from one to the next, in order. Lane and subgroup loops need a constant bound (E0403). Two nested loops cannot have one hardware axis, and workgroups cannot
    stand inside lanes (E0405). A panel that all
    lanes share is made once its lanes are known (E0412). E0413: no such axis.
    """
    for axis, named in step.axes:
        binding = SHORT.get(named, named)
        kind = BINDINGS.get(binding)
        if kind is None:
            raise error("E0413", f"there is no hardware axis `{binding}`", step.span, help=f"use one of {', '.join(BINDINGS)}")
        loop = find_loop(kernel, step.stage, axis, step.span)
        require_serial(loop, "bind", step.span)
        runs = kind == "lane" and running_of(loop) is not None
        if (loop.carried and not runs) or (loop.reduce and kind in ("group", "column", "row")):
            raise error(
                "E0408", f"`{axis}` cannot be bound to {binding}: its iterations depend on one another", step.span,
                help="bind an axis of the stage's result, or a reduced axis to lanes",
            )  # fmt: skip
        if kind in LANES and trip_bound(loop) is None:
            raise error("E0403", f"`{axis}` has no constant number of {kind}s", step.span, help=f"`.split({axis}, 64)` and bind `{axis}.i`")
        if kind in LANES and any(isinstance(n, Copy) and n.cooperative for n in walk(loop)):
            raise error(
                "E0412", f"the loops inside `{axis}` already share a panel, which the lanes of `{axis}` would each have made alone",
                step.span, help="put `.bind(…)` before `.store(shared, …)`",
            )  # fmt: skip
        bound = replace(loop, kind=kind, binding=binding)
        crossed = crossed_kinds(enclosing(kernel, loop.var), (bound,)) or crossed_kinds((bound,), loop.body)
        if crossed is not None:
            outer, inner = (f"{axis_of(l.var)}` ({l.binding or l.kind})" for l in crossed)
            raise error("E0405", f"the loop `{inner} cannot stand inside `{outer}", step.span, help="choose another axis, or `.order(…)` first")
        if not runs:
            require_own_elements(bound, binding, step)
        kernel = replace_loop(kernel, loop.var, lambda _, b=bound: b)  # type: ignore[misc]
    return kernel
