"""`e.at(y, r)`; Halide: compute_at, with the loop fusion that Halide calls compute_with where it is exact."""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.affine import equal, fold_ranges, interval, normal_form, simplify_index, sweep, without_clamps
from tridsl.ir.expr import Const, Expr, Load, Var, add, binary, index, sub
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.op import Param
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.nest import (
    enclosing,
    find_loop,
    loop_ranges,
    nested_loops,
    replace_loop,
    stage_of,
    stages,
    unknown_stage,
    written,
)
from tridsl.schedule.steps import At

Region = tuple[Expr, Expr, int | None]
"""First point, number of points, constant bound of that number (None: unknown)."""


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

    E0410: a reader stands outside the loop (or before it). E0411: the stage's loops were already reshaped: put `.at` first.
    E0414: the stage is a result and must be computed whole.
    """
    stage = step.stage
    target = find_loop(kernel, step.consumer, step.axis, step.span)
    body_of, kernel_without, home = _take(kernel, step)
    names = frozenset().union(*(written(s) for s in body_of)) - _local(body_of)
    results = names & {p.name for p in kernel.params}
    if results:
        raise error(
            "E0414", f"stage `{stage}` is a result of the op and is computed whole", step.span,
            help=f"use `.at` on the stages that `{stage}` reads",
        )  # fmt: skip
    if any(v.startswith(f"{stage}:") for v in (target.var, *(l.var for l in enclosing(kernel, target.var)))):
        raise error("E0410", f"`{stage}` cannot be computed inside itself", step.span, help="name a loop of a stage that reads it")
    inside = _loads(target.body, names)
    elsewhere = f"`{stage}` is read outside the loop `{step.axis}` of `{step.consumer}`: by "
    if not inside and _count_loads(kernel_without, names):
        raise NotYet(elsewhere + ", ".join(_readers(kernel_without, names, target.var)))
    if not inside:
        raise error(
            "E0410", f"the loop `{step.axis}` of `{step.consumer}` does not read `{stage}`", step.span,
            help=f"nothing reads `{stage}`",
        )  # fmt: skip
    path = (*enclosing(kernel_without, target.var), target)
    outside = _count_loads(kernel_without, names) > len(inside)
    read = {load.tensor for load, _ in inside}
    regions = {name: _region(kernel, name, [(l, p) for l, p in inside if l.tensor == name], path) for name in sorted(read)}
    regions = {name: _keep_carried(kernel, name, body_of, region) for name, region in regions.items()}
    regions |= {name: _implied(kernel, name, body_of, regions) for name in sorted(names - read)}
    if outside:
        if not _exact(kernel, regions, path, home) or not _reads_inside_first(kernel_without, names, target.var):
            raise NotYet(elsewhere + ", ".join(_readers(kernel_without, names, target.var)))
        producer = _restrict(body_of, regions, stage, shift=False, step=step)
        return replace_loop(home.restore(kernel_without), target.var, lambda loop: _insert(loop, producer, names))
    buffers = _buffers(kernel, names, regions)
    producer = (*(Alloc(buffer=b) for b in buffers), *_restrict(body_of, regions, stage, shift=True, step=step))

    def place(loop: For) -> For:
        shifted = _shift(loop.body, regions)
        return _insert(replace(loop, body=shifted), producer, names)

    placed = replace_loop(kernel_without, target.var, place)
    return replace(placed, scratch=tuple(b for b in placed.scratch if b.name not in names))


class _Home:
    """Where a stage's storage was before: the kernel's scratch, or `Alloc`s inside the loops of another stage."""

    def __init__(self, names: frozenset[str], allocs: tuple[Alloc, ...], loop: str | None) -> None:
        self.names, self.allocs, self.loop = names, allocs, loop

    def restore(self, kernel: Kernel) -> Kernel:
        """Storage that stays: put the allocs back at the start of the block they came from."""
        if not self.allocs or self.loop is None:
            return kernel
        return replace_loop(kernel, self.loop, lambda loop: replace(loop, body=(*self.allocs, *loop.body)))


def _take(kernel: Kernel, step: At) -> tuple[Block, Kernel, _Home]:
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


def _local(block: Block) -> frozenset[str]:
    return frozenset(n.buffer.name for s in block for n in walk(s) if isinstance(n, Alloc))


def _loads(block: Block, names: frozenset[str]) -> list[tuple[Load, tuple[For, ...]]]:
    """Reads of `names` in `block`, with the loops of `block` around each."""
    found: list[tuple[Load, tuple[For, ...]]] = []

    def visit(block: Block, around: tuple[For, ...]) -> None:
        for statement in block:
            if isinstance(statement, For):
                found.extend((n, around) for n in walk(statement.extent) if isinstance(n, Load) and n.tensor in names)
                visit(statement.body, (*around, statement))
            elif isinstance(statement, If):
                found.extend((n, around) for n in walk(statement.condition) if isinstance(n, Load) and n.tensor in names)
                visit(statement.then, around)
                visit(statement.otherwise, around)
            else:
                found.extend((n, around) for n in walk(statement) if isinstance(n, Load) and n.tensor in names)

    visit(block, ())
    return found


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
        inside = sum(len(_loads(loop.body, names)) for loop, _ in nested_loops(phase.body) if loop.var == but)
        if len(_loads(phase.body, names)) > inside:
            readers[phase.name] = None
    return list(readers)


def _declared(kernel: Kernel, name: str) -> Buffer | Param:
    for buffer in kernel.scratch:
        if buffer.name == name:
            return buffer
    for phase in kernel.phases:
        for node in walk(phase):
            if isinstance(node, Alloc) and node.buffer.name == name:
                return node.buffer
    return next(p for p in kernel.params if p.name == name)


def _sizes(kernel: Kernel) -> dict[str, tuple[int | None, int | None]]:
    return dict.fromkeys(kernel.sizes, (0, None))


def _region(kernel: Kernel, name: str, reads: list[tuple[Load, tuple[For, ...]]], path: tuple[For, ...]) -> tuple[Region, ...]:
    """Per axis of tensor `name`: the box that covers `reads` while the loops inside the target loop run."""
    shape = _declared(kernel, name).shape  # type: ignore[union-attr]
    outer = {**_sizes(kernel), **loop_ranges(path)}
    out: list[Region] = []
    for axis, extent in enumerate(shape):
        whole: Region = (index(0), extent, int(extent.value) if isinstance(extent, Const) else None)
        low: Expr | None = None
        high: Expr | None = None
        bound_low: Expr | None = None
        bound_high: Expr | None = None
        for load, around in reads:
            loops = [(loop.var, loop.extent) for loop in around]
            ranges = {**outer, **loop_ranges((*path, *around))}
            ends = sweep(fold_ranges(load.index[axis], ranges), loops)
            inner = [loop.var for loop in (*path, *around)]
            free = sweep(without_clamps(load.index[axis], inner), loops)
            if ends is None or free is None or _depends_on_loads(load.index[axis]):
                low = None
                break
            low = ends[0] if low is None else _least("min", low, ends[0])
            high = ends[1] if high is None else _least("max", high, ends[1])
            bound_low = free[0] if bound_low is None else _least("min", bound_low, free[0])
            bound_high = free[1] if bound_high is None else _least("max", bound_high, free[1])
        if low is None or high is None or bound_low is None or bound_high is None:
            out.append(whole)
            continue
        low, high = fold_ranges(low, outer), fold_ranges(high, outer)
        count = simplify_index(fold_ranges(simplify_index(add(sub(high, low), index(1))), outer))
        limit = interval(add(sub(bound_high, bound_low), index(1)), outer)[1]
        if isinstance(count, Const):
            limit = int(count.value)
        if low == index(0) and (equal(count, extent) or equal(high, sub(extent, index(1)))):
            out.append(whole)
        else:
            out.append((simplify_index(low), count, None if limit is None else max(limit, 0)))
    return tuple(out)


def _keep_carried(kernel: Kernel, name: str, block: Block, region: tuple[Region, ...]) -> tuple[Region, ...]:
    """Loops whose iterations build on each other (a scan, the slots of a top-k) run as a whole wherever they stand."""
    carried = {loop.var for loop, _ in nested_loops(block) if loop.carried}
    shape = _declared(kernel, name).shape  # type: ignore[union-attr]
    out = list(region)
    for target in _targets(block, name):
        for axis, place in enumerate(target):
            if carried & variables(place):
                extent = shape[axis]
                out[axis] = (index(0), extent, int(extent.value) if isinstance(extent, Const) else None)
    return tuple(out)


def _implied(kernel: Kernel, name: str, block: Block, regions: dict[str, tuple[Region, ...]]) -> tuple[Region, ...]:
    """Region of a tensor that only the stage itself reads (a monoid's running maximum): what its shared loops are cut to."""
    pieces: dict[str, Region] = {}
    for other, region in regions.items():
        for target in _targets(block, other):
            pieces |= {place.name: piece for place, piece in zip(target, region) if isinstance(place, Var)}
    shape = _declared(kernel, name).shape  # type: ignore[union-attr]
    target = _targets(block, name)[0]
    whole = [(index(0), n, int(n.value) if isinstance(n, Const) else None) for n in shape]
    return tuple(pieces.get(p.name, w) if isinstance(p, Var) else w for p, w in zip(target, whole))


def _depends_on_loads(expression: Expr) -> bool:
    return any(isinstance(n, Load) for n in walk(expression))


def _least(op: str, a: Expr, b: Expr) -> Expr:
    """min or max, decided when the difference is a constant."""
    difference = normal_form(sub(a, b))
    if not difference.terms:
        first = difference.constant <= 0 if op == "min" else difference.constant >= 0
        return a if first else b
    return binary(op, a, b)  # type: ignore[arg-type]


def _exact(kernel: Kernel, regions: dict[str, tuple[Region, ...]], path: tuple[For, ...], home: _Home) -> bool:
    """Whether the loops of `path` visit every element exactly once, one point (or whole axes) at a time."""
    start = next((n + 1 for n, loop in enumerate(path) if loop.var == home.loop), 0)
    moving = list(path[start:])
    for name, region in regions.items():
        used: list[str] = []
        shape = _declared(kernel, name).shape  # type: ignore[union-attr]
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


def _restrict(block: Block, regions: dict[str, tuple[Region, ...]], stage: str, *, shift: bool, step: At) -> Block:
    """The stage's nest over the regions. With `shift` it writes from 0, else to the elements themselves."""
    places: dict[str, Region] = {}
    for name, region in regions.items():
        for target in _targets(block, name):
            for place, piece in zip(target, region):
                if not isinstance(place, Var) or stage_of(place.name) != stage:
                    raise error(
                        "E0411", f"the loops of `{stage}` were reshaped before `.at`", step.span,
                        help=f"write `{stage}.at({step.consumer}, {step.axis})` before the other verbs of `{stage}`",
                    )  # fmt: skip
                known = places.get(place.name)
                if known is not None and known[:2] != piece[:2]:
                    low = simplify_index(binary("min", known[0], piece[0]))
                    piece = (low, known[1] if known[1] == piece[1] else binary("max", known[1], piece[1]), None)
                places[place.name] = piece

    def loop(node: For) -> For:
        piece = places.get(node.var)
        if piece is None:
            return node
        bound = piece[2] if not isinstance(piece[1], Const) else None
        return replace(node, extent=piece[1], bound=bound)

    moved = substitute(block, {v: add(low, Var(name=v)) for v, (low, _, _) in places.items() if low != index(0)})
    moved = rewrite(moved, {For: loop})
    return _shift(moved, regions) if shift else moved


def _targets(block: Block, name: str) -> list[tuple[Expr, ...]]:
    out: list[tuple[Expr, ...]] = []
    for statement in block:
        for node in walk(statement):
            if isinstance(node, Store) and node.target.tensor == name:
                out.append(node.target.index)
            elif isinstance(node, Accumulate):
                out += [t.index for t in node.targets if t.tensor == name]
            elif isinstance(node, Append) and node.count.tensor == name:
                out.append(node.count.index)
    return out


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
        declared = _declared(kernel, name)
        shape = tuple(count if bound is None else index(bound) for _, count, bound in regions[name])
        out.append(
            Buffer(name=name, dtype=declared.dtype, shape=shape, space="l1" if shape else "reg", span=declared.span)
        )
    return tuple(out)


def _insert(loop: For, producer: Block, names: frozenset[str]) -> For:
    """The producer stands right before the first statement of the loop's body that reads it."""
    for position, statement in enumerate(loop.body):
        if any(isinstance(n, Load) and n.tensor in names for n in walk(statement)):
            return replace(loop, body=(*loop.body[:position], *producer, *loop.body[position:]))
    raise AssertionError("a producer is only moved to where it is read")
