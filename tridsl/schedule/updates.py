"""Parameters that are updated in place: a stage that reads one before the update must not run behind it."""

from __future__ import annotations

from collections.abc import Iterable

from tridsl.diagnostics import Span, TriError, error
from tridsl.ir.affine import equal, normal_form
from tridsl.ir.expr import Expr, Load, index
from tridsl.ir.loop import Accumulate, Block, For, Kernel, Ref, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import substitute, walk
from tridsl.schedule.nest import stage_of


def updated_reads(kernel: Kernel, block: Block, path: tuple[For, ...] = ()) -> tuple[Load, ...]:
    """Reads in `block`, inside the loops of `path`, of parameters that the kernel updates; loops of one iteration are left out
    of their indices."""
    names = {p.name for p in kernel.params if isinstance(p, Tensor) and p.role == "inout"}
    if not names:
        return ()
    once: dict[str, Expr] = {n.var: index(0) for n in (*path, *walk(block)) if isinstance(n, For) and n.extent == index(1)}
    return tuple(substitute(n, once) for n in walk(block) if isinstance(n, Load) and n.tensor in names)


def updates(block: Block, tensor: str) -> tuple[Ref, ...]:
    """Places of `tensor` that `block` writes."""
    found: list[Ref] = []
    for node in walk(block):
        if isinstance(node, Store):
            found.append(node.target)
        elif isinstance(node, Accumulate):
            found += node.targets
    return tuple(ref for ref in found if ref.tensor == tensor)


def phase_of(kernel: Kernel, name: str) -> int:
    """Number of the phase that computes stage `name`, or that has the loop of variable `name`."""
    return next(
        n
        for n, phase in enumerate(kernel.phases)
        if phase.name == name or any(isinstance(m, For) and name in (m.var, stage_of(m.var)) for m in walk(phase))
    )


def own_part(load: Load, targets: Iterable[Ref], path: tuple[For, ...]) -> bool:
    """Whether each iteration of the loops of `path` reads only what no other one of them writes."""
    return all(
        any(equal(read, place) and _follows(place, loop.var) for read, place in zip(load.index, target.index))
        for target in targets
        for loop in path
        if loop.extent != index(1)
    )


def _follows(place: Expr, variable: str) -> bool:
    """`variable` plus a constant."""
    form = normal_form(place)
    return len(form.terms) == 1 and form.coefficient(variable) == 1


def behind_the_update(stage: str, tensor: str, span: Span | None) -> TriError:
    return error(
        "E0410",
        f"`{stage}` reads `{tensor}` before it is updated, but would be computed behind or during the update",
        span,
        help=f"leave `{stage}` where it stands, before the stage that writes `{tensor}`",
    )
