"""Steps for a monoid that is merged in blocks, by the number of its rows.

- Many rows (a prompt; the heads that share one key): rows are lanes. Scores lie as [t, rows]; a panel of the rows' factor is packed
  once, keys and values are read in place, one element for all lanes, and the key and the sums of a block need no step across lanes.
- Few rows (one step of decoding): each key and value is read once, along its own axis. The heads of a group are rows too.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tridsl.devices.intrinsics import INTRINSICS, Intrinsic
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import compute_type
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Load
from tridsl.ir.op import Reduce
from tridsl.schedule.analyse import Graph, extent_of, unit_stride_axis
from tridsl.schedule.blocked_monoid import Group, Scores, blocked_group
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.steps import (
    At,
    BlockBy,
    Inline,
    Intrin,
    Layout,
    Order,
    Pack,
    Parallel,
    Parts,
    Pipeline,
    Split,
    Step,
    Unroll,
    Vector,
)
from tridsl.structs import dataclass, replace

ROWS = 64
"""Rows of a block, and elements merged at a time: with 64 columns, 16 KiB of each operand."""
VECTORS = 2
"""Vectors of a row of the register tiles; with eight rows 16 sums, which two multiply-add units keep busy."""
TILE = 8
WIDEST = 4
"""Vectors of one vector loop that stay in registers (`passes.strip_vectors`)."""
MANY = 16
"""Rows from which threads have enough to share without parts of the elements."""
TALLEST = (4, 6, 8, 12)
BLOCKS = (32, 64, 96, 128, 192, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """Steps for a group of stages, which need no others."""

    members: frozenset[str]
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Task:
    """A group, and what is known when its steps are chosen."""

    group: Group
    graph: Graph
    spec: DeviceSpec
    sizes: Mapping[str, int]
    extents: Mapping[str, int | None]
    decide: Decider

    @property
    def lanes(self) -> int:
        return self.spec.lanes(self.group.merge.reducer.dtypes[0])


def blocked_monoids(graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> tuple[Blocked, ...]:
    """Steps for each monoid that can be merged in blocks and the stages around it."""
    found = []
    for stage in graph.stages.values():
        group = blocked_group(graph, stage, spec, sizes) if isinstance(stage, Reduce) else None
        if group is None or not decide(f"{stage.name}.blocks", True, (False,), "whether elements are merged a block at a time"):
            continue
        extents = {a.name: extent_of(a, sizes) for a in (*group.merge.axes, *group.merge.over)}
        task = _Task(group=group, graph=graph, spec=spec, sizes=sizes, extents=extents, decide=decide)
        rows = task.extents[group.row]
        steps = [Inline(stage=name) for name in group.between]
        shaped = _rows_in_lanes(task) if rows is None or rows >= task.lanes else _rows_in_turn(task)
        found.append(Blocked(members=group.members, steps=(*steps, *shaped)))
    return tuple(found)


def _rows_in_lanes(task: _Task) -> list[Step]:
    group, decide = task.group, task.decide
    merge, root, q, t, e = group.merge.name, group.root.name, group.row, group.elements, group.own.name
    vectors = min(VECTORS, -(-(task.extents[q] or ROWS) // task.lanes))
    width, tall = vectors * task.lanes, decide(f"{merge}.rows", TILE, TALLEST, "rows of the register tiles")
    converted = any(compute_type(n.dtype) != n.dtype for n in (*group.values, *(s.elements for s in group.scores)))
    rows = decide(f"{merge}.block_rows", *_sizes(task.extents[q], width, ROWS * 2 if converted else ROWS), "rows whose states are in the caches together")
    elements = decide(f"{merge}.block", *_sizes(task.extents[t], tall, ROWS), "elements merged at a time")
    steps: list[Step] = [
        Split(stage=root, axis=q, factor=rows),
        Order(stage=root, axes=(*group.others, f"{q}.o", f"{q}.i", e)),
        At(stage=merge, consumer=root, axis=f"{q}.o"),
        BlockBy(stage=merge, axis=t, factor=elements),
        Layout(stage=group.part("weight"), axes=(t, q)),
    ]
    paired = {s.stage.name: _paired(task, s) for s in group.scores}
    ragged = (task.extents[t] or 0) % tall != 0
    for scores in group.scores:
        stage = scores.stage.name
        steps += [At(stage=stage, consumer=merge, axis=f"{t}.o"), Layout(stage=stage, axes=(t, q))]
        narrow = compute_type(scores.elements.dtype) != scores.elements.dtype
        steps += _score_tiles(group, scores, tall, width, paired[stage], copied=(ragged or narrow) and _known(task, scores))
    for part in ("key", "weight"):
        steps += [
            Split(stage=group.part(part), axis=q, factor=_even(rows, WIDEST * task.lanes)),
            Order(stage=group.part(part), axes=(*group.others, f"{q}.o", f"{t}.i", f"{q}.i")),
            Vector(stage=group.part(part), axis=f"{q}.i"),
        ]
    steps += [Vector(stage=group.part("scale"), axis=q), Vector(stage=f"{group.sum}.scale", axis=e)]
    steps += _sum_tiles(task, group, q, group.others, tall, VECTORS * task.lanes, widen=True)
    fused, outer = all_fused(root, (*group.others, f"{q}.o"))
    steps += outer
    for scores in group.scores:
        if _known(task, scores):
            wide = None if paired[scores.stage.name] else compute_type(scores.rows.dtype)
            steps.append(Pack(stage=scores.rows.tensor, at=fused, reader=root, type=wide))
    return [*steps, Parallel(stage=root, axis=fused), Vector(stage=root, axis=e)]


def _rows_in_turn(task: _Task) -> list[Step]:
    group, decide = task.group, task.decide
    root, e = group.root.name, group.own.name
    together = {group.grouped[0]: f"{group.grouped[0]}.i"} if group.grouped else {}
    inner = [together.get(a, a) for a in group.shared if a in (*together, group.row)]
    outer = [f"{a}.o" if a in together else a for a in group.shared if a != group.row]
    part = _part(task)
    if part is not None:
        return _parts_in_turn(task, part, outer, inner)
    merge, t = group.merge.name, group.elements
    elements = decide(f"{merge}.block", *_sizes(task.extents[t], task.lanes, ROWS), "elements merged at a time")
    steps: list[Step] = [Split(stage=root, axis=group.grouped[0], factor=group.grouped[1])] if group.grouped else []
    steps += [
        Order(stage=root, axes=(*outer, *inner, e)),
        At(stage=merge, consumer=root, axis=(*outer, inner[0])[max(0, len(outer) - 1)]),
        BlockBy(stage=merge, axis=t, factor=elements),
        *_blocks_in_turn(task, group, group.shared, group.grouped[0] if group.grouped else group.row),
    ]
    if outer:
        fused, joined = all_fused(root, tuple(outer))
        steps += [*joined, Parallel(stage=root, axis=fused)]
    return [*steps, Vector(stage=root, axis=e)]


def _part(task: _Task) -> int | None:
    """Elements of one part, where a group of few rows is divided so that threads have something to share. The sizes and the chip decide, not
    the threads: the same sums are made whoever makes them."""
    group, decide = task.group, task.decide
    shared = [task.extents[a] for a in group.shared if a != group.row]
    length, count = task.extents[group.elements], prod(n or MANY for n in shared) // (group.grouped[1] if group.grouped else 1)
    if length is None or any(n is None for n in shared):
        return None
    read = {n.tensor: n.dtype for n in (*(s.elements for s in group.scores), *group.values)}
    each = sum(dtype.storage_bytes * (task.extents[group.own.name] or ROWS) for dtype in read.values())
    part = max(ROWS, (task.spec.l2_bytes or 1 << 20) // 4 // each // ROWS * ROWS)
    pays = count < MANY and length >= 2 * part
    divided = decide(f"{group.merge.name}.parts", pays, (False, True) if length > part else (), "whether parts of the elements are merged by themselves")
    return part if divided else None


def _parts_in_turn(task: _Task, part: int, outer: list[str], inner: list[str]) -> list[Step]:
    """Each part of the elements is a row's own work; what they come to is merged in the end."""
    group, decide = task.group, task.decide
    merge, root, t, e = group.merge.name, group.root.name, group.elements, group.own.name
    within = replace(group.merge.over[0], name=f"{t}.i")
    name = f"{merge}.part"
    own = replace(group, merge=replace(group.merge, name=name, over=(within,)), wide=f"{name}.{group.wide.rpartition('.')[2]}")
    elements = decide(f"{merge}.block", *_sizes(part, task.lanes, ROWS), "elements merged at a time")
    steps: list[Step] = [Parts(stage=merge, axis=t, factor=part)]
    if group.grouped:
        steps.append(Split(stage=own.merge.name, axis=group.grouped[0], factor=group.grouped[1]))
    steps += [
        Order(stage=own.merge.name, axes=(*outer, f"{t}.o", *inner)),
        BlockBy(stage=own.merge.name, axis=f"{t}.i", factor=elements, at=f"{t}.o"),
        *_blocks_in_turn(task, own, tuple(inner), inner[0] if group.grouped else group.row),
    ]
    fused, joined = all_fused(own.merge.name, (*outer, f"{t}.o"))
    return [*steps, *joined, Parallel(stage=own.merge.name, axis=fused), Vector(stage=merge, axis=e), Vector(stage=root, axis=e)]


