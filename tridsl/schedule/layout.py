"""`w.layout(t, q)`; Halide: reorder_storage."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.expr import Expr, Load
from tridsl.ir.loop import Alloc, Buffer, Kernel, Ref
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.schedule.nest import axis_of, stage_of, stages, unknown_stage
from tridsl.schedule.regions import targets_of
from tridsl.schedule.steps import Layout
from tridsl.structs import replace


def layout(kernel: Kernel, step: Layout, spec: DeviceSpec) -> Kernel:
    """
    before:  alloc w: f32[128, 64];  w[q, t] = …; … w[q, t]        w.layout(t, q)
    after:   alloc w: f32[64, 128];  w[t, q] = …; … w[t, q]

    `axes` are all axes of the stage's tensor, the innermost last; those left out stay in front. Nobody outside the kernel sees
    the order, so it is legal for every tensor between stages. E0417: the stage is a result of the op, whose order is the
    caller's. E0402: not an axis of the tensor.
    """
    name = step.stage
    if any(isinstance(p, Tensor) and p.name == name for p in kernel.params):
        raise error(
            "E0417", f"`{name}` is a parameter of the op: its layout is the caller's", step.span,
            help="use `.layout(…)` on the stages in between, or `.pack(…)` to copy a parameter",
        )  # fmt: skip
    if name not in {n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)} | {b.name for b in kernel.scratch}:
        raise unknown_stage(kernel, name, step.span) if name not in stages(kernel) else error(
            "E0417", f"`{name}` has no tensor of its own", step.span, help="name a stage whose values are kept"
        )
    target = next(t for p in kernel.phases for t in targets_of(p.body, name))
    axes = [_axis(place, name) for place in target]
    unknown = next((a for a in step.axes if a not in axes), None)
    if unknown is not None or len(set(step.axes)) != len(step.axes):
        have = ", ".join(a for a in axes if a)
        raise error("E0402", f"`{unknown or step.axes[0]}` is not one axis of `{name}`", step.span, help=f"its axes are: {have}")
    order = [n for n, a in enumerate(axes) if a not in step.axes] + [axes.index(a) for a in step.axes]

    def permuted(items: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(items[n] for n in order)

    def place(node: Load | Ref) -> Load | Ref:
        return replace(node, index=permuted(node.index)) if node.tensor == name else node

    def storage(buffer: Buffer) -> Buffer:
        if buffer.name != name:
            return buffer
        padded = tuple(buffer.padded[n] for n in order) if buffer.padded else ()
        return replace(buffer, shape=permuted(buffer.shape), padded=padded)

    rules = {Load: place, Ref: place, Alloc: lambda alloc: replace(alloc, buffer=storage(alloc.buffer))}
    return replace(kernel, phases=rewrite(kernel.phases, rules), scratch=tuple(map(storage, kernel.scratch)))


def _axis(place: Expr, stage: str) -> str | None:
    """The stage's axis that a place of its tensor follows, whatever splits have done to the loop."""
    names = {axis_of(v).partition(".")[0] for v in variables(place) if stage_of(v) == stage}
    return next(iter(names)) if len(names) == 1 else None
