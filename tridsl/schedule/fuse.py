"""`fuse(i, j)`; Exo: mult_loops, Halide: fuse."""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Var, binary, mul
from tridsl.ir.loop import For, Kernel
from tridsl.ir.walk import substitute, variables
from tridsl.schedule.nest import axis_of, find_loop, replace_loop, require_serial, stage_of, trip_bound
from tridsl.schedule.steps import Fuse, Step
from tridsl.structs import replace


def fuse(kernel: Kernel, step: Fuse, spec: DeviceSpec) -> Kernel:
    """
    before:  for i < M: for j < N: body(i, j)
    after:   for i.j < M*N: body(i.j // N, i.j % N)

    Legal when `j` stands directly in `i` (E0406), its extent does not use `i` (E0407), and both are spatial or both reduce
    (E0409). Contiguous accesses keep their unit stride: `(f // N)*N + f % N` is `f`.
    """
    outer = find_loop(kernel, step.stage, step.outer, step.span)
    inner = find_loop(kernel, step.stage, step.inner, step.span)
    for loop in (outer, inner):
        require_serial(loop, "fuse", step.span)
    if len(outer.body) != 1 or not isinstance(outer.body[0], For) or outer.body[0].var != inner.var:
        raise error(
            "E0406", f"`{step.inner}` does not stand directly inside `{step.outer}`", step.span, help="use `.order(…)` first"
        )
    if outer.var in variables(inner.extent):
        raise error(
            "E0407",
            f"the range of `{step.inner}` depends on `{step.outer}`, so they are not one range",
            step.span,
            help="fuse the loops before splitting them",
        )
    if outer.reduce != inner.reduce or outer.carried != inner.carried:
        raise error(
            "E0409", f"`{step.outer}` and `{step.inner}` are not both reduced over", step.span, help="fuse loops of one kind"
        )
    name = f"{stage_of(outer.var)}:{axis_of(outer.var)}.{axis_of(inner.var)}"
    fused = Var(name=name)
    place = {
        outer.var: binary("floordiv", fused, inner.extent),
        inner.var: binary("mod", fused, inner.extent),
    }
    trips = (trip_bound(outer), trip_bound(inner))
    bound = None if None in trips else (trips[0] or 0) * (trips[1] or 0)
    loop = replace(
        outer,
        var=name,
        extent=simplify_index(mul(outer.extent, inner.extent)),
        bound=bound,
        body=substitute(inner.body, place),
    )
    return replace_loop(kernel, outer.var, lambda _: loop)


def all_fused(stage: str, axes: Sequence[str]) -> tuple[str, list[Step]]:
    """The name of all `axes` of a stage as one loop (none: no name), and the steps that make it."""
    steps: list[Step] = []
    fused = axes[0] if axes else ""
    for axis in axes[1:]:
        steps.append(Fuse(stage=stage, outer=fused, inner=axis))
        fused = f"{fused}.{axis}"
    return fused, steps
