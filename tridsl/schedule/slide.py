"""`gray.slide(edge, y)`; Halide: store_at outside, compute_at inside, and the sliding window and folded storage that follow."""

from __future__ import annotations

from collections.abc import Iterable

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error
from tridsl.ir.affine import Polynomial, clamp_in, equal, normal_form, simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Select, Var, add, binary, index, sub
from tridsl.ir.loop import Alloc, Block, Buffer, For, Kernel, Ref
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, variables
from tridsl.schedule.at import at, check_place, check_updates, insert, local_buffers, restrict, take
from tridsl.schedule.nest import enclosing, find_loop, replace_loop, require_serial, stage_of, written
from tridsl.schedule.regions import Read, Region, agreed, declared_as, reads_of, region_read, shape_of
from tridsl.schedule.steps import At, Slide
from tridsl.structs import replace


def slide(kernel: Kernel, step: Slide, spec: DeviceSpec) -> Kernel:
    """
    before:  for y: for x: gray[y, x] = …                    after:  alloc gray: u8[4, W]
             for y: for x: edge[y, x] = gray[y - 1, x]               for y: for r < new rows: for x: gray[(… + r) % 4, x] = …
                                      + gray[y + 1, x]                      for x: edge[y, x] = gray[(y - 1) % 4, x] + …

    Each iteration computes only the rows that no earlier one has, into a ring that holds the rows in use; the loop keeps its
    order from then on. Legal when the rows that an iteration reads move up with the loop by a bounded number, are boundedly
    many, and all readers stand inside the loop. E0426: one of these is not so. E0404, E0405, E0410, E0411, E0414: as for `at`.
    """
    target = find_loop(kernel, step.consumer, step.axis, step.span)
    require_serial(target, "slide", step.span)
    place = At(stage=step.stage, consumer=step.consumer, axis=step.axis, span=step.span)
    body, without, _ = take(kernel, place)
    names = frozenset[str]().union(*(written(s) for s in body)) - local_buffers(body)
    if names & {p.name for p in kernel.params if isinstance(p, Tensor)}:
        raise error(
            "E0414", f"stage `{step.stage}` is a result of the op and is computed whole", step.span,
            help=f"use `.slide` on the stages that `{step.stage}` reads",
        )  # fmt: skip
    path = (*enclosing(without, target.var), target)
    if any(stage_of(loop.var) == step.stage for loop in path) or target.reduce:
        raise _refused(step, f"`{step.axis}` of `{step.consumer}` is no loop over points of another stage")
    reads = reads_of(target.body, names)
    if not reads or len(reads) != sum(len(reads_of(p.body, names)) for p in without.phases):
        raise _refused(step, f"it is not read, or also outside the loop `{step.axis}` of `{step.consumer}`")
    check_place(without, path, body, names, place)
    wanted = {name: region_read(kernel, name, [r for r in reads if r.load.tensor == name], path) for name in sorted(names)}
    regions = agreed(kernel, body, wanted)
    (low, count, most), axis = _moving(regions, reads, target, step)
    if most is not None and most <= 1:
        return at(kernel, place, spec)  # no row is read twice
    last = _last(low, count)
    climb = _climb(last, target.var)
    whole = low == index(0) and equal(count, shape_of(kernel, min(names))[axis])
    if climb is None or _climb(low, target.var) is None or (most is None and not whole):
        raise _refused(step, f"what `{step.axis}` reads of it does not move up with the loop by a bounded number of rows")
    ring = count if most is None else index(1 << max(most - 1, 0).bit_length())  # a power of two: the remainder is a mask
    earlier = add(substitute(last, {target.var: sub(Var(name=target.var), index(1))}), index(1))
    first = Select(condition=binary("eq", Var(name=target.var), index(0)), a=low, b=simplify_index(binary("max", low, earlier)), dtype=low.dtype)
    new: Region = (first, add(sub(last, first), index(1)), None if most is None else max(most, climb))
    fresh_rows = {name: tuple(new if n == axis else part for n, part in enumerate(region)) for name, region in regions.items()}
    producer = _in_ring(restrict(kernel, body, fresh_rows, step.stage, shift=False, step=place), regions, axis, ring)
    check_updates(kernel, without, producer, path, names, place)
    buffers = tuple(Alloc(buffer=_ring(kernel, name, regions[name], axis, ring)) for name in sorted(names))

    def put(loop: For) -> Block:
        inside = insert(replace(loop, body=_in_ring(loop.body, regions, axis, ring)), producer, names)
        return (*buffers, replace(inside, carried=True))

    placed = replace_loop(without, target.var, put)
    return replace(placed, scratch=tuple(b for b in placed.scratch if b.name not in names))


