"""`e.at(y, r)`; Halide: compute_at, with the loop fusion that Halide calls compute_with where it is exact."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import equal, simplify_index
from tridsl.ir.expr import Const, Expr, Load, Var, add, binary, index, minimum, sub
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, For, If, Kernel, Ref, Stmt
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.schedule.nest import (
    axis_of,
    crossed_kinds,
    enclosing,
    find_loop,
    nested_loops,
    out_of_scope,
    replace_loop,
    stage_of,
    stages,
    unknown_stage,
    written,
)
from tridsl.schedule.pack import LANES
from tridsl.schedule.regions import Region, agreed, declared_as, reads_of, region_read, shape_of, targets_of
from tridsl.schedule.steps import At
from tridsl.schedule.updates import behind_the_update, own_part, phase_of, updated_reads, updates
from tridsl.structs import replace


class NotYet(Exception):
    """The producer has readers that are not inside the loop, but another `at` may still bring them there."""


def at(kernel: Kernel, step: At, spec: DeviceSpec) -> Kernel:
    """
    before:  for r: for n: e[r, n] = exp(x[r, n])           after e.at(y, r):  for r:
             for r: for n: y[r, n] = e[r, n] / s[r]                              alloc e: f32[N]
                                                                                 for n: e[n] = exp(x[r, n])
                                                                                 for n: y[r, n] = e[n] / s[r]

    Only the part of the stage that the loop's body reads is computed, into a buffer of that size; parts that overlap between
    iterations are computed again. When there are readers behind the loop too, the step is legal if every element is computed
    exactly once by it (the access is the loops' own point); the buffer then stays where it is.

    E0410: a reader stands outside the loop (or before it), the stage reads a parameter whose update comes first there, or it goes on with
    what another part began (the running maximum of a blocked softmax). E0411: the stage's loops were already reshaped: put `.at` first.
    E0412: it has a panel that lanes share, and would stand inside lanes. E0414: the stage is a result and must be computed whole.
    """
    stage = step.stage
    target = find_loop(kernel, step.consumer, step.axis, step.span)
    body_of, kernel_without, home = take(kernel, step)
    names = frozenset().union(*(written(s) for s in body_of)) - local_buffers(body_of)
    results = names & {p.name for p in kernel.params}
    if results:
        raise error(
            "E0414", f"stage `{stage}` is a result of the op and is computed whole", step.span,
            help=f"use `.at` on the stages that `{stage}` reads",
        )  # fmt: skip
    if any(v.startswith(f"{stage}:") for v in (target.var, *(l.var for l in enclosing(kernel, target.var)))):
        raise error("E0410", f"`{stage}` cannot be computed inside itself", step.span, help="name a loop of a stage that reads it")
    inside = reads_of(target.body, names)
    elsewhere = f"`{stage}` is read outside the loop `{step.axis}` of `{step.consumer}`: by "
    if not inside and _count_loads(kernel_without, names):
        raise NotYet(elsewhere + ", ".join(_readers(kernel_without, names, target.var)))
    if not inside:
        raise error(
            "E0410", f"the loop `{step.axis}` of `{step.consumer}` does not read `{stage}`", step.span,
            help=f"nothing reads `{stage}`",
        )  # fmt: skip
    path = (*enclosing(kernel_without, target.var), target)
    check_place(kernel_without, path, body_of, names, step)
    outside = _count_loads(kernel_without, names) > len(inside)
    wanted = {name: region_read(kernel, name, [r for r in inside if r.load.tensor == name], path) for name in sorted(names)}
    regions = agreed(kernel, body_of, wanted)
    if outside:
        if not _exact(kernel, regions, path, home) or not _reads_inside_first(kernel_without, names, target.var):
            raise NotYet(elsewhere + ", ".join(_readers(kernel_without, names, target.var)))
        producer = restrict(kernel, body_of, regions, stage, shift=False, step=step)
        check_updates(kernel, kernel_without, producer, path, names, step)
        return replace_loop(home.restore(kernel_without), target.var, lambda loop: insert(loop, producer, names))
    buffers = _buffers(kernel, names, regions)
    producer = (*(Alloc(buffer=b) for b in buffers), *restrict(kernel, body_of, regions, stage, shift=True, step=step))

    check_updates(kernel, kernel_without, producer, path, names, step)

    def place(loop: For) -> For:
        shifted = _shift(loop.body, regions)
        return insert(replace(loop, body=shifted), producer, names)

    placed = replace_loop(kernel_without, target.var, place)
    return replace(placed, scratch=tuple(b for b in placed.scratch if b.name not in names))


def check_place(kernel: Kernel, path: tuple[For, ...], block: Block, names: frozenset[str], step: At) -> None:
    """Whether the stage's nest, as it is now, may stand in the loop."""
    crossed = crossed_kinds(path, block)
    if crossed is not None:
        around, loop = crossed
        raise error(
            "E0405",
            f"the {loop.kind} loop `{axis_of(loop.var)}` of `{step.stage}` would stand inside the {around.kind} loop `{axis_of(around.var)}`",
            step.span,
            help=f"leave `{axis_of(loop.var)}` of `{step.stage}` serial",
        )
    if any(loop.kind in LANES for loop in path) and any(isinstance(n, Copy) and n.cooperative for s in block for n in walk(s)):
        raise error(
            "E0412", f"`{step.stage}` shares a panel, which the lanes of `{step.consumer}` would each have made alone", step.span,
            help=f"put `.at(…)` of `{step.stage}` before `.store(shared, …)`",
        )  # fmt: skip
    shared = names & frozenset().union(*(written(s) for p in kernel.phases for s in p.body))
    if shared:
        raise error(
            "E0410", f"`{step.stage}` goes on with `{min(shared)}`, which begins outside it", step.span,
            help=f"leave `{step.stage}` where it is",
        )  # fmt: skip
    missing = out_of_scope(kernel, path, _first_reader(path[-1], names), block)
    if missing is not None:
        raise error(
            "E0411", f"`{step.stage}` was already moved to where `{missing}` is known", step.span,
            help=f"write one `.at(…)` for `{step.stage}`",
        )  # fmt: skip


def check_updates(
    before: Kernel, without: Kernel, producer: Block, path: tuple[For, ...], names: frozenset[str], step: At
) -> None:
    """E0410 where the stage would read a parameter behind or during its update, which it reads before it now."""
    reads = updated_reads(before, producer, path)
    if not reads:
        return
    home, target = phase_of(before, step.stage), phase_of(before, path[-1].var)
    here = next(p.body for p in without.phases if any(n is path[0] for n in walk(p)))
    for read in reads:
        if any(updates(p.body, read.tensor) for p in before.phases[home + 1 : target]):
            raise behind_the_update(step.stage, read.tensor, step.span)
        for depth, body in enumerate((here, *(loop.body for loop in path))):
            last = depth == len(path)
            position = _first_reader(path[-1], names) if last else next(n for n, s in enumerate(body) if _holds(s, path[depth]))
            later = updates(body[position if last else position + 1 :], read.tensor)
            if updates(body[:position], read.tensor) or not own_part(read, later, path[:depth]):
                raise behind_the_update(step.stage, read.tensor, step.span)


def _holds(statement: Stmt, loop: For) -> bool:
    return any(n is loop for n in walk(statement))


def _first_reader(loop: For, names: frozenset[str]) -> int:
    return next(n for n, s in enumerate(loop.body) if any(isinstance(m, Load) and m.tensor in names for m in walk(s)))


class _Home:
    """Where a stage's storage was before: the kernel's scratch, or `Alloc`s inside the loops of another stage."""

    def __init__(self, names: frozenset[str], allocs: tuple[Alloc, ...], loop: str | None) -> None:
        self.names, self.allocs, self.loop = names, allocs, loop

    def restore(self, kernel: Kernel) -> Kernel:
        """Storage that stays: put the allocs back at the start of the block they came from."""
        if not self.allocs or self.loop is None:
            return kernel
        return replace_loop(kernel, self.loop, lambda loop: replace(loop, body=(*self.allocs, *loop.body)))


def take(kernel: Kernel, step: At) -> tuple[Block, Kernel, _Home]:
    """The stage's statements, the kernel without them (and their storage), and where the storage was."""
    stage = step.stage
    for phase in kernel.phases:
        if phase.name == stage:
            rest = tuple(p for p in kernel.phases if p.name != stage)
            return phase.body, replace(kernel, phases=rest), _Home(frozenset(), (), None)
    if stage not in stages(kernel):
        raise unknown_stage(kernel, stage, step.span)
    for phase in kernel.phases:
        for loop, _ in nested_loops(phase.body):
            if stage_of(loop.var) == stage or not any(_owner(s) == stage for s in loop.body):
                continue
            body = tuple(s for s in loop.body if _owner(s) == stage and not isinstance(s, Alloc))
            names = frozenset().union(*(written(s) for s in body))
            allocs = tuple(s for s in loop.body if isinstance(s, Alloc) and s.buffer.name in names)
            kept = tuple(s for s in loop.body if s not in body and s not in allocs)
            home = _Home(names, allocs, loop.var)
            return body, replace_loop(kernel, loop.var, lambda found, k=kept: replace(found, body=k)), home  # type: ignore[misc]
    raise unknown_stage(kernel, stage, step.span)


def _owner(statement: Stmt) -> str:
    """The stage a statement belongs to: by its loop, or by what it writes."""
    if isinstance(statement, For):
        return stage_of(statement.var)
    if isinstance(statement, Alloc):
        return stage_of(statement.buffer.name)
    return stage_of(min(written(statement), default=""))


def local_buffers(block: Block) -> frozenset[str]:
    return frozenset(n.buffer.name for s in block for n in walk(s) if isinstance(n, Alloc))


def _count_loads(kernel: Kernel, names: frozenset[str]) -> int:
    return sum(1 for p in kernel.phases for n in walk(p) if isinstance(n, Load) and n.tensor in names)


def _reads_inside_first(kernel: Kernel, names: frozenset[str], variable: str) -> bool:
    """Whether, in program order, no read of `names` stands before the loop of `variable`."""

    def first(block: Block) -> bool | None:
        for statement in block:
            if isinstance(statement, For) and statement.var == variable:
                return True
            if isinstance(statement, For | If):
                parts = (statement.body,) if isinstance(statement, For) else (statement.then, statement.otherwise)
                answers = [answer for part in parts if (answer := first(part)) is not None]
                if answers:
                    return all(answers)
            elif any(isinstance(n, Load) and n.tensor in names for n in walk(statement)):
                return False
        return None

    return next((answer for phase in kernel.phases if (answer := first(phase.body)) is not None), False)


def _readers(kernel: Kernel, names: frozenset[str], but: str = "") -> list[str]:
    """Stages that read `names`, leaving out reads inside the loop `but`."""
    readers: dict[str, None] = {}
    for phase in kernel.phases:
        inside = sum(len(reads_of(loop.body, names)) for loop, _ in nested_loops(phase.body) if loop.var == but)
        if len(reads_of(phase.body, names)) > inside:
            readers[phase.name] = None
    return list(readers)


def _exact(kernel: Kernel, regions: dict[str, tuple[Region, ...]], path: tuple[For, ...], home: _Home) -> bool:
    """Whether the loops of `path` visit every element exactly once, one point (or whole axes) at a time."""
    start = next((n + 1 for n, loop in enumerate(path) if loop.var == home.loop), 0)
    moving = list(path[start:])
    for name, region in regions.items():
        used: list[str] = []
        shape = shape_of(kernel, name)
        for (low, count, _), extent in zip(region, shape):
            if low == index(0) and count == extent:
                continue
            if not (isinstance(low, Var) and count == index(1)):
                return False
            loop = next((l for l in moving if l.var == low.name), None)
            if loop is None or not equal(loop.extent, extent):
                return False
            used.append(low.name)
        if sorted(used) != sorted(l.var for l in moving):
            return False
    return True


def restrict(kernel: Kernel, block: Block, regions: dict[str, tuple[Region, ...]], stage: str, *, shift: bool, step: At) -> Block:
    """The stage's nest over the regions. With `shift` it writes from 0, else to the elements themselves. A nest that another `at` made
    smaller than its buffer has no more iterations than it had: what they read may not be there."""
    places: dict[str, Region] = {}
    whole: dict[str, Expr] = {}
    for name, region in regions.items():
        shape = shape_of(kernel, name)
        for target in targets_of(block, name):
            for place, piece, extent in zip(target, region, shape):
                if not isinstance(place, Var) or stage_of(place.name) != stage:
                    raise error(
                        "E0411", f"the loops of `{stage}` were reshaped before `.at`", step.span,
                        help=f"write `{stage}.at({step.consumer}, {step.axis})` before the other verbs of `{stage}`",
                    )  # fmt: skip
                places[place.name], whole[place.name] = piece, extent

    def loop(node: For) -> For:
        if node.var not in places:
            return node
        low, count, most = places[node.var]
        all_of = low == index(0) and count == whole[node.var]
        if all_of or (low == index(0) and count == node.extent):
            return node
        if not equal(node.extent, whole[node.var]):
            count = binary("max", minimum(count, sub(node.extent, low)), index(0))
        return replace(node, extent=count, bound=most if not isinstance(count, Const) else None)

    moved = substitute(block, {v: add(low, Var(name=v)) for v, (low, _, _) in places.items() if low != index(0)})
    moved = rewrite(moved, {For: loop})
    return _shift(moved, regions) if shift else moved


def _shift(block: Block, regions: dict[str, tuple[Region, ...]]) -> Block:
    """Accesses relative to the start of the region."""

    def move(node: Load | Ref) -> Load | Ref:
        region = regions.get(node.tensor)
        if region is None:
            return node
        moved = tuple(simplify_index(sub(i, low)) for i, (low, _, _) in zip(node.index, region))
        return replace(node, index=moved)

    return rewrite(block, {Load: move, Ref: move})


def _buffers(kernel: Kernel, names: frozenset[str], regions: dict[str, tuple[Region, ...]]) -> tuple[Buffer, ...]:
    out = []
    for name in sorted(names):
        declared = declared_as(kernel, name)
        shape = tuple(count if bound is None else index(bound) for _, count, bound in regions[name])
        out.append(
            Buffer(name=name, dtype=declared.dtype, shape=shape, space="l1" if shape else "reg", span=declared.span)
        )
    return tuple(out)


def insert(loop: For, producer: Block, names: frozenset[str]) -> For:
    """The producer stands right before the first statement of the loop's body that reads it."""
    position = _first_reader(loop, names)
    return replace(loop, body=(*loop.body[:position], *producer, *loop.body[position:]))
