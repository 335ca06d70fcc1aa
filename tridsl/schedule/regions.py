"""Which part of a stage a loop reads: what `at` computes there."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.ir.affine import Interval, equal, fold_ranges, interval, normal_form, simplify_index, sweep, without_clamps
from tridsl.ir.expr import Const, Expr, Load, Select, Var, add, binary, index, sub
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Buffer, For, If, Kernel, Stmt, Store
from tridsl.ir.op import Param, Scalar
from tridsl.ir.walk import variables, walk
from tridsl.schedule.nest import follows_loops, loop_ranges, nested_loops
from tridsl.structs import dataclass

Region = tuple[Expr, Expr, int | None]
"""First point, number of points, constant bound of that number (None: unknown)."""


@dataclass(frozen=True, slots=True)
class Read:
    """An access with the loops around it, outermost first. `guarded`: where a condition is false it is not made."""

    load: Load
    around: tuple[For, ...]
    guarded: bool


def reads_of(block: Block, names: frozenset[str]) -> list[Read]:
    """Reads of `names` in `block`."""
    found: list[Read] = []

    def reads(node: Stmt | Expr, around: tuple[For, ...], guarded: bool) -> None:
        found.extend(
            Read(n, around, guarded or n.mask is not None) for n in walk(node) if isinstance(n, Load) and n.tensor in names
        )

    def visit(block: Block, around: tuple[For, ...], guarded: bool) -> None:
        for statement in block:
            if isinstance(statement, For):
                reads(statement.extent, around, guarded)
                visit(statement.body, (*around, statement), guarded)
            elif isinstance(statement, If):
                reads(statement.condition, around, guarded)
                visit(statement.then, around, True)
                visit(statement.otherwise, around, True)
            else:
                reads(statement, around, guarded)

    visit(block, (), False)
    return found


def declared_as(kernel: Kernel, name: str) -> Buffer | Param:
    for buffer in kernel.scratch:
        if buffer.name == name:
            return buffer
    for phase in kernel.phases:
        for node in walk(phase):
            if isinstance(node, Alloc) and node.buffer.name == name:
                return node.buffer
    return next(p for p in kernel.params if p.name == name)


def shape_of(kernel: Kernel, name: str) -> tuple[Expr, ...]:
    """The extents of a buffer or a tensor."""
    declared = declared_as(kernel, name)
    assert not isinstance(declared, Scalar)
    return declared.shape


def _sizes(kernel: Kernel) -> dict[str, tuple[int | None, int | None]]:
    return dict.fromkeys(kernel.sizes, (0, None))


def region_read(kernel: Kernel, name: str, reads: list[Read], path: tuple[For, ...]) -> tuple[Region | None, ...]:
    """Per axis of tensor `name`: the box that covers `reads` while the loops inside the target loop run; None where nothing is
    read."""
    shape = shape_of(kernel, name)
    return tuple(_part(kernel, axis, extent, reads, path) for axis, extent in enumerate(shape)) if reads else (None,) * len(shape)


def _part(kernel: Kernel, axis: int, extent: Expr, reads: list[Read], path: tuple[For, ...]) -> Region:
    """The interval of `axis` that the reads lie in; the whole axis where they are no monotone function of the loops, or where
    its length would change from iteration to iteration without a bound."""
    outer = {**_sizes(kernel), **loop_ranges(path)}
    ends: list[tuple[Expr, Expr]] = []
    free: list[tuple[Expr, Expr]] = []
    certain = all(_inside(read, read.load.index[axis], outer) for read in reads)
    for read in reads:
        place = read.load.index[axis]
        loops = [(loop.var, loop.extent) for loop in read.around]
        found = sweep(fold_ranges(place, {**outer, **loop_ranges((*path, *read.around))}), loops)
        unclamped = sweep(without_clamps(place, [loop.var for loop in (*path, *read.around)]), loops)
        if found is None or unclamped is None or any(isinstance(n, Load | Select) for n in walk(place)):
            return _whole(extent)
        ends.append(found if certain else _clamped(found, extent, outer))
        free.append(unclamped)
    low, high = (fold_ranges(_union(op, [e[side] for e in ends]), outer) for side, op in enumerate(("min", "max")))
    first, last = (_union(op, [e[side] for e in free]) for side, op in enumerate(("min", "max")))
    count = simplify_index(fold_ranges(simplify_index(add(sub(high, low), index(1))), outer))
    if low == index(0) and (equal(count, extent) or equal(high, sub(extent, index(1)))):
        return _whole(extent)
    several = any(len(set(_empty_loops(read.around, outer)) & variables(read.load.index[axis])) > 1 for read in reads)
    if not certain or several:  # two loops that are empty at once bring the ends further apart than by one
        count = fold_ranges(binary("max", count, index(0)), outer)
    limit = int(count.value) if isinstance(count, Const) else interval(add(sub(last, first), index(1)), outer)[1]
    if limit is None and any(loop.var in variables(count) for loop in path):
        return _whole(extent)
    return simplify_index(low), count, None if limit is None else max(limit, 0)


def _whole(extent: Expr) -> Region:
    return index(0), extent, int(extent.value) if isinstance(extent, Const) else None


def _inside(read: Read, place: Expr, outer: Mapping[str, Interval]) -> bool:
    """Whether every point between the ends of `place` lies in the tensor: the access is made, or names an element even where a
    loop around it is empty, and its variables take their extremes independently of one another."""
    own = {loop.var for loop in read.around} & variables(place)
    tied = any(own & variables(loop.extent) for loop in read.around if loop.var in own)
    return not (read.guarded or tied) and (follows_loops(place) or not _empty_loops(read.around, outer))


def _empty_loops(loops: tuple[For, ...], outer: Mapping[str, Interval]) -> list[str]:
    """Loops that may run zero times."""
    ranges = dict(outer)
    found = []
    for loop in loops:
        if (interval(loop.extent, ranges)[0] or 0) < 1:
            found.append(loop.var)
        ranges |= loop_ranges((loop,))
    return found


def _clamped(ends: tuple[Expr, Expr], extent: Expr, ranges: Mapping[str, Interval]) -> tuple[Expr, Expr]:
    """What of an interval lies in the tensor: an access that is not made may name any place."""
    low, high = binary("max", ends[0], index(0)), binary("min", ends[1], sub(extent, index(1)))
    return fold_ranges(low, ranges), fold_ranges(high, ranges)


def agreed(kernel: Kernel, block: Block, wanted: dict[str, tuple[Region | None, ...]]) -> dict[str, tuple[Region, ...]]:
    """Regions that one nest can compute. Its targets share loops, so an axis has the same part in all of them (the whole where
    they differ; a target that only the stage itself reads has the part of the others). Loops that carry state run over all
    their points, and a tensor that is appended to is made whole."""
    carried = {loop.var for loop, _ in nested_loops(block) if loop.carried}
    shapes = {name: shape_of(kernel, name) for name in wanted}
    regions = {name: list(region) for name, region in wanted.items()}
    parts: dict[str, Region] = {}
    stable = False
    while not stable:
        stable = True
        for name, region in regions.items():
            targets = targets_of(block, name)
            for axis, extent in enumerate(shapes[name]):
                loops = [place.name for place in (target[axis] for target in targets) if isinstance(place, Var)]
                found = [p for p in (region[axis], *(parts.get(v) for v in loops)) if p is not None]
                if not targets or carried & set(loops) or len({p[:2] for p in found}) > 1:
                    found = [_whole(extent)]
                if found and (region[axis] != found[0] or any(parts.get(v) != found[0] for v in loops)):
                    region[axis] = found[0]
                    parts |= dict.fromkeys(loops, found[0])
                    stable = False
    return {
        name: tuple(_whole(extent) if part is None else part for part, extent in zip(region, shapes[name]))
        for name, region in regions.items()
    }


def _union(op: str, ends: list[Expr]) -> Expr:
    result = ends[0]
    for end in ends[1:]:
        result = _least(op, result, end)
    return result


def _least(op: str, a: Expr, b: Expr) -> Expr:
    """min or max, decided when the difference is a constant."""
    difference = normal_form(sub(a, b))
    if not difference.terms:
        first = difference.constant <= 0 if op == "min" else difference.constant >= 0
        return a if first else b
    return binary(op, a, b)  # type: ignore[arg-type]


def targets_of(block: Block, name: str) -> list[tuple[Expr, ...]]:
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