def _blocks_in_turn(task: _Task, group: Group, shared: tuple[str, ...], row: str) -> list[Step]:
    """What is done with one block. `group` is the task's, or that of its parts; `shared` loops, one of them over rows, are in each block."""
    merge, t, e, decide = group.merge.name, group.elements, group.own.name, task.decide
    steps: list[Step] = []
    for scores in group.scores:
        stage = scores.stage.name
        steps += [
            At(stage=stage, consumer=merge, axis=f"{t}.o"),
            Order(stage=stage, axes=(task.group.elements, *group.shared, *scores.terms)),
            Vector(stage=stage, axis=scores.terms[-1]),
        ]
    steps += [
        Vector(stage=group.part("key"), axis=f"{t}.i"),
        Vector(stage=group.part("weight"), axis=f"{t}.i"),
        Vector(stage=f"{group.sum}.scale", axis=e),
    ]
    many = group.grouped[1] if group.grouped else task.extents[group.row] or 1
    tall = max(1, min(TILE, many))
    vectors = max(1, min(TILE * VECTORS // tall, -(-(task.extents[e] or task.lanes) // task.lanes)))
    steps += _sum_tiles(task, group, row, tuple(a for a in shared if a != row), tall, vectors * task.lanes, widen=False)
    for tensor in dict.fromkeys(n.tensor for n in (*(s.elements for s in group.scores), *group.values)):
        size = _bytes(task, tensor)  # each is read once, in streams that take turns
        beyond = size is not None and size > (task.spec.l2_bytes or size)
        if decide(f"{merge}.prefetch.{tensor}", beyond, (False, True), f"whether the next block of {tensor} is prefetched"):
            steps.append(Pipeline(stage=tensor, depth=1, at=f"{t}.o", reader=merge))
    return steps


def _paired(task: _Task, scores: Scores) -> Intrinsic | None:
    """The instruction that adds several products of a score at a time, along the last of the axes summed over."""
    row, last = _instruction(scores.rows, scores.elements, task.spec), scores.stage.over[-1]
    whole = row is not None and (extent_of(last, task.sizes) or 1) % row.k == 0
    if row is None or not whole or any(unit_stride_axis(f) != last.name for f in (scores.rows, scores.elements)):
        return None
    return row if task.decide(f"{scores.stage.name}.instruction", _pays(task.spec), (False, True), f"whether {row.name} multiplies") else None


def _score_tiles(group: Group, scores: Scores, tall: int, width: int, row: Intrinsic | None, *, copied: bool) -> list[Step]:
    """Register tiles of elements by vectors of rows. `copied`: from a panel, which is filled up to whole tiles."""
    stage, q, t = scores.stage.name, group.row, group.elements
    *terms, last = scores.terms
    steps: list[Step] = [
        Split(stage=stage, axis=q, factor=width),
        Split(stage=stage, axis=t, factor=tall),
        Order(stage=stage, axes=(*group.others, f"{q}.o", f"{t}.o", f"{t}.i", f"{q}.i", *scores.terms)),
    ]
    if row is None and copied:
        steps.append(_panel(group, scores.elements, stage))
    inner: tuple[str, ...] = (last, f"{t}.i", f"{q}.i")
    if row is not None:
        steps.append(Split(stage=stage, axis=last, factor=row.k))
        inner = (f"{last}.o", f"{t}.i", f"{q}.i", f"{last}.i")
    steps += [
        Order(stage=stage, axes=(f"{q}.o", f"{t}.o", *terms, *inner)),
        Unroll(stage=stage, axis=f"{t}.i"),
        Vector(stage=stage, axis=f"{q}.i"),
    ]
    return steps if row is None else [*steps, Intrin(stage=stage, name=row.name)]


def _sum_tiles(task: _Task, group: Group, row: str, outer: tuple[str, ...], tall: int, width: int, *, widen: bool) -> list[Step]:
    """Register tiles of rows by vectors of values, over the elements of the block."""
    stage = group.sum
    t, e, widest = f"{group.elements}.i", group.own.name, WIDEST * task.lanes
    shared_with_keys = any(s.elements.tensor == v.tensor for s in group.scores for v in group.values)
    plain = widen and len(group.values) == 1 and not shared_with_keys and task.extents[e] is not None
    instruction = _rounding(task) if plain else None
    steps: list[Step] = [Order(stage=stage, axes=(*outer, t, row, e))]
    if plain and instruction is None and compute_type(group.values[0].dtype) != group.values[0].dtype:
        steps.append(_panel(group, group.values[0], stage))
    steps += [Split(stage=stage, axis=row, factor=tall), Split(stage=stage, axis=e, factor=width)]
    tile: tuple[str, ...] = (f"{row}.i", f"{e}.i")
    if width > widest:
        steps.append(Split(stage=stage, axis=f"{e}.i", factor=widest))
        tile = (f"{row}.i", f"{e}.i.o", f"{e}.i.i")
    order = (f"{e}.o", f"{row}.o", t, *tile)
    if instruction is not None:
        steps.append(Split(stage=stage, axis=t, factor=instruction.k))
        order = (f"{e}.o", f"{row}.o", f"{t}.o", *tile, f"{t}.i")
    steps += [Order(stage=stage, axes=order), *(Unroll(stage=stage, axis=a) for a in tile[:-1]), Vector(stage=stage, axis=tile[-1])]
    if instruction is not None:
        values, at = group.values[0], (*outer, order[0])[0]
        steps += [
            Pack(stage=group.part("weight"), at=at, reader=stage, type=values.dtype),
            Pack(stage=values.tensor, at=at, reader=stage),
            Intrin(stage=stage, name=instruction.name),
        ]
    return steps


def _panel(group: Group, load: Load, stage: str) -> Step:
    """A copy of a factor's block, which lies as the loops are now. Narrow elements are converted there, once for all rows."""
    at, reader = (group.others[0], stage) if group.others else (f"{group.elements}.o", group.merge.name)
    return Pack(stage=load.tensor, at=at, reader=reader, type=compute_type(load.dtype))


def _known(task: _Task, scores: Scores) -> bool:
    """Whether a panel of all terms has a size."""
    return all(extent_of(a, task.sizes) is not None for a in scores.stage.over)


def _rounding(task: _Task) -> Intrinsic | None:
    """The instruction for weights that are rounded to the type of values and result."""
    group = task.group
    row = _instruction(group.values[0], group.values[0], task.spec) if group.root.dtype == group.values[0].dtype else None
    about = "whether weights are rounded to the type of the values they multiply"
    return row if row is not None and task.decide(f"{group.merge.name}.round_weights", _pays(task.spec), (False, True), about) else None


def _instruction(a: Load, b: Load, spec: DeviceSpec) -> Intrinsic | None:
    """One that adds several products of these elements; where it loses denormals, these are far below a unit of the sums here."""
    found = (row for row in INTRINSICS.values() if row.lanes and row.k > 1 and (row.a, row.b) == (a.dtype, b.dtype))
    return next((row for row in found if row.feature in spec.features), None)


def _pays(spec: DeviceSpec) -> bool:
    """Whether instructions for pairs of narrow floats do more than multiply-adds of wide ones."""
    return (spec.peak_bf16_ops_per_second_per_core or 0) > (spec.peak_f32_ops_per_second_per_core or 0)


def _bytes(task: _Task, tensor: str) -> int | None:
    """Of an input of known size."""
    declared = next((p for p in task.graph.op.tensors if p.name == tensor), None)
    try:
        return None if declared is None else declared.dtype.storage_bytes * prod(evaluate_index(n, task.sizes) for n in declared.shape)
    except KeyError:
        return None


def _even(extent: int, most: int) -> int:
    """The largest part up to `most` that divides the extent."""
    return next(n for n in range(min(extent, most), 0, -1) if extent % n == 0)


def _sizes(extent: int | None, step: int, usual: int) -> tuple[int, tuple[int, ...]]:
    """The usual size of a block and the others worth trying, in whole steps, not beyond the extent."""
    most = max(BLOCKS) if extent is None else max(step, -(-extent // step) * step)
    fitting = [min(most, -(-n // step) * step) for n in (usual, *BLOCKS)]
    return fitting[0], tuple(dict.fromkeys(fitting[1:]))