def _moving(regions: dict[str, tuple[Region, ...]], reads: list[Read], target: For, step: Slide) -> tuple[Region, int]:
    """The axis that is read along with the loop, and the part of it that an iteration reads: the same in all tensors of the
    stage. (It may be all of the axis, of a tensor with few rows.)"""
    along = {axis for read in reads for axis, place in enumerate(read.load.index) if target.var in variables(place)}
    moving = {axis for region in regions.values() for axis, part in enumerate(region) if target.var in variables(part[:2])}
    parts = {region[axis] for region in regions.values() for axis in along if axis < len(region)}
    if len(along) != 1 or not moving <= along or len(parts) != 1:
        raise _refused(step, f"not exactly one of its axes is read along with `{step.axis}`")
    return parts.pop(), along.pop()


def _last(low: Expr, count: Expr) -> Expr:
    """The last of `count` rows from `low` on, `low - 1` where there are none."""
    match count:
        case Binary(op="max", a=some, b=Const(value=0)):
            return binary("max", _last(low, some), simplify_index(sub(low, index(1))))
    return simplify_index(sub(add(low, count), index(1)))


def _climb(place: Expr, variable: str) -> int | None:
    """The most by which `place` grows from one iteration to the next; None where it may shrink, or nothing is known."""
    moving = tuple(term for term in normal_form(place).terms if any(variable in variables(atom) for atom in term[0]))
    split = clamp_in(Polynomial(terms=moving)) if len(moving) > 1 else None
    if split is not None:  # i*8 + min(8, N - i*8) climbs as one
        return _most(_climb(simplify_index(case), variable) for case in split[1])
    total = 0
    for monomial, factor in moving:
        inner = _atom_climb(monomial[0], variable) if len(monomial) == 1 and factor > 0 else None
        if inner is None:
            return None
        total += factor * inner
    return total


def _atom_climb(atom: Expr, variable: str) -> int | None:
    match atom:
        case Var():
            return 1
        case Binary(op="min" | "max", a=a, b=b):
            return _most((_climb(a, variable), _climb(b, variable)))
        case Binary(op="floordiv", a=a, b=Const(value=c)) if c > 0:
            inner = _climb(a, variable)
            return None if inner is None else -(-inner // int(c))
    return None


def _most(climbs: Iterable[int | None]) -> int | None:
    known = list(climbs)
    return None if None in known else max(c for c in known if c is not None)


def _ring(kernel: Kernel, name: str, region: tuple[Region, ...], axis: int, ring: Expr) -> Buffer:
    declared = declared_as(kernel, name)
    shape = tuple(ring if n == axis else count if bound is None else index(bound) for n, (_, count, bound) in enumerate(region))
    return Buffer(name=name, dtype=declared.dtype, shape=shape, space="l1", span=declared.span)


def _in_ring(block: Block, regions: dict[str, tuple[Region, ...]], axis: int, ring: Expr) -> Block:
    """Accesses at their row's place in the ring, along the other axes relative to the part that is kept."""

    def move(node: Load | Ref) -> Load | Ref:
        region = regions.get(node.tensor)
        if region is None:
            return node
        parts = enumerate(zip(node.index, region))
        return replace(
            node, index=tuple(binary("mod", i, ring) if n == axis else simplify_index(sub(i, low)) for n, (i, (low, _, _)) in parts)
        )

    return rewrite(block, {Load: move, Ref: move})


def _refused(step: Slide, why: str) -> TriError:
    return error(
        "E0426", f"`{step.stage}` cannot slide along `{step.axis}` of `{step.consumer}`: {why}", step.span,
        help=f"use `{step.stage}.at({step.consumer}, {step.axis})`, which computes the whole part that an iteration reads",
    )  # fmt: skip
