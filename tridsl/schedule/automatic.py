"""The schedule of an op that has none: good untuned, from the op's shape and the facts of the device alone.

1. Cheap or once-used maps are inlined.
2. Stages that share the leading axes of a result are computed inside its loops, row by row; neighbours are computed a strip ahead.
3. Each nest is then shaped by what it is: a contraction becomes register tiles over packed panels, everything else vectors
   along the axis that memory is contiguous in.
4. The outermost independent loop of each result is shared among threads when there is enough work.

Each of these decisions has a name and a default (`schedule.decisions`); the space that a tuner searches is their other answers.
Where a search has found better ones for a family of chips, they are the defaults there (`devices.answers`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from tridsl.devices.spec import DeviceKind, DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.op import Compact, Map, Op, Reduce, Scan, Stage
from tridsl.ir.packings import bytes_of, is_packed, unpacked
from tridsl.schedule.analyse import Graph, axes_of, work
from tridsl.schedule.blocked_rows import Blocked, blocked_monoids
from tridsl.schedule.contraction import contraction_steps, worth_packing
from tridsl.schedule.contraction_mapped import mapped_products
from tridsl.schedule.copied import accesses
from tridsl.schedule.decisions import Answer, Choice, Decider
from tridsl.schedule.grouping import Inside, Placed, inlined_stages, packed_together, placements
from tridsl.schedule.launches import in_launches
from tridsl.schedule.lying import in_memory_order
from tridsl.schedule.maps import map_steps
from tridsl.schedule.packed_sums import packed_sum_steps, packed_sums
from tridsl.schedule.reductions import Tile, reduce_steps, register_tile, tile_axis, tile_steps, worth_a_panel
from tridsl.schedule.roles import is_contraction, roles_of
from tridsl.schedule.rows_together import rows_together
from tridsl.schedule.scanning import scan_steps
from tridsl.schedule.steps import At, Inline, Parallel, Schedule, Slide, Split, Step, StoreIn, Vector
from tridsl.schedule.strips import slid
from tridsl.schedule.sweeps import shared_sweeps
from tridsl.schedule.traffic import fetched_ahead, prefetches, streams
from tridsl.schedule.turned_rows import turned_rows
from tridsl.schedule.windows import window_of, window_steps, windowed
from tridsl.structs import replace

PARALLEL_WORK = 100_000
"""Scalar operations below which a second thread costs more than it brings (starting one takes a few microseconds)."""


def _for_gpu(*task: Any) -> Schedule:
    from tridsl.schedule.automatic_gpu import automatic_gpu  # start-up time: who compiles for a CPU needs none of these

    return automatic_gpu(*task)


def _for_npu(*task: Any) -> Schedule:
    from tridsl.schedule.automatic_npu import automatic_npu  # start-up time

    return automatic_npu(*task)


def _together_on_gpu(*task: Any) -> tuple[Blocked, ...]:
    from tridsl.schedule.blocked_gpu import blocked_gpu  # start-up time
    from tridsl.schedule.packed_sums_gpu import packed_sums_gpu  # start-up time

    return (*blocked_gpu(*task), *packed_sums_gpu(*task))


def _together_on_npu(*task: Any) -> tuple[Blocked, ...]:
    from tridsl.schedule.blocked_npu import blocked_npu  # start-up time

    return blocked_npu(*task)


BY_KIND: dict[DeviceKind, Callable[..., Schedule]] = {"gpu": _for_gpu, "npu": _for_npu}
"""Devices whose nests are shaped by other rules than vectors and threads."""
GROUPED: dict[DeviceKind, Callable[[Graph, DeviceSpec, Mapping[str, int], Decider], tuple[Blocked, ...]]] = {
    "cpu": lambda *task: (*blocked_monoids(*task), *mapped_products(*task)), "gpu": _together_on_gpu, "npu": _together_on_npu,
}  # fmt: skip
"""Stages that are shaped together, before the others are looked at one by one."""


def automatic(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], *, shipped: bool = True) -> Schedule:
    """A legal schedule of `op` for a device with vectors; the empty one for a device without (it binds its own loops). `shipped`:
    with the chip's shipped answers as defaults; whether theirs is legal is known when it is applied."""
    return _scheduled(op, spec, sizes, Decider(shipped=_shipped(op, spec, sizes) if shipped else None))


def choose(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], decisions: Mapping[str, Answer]) -> Schedule:
    """The schedule with these answers instead of the defaults. It may be illegal (`apply_schedule` says so).

    E0950: a name that is not asked for here; E0951: an answer that is not possible.
    """
    decide = Decider(decisions, _shipped(op, spec, sizes))
    steps = _scheduled(op, spec, sizes, decide)
    for name in decide.unasked():
        raise error(
            "E0950", f"the automatic schedule of `{op.name}` does not decide `{name}` here",
            help=f"it decides: {', '.join(decide.asked) or 'nothing'}",
        )  # fmt: skip
    return steps


def choices(
    op: Op, spec: DeviceSpec, sizes: Mapping[str, int], decisions: Mapping[str, Answer], *, shipped: bool = True
) -> tuple[Choice, ...]:
    """What is decided, in the order asked, when `decisions` are the answers so far and the rest are defaults."""
    decide = Decider(decisions, _shipped(op, spec, sizes) if shipped else None)
    _scheduled(op, spec, sizes, decide)
    return tuple(decide.asked.values())


def unused_answers(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> tuple[str, ...]:
    """Decisions for which the chip has a shipped answer that does not fit any more, so that the scheduler's own default stands."""
    decide = Decider(shipped=_shipped(op, spec, sizes))
    _scheduled(op, spec, sizes, decide)
    return decide.unused()


def _shipped(op: Op, spec: DeviceSpec, sizes: Mapping[str, int]) -> Mapping[str, Answer]:
    from tridsl.schedule.shipped import shipped_answers  # start-up time: a warm process makes no schedules

    return shipped_answers(op, spec, sizes)


def _scheduled(op: Op, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Schedule:
    own = BY_KIND.get(spec.kind)
    if not spec.vector_bits and own is None:
        return ()
    declared, op = op, in_memory_order(op)
    grouped = GROUPED[spec.kind](Graph(op), spec, sizes, decide) if spec.kind in GROUPED else ()
    steps: list[Step] = [step for group in grouped for step in group.steps]
    members = frozenset[str]().union(*(group.members for group in grouped))
    left = replace(op, stages=tuple(s for s in op.stages if s.name not in members)) if members else op
    elements = own is None or spec.array is not None  # cores decode what comes packed
    graph = Graph(left if elements else _by_bytes(left))
    inlined = inlined_stages(graph, sizes, decide, factors=own is not None)
    if own is not None:

        def as_one(part: Op, hidden: Sequence[str], counts: bool) -> Schedule:
            asked = decide if counts else Decider(decide.given, decide.shipped)
            own_graph = Graph(part)
            where = placements(own_graph, list(hidden), sizes, asked, rows_of=lambda stage: None, alone=lambda stage: False)
            return own(own_graph, hidden, where.steps, where.shared, spec, sizes, asked)

        found = as_one(graph.op, inlined, True)
        if not found and spec.array is not None:
            found = in_launches(graph.op, graph, inlined, as_one)
        return (*steps, *found)
    bytewise = packed_sums(op, spec, sizes)
    tile, large = partial(rows_of, spec=spec, sizes=sizes), partial(packs, spec=spec, sizes=sizes)
    ring = partial(_slid, graph, inlined, spec, sizes, decide)
    where = placements(
        graph, inlined, sizes, decide, rows_of=tile, alone=lambda stage: stage.name in bytewise or large(stage) or windowed(stage), ring=ring,
        tile_of=partial(_tile_of, spec=spec, sizes=sizes, decide=decide),
    )  # fmt: skip
    rows = rows_together(graph, where.shared, where.steps, spec, sizes, decide)
    where = replace(where, steps=rows.steps, strips={**where.strips, **rows.axes})
    swept = shared_sweeps(graph, inlined, decide, eligible=lambda stage: stage.name not in bytewise and _sweeps(stage, spec=spec, sizes=sizes))
    guests = {step.stage for step in swept}
    steps += [*(Inline(stage=name) for name in inlined), *swept, *(step for step in where.steps if step.stage not in guests)]
    moved = {step.stage for step in where.steps if isinstance(step, At | Slide)}
    joined = {step.stage for step in where.steps if isinstance(step, At) and step.consumer in moved}  # their reader's loop is theirs
    together = packed_together(graph, decide)
    steps += together
    joined |= guests | {step.stage for step in together}
    turned = turned_rows(graph, declared, where.shared, {s.stage: s.consumer for s in reversed(where.steps) if isinstance(s, At)}, sizes, decide)
    where = replace(
        where, shared={root: depth for root, depth in where.shared.items() if root not in turned.strips}, strips={**where.strips, **turned.strips}
    )
    steps += turned.steps
    busy = {name: work(graph.stages[name], sizes) for name in graph.stages}
    within = frozenset(inlined) | moved
    within |= {load.tensor for name in inlined for load in accesses(graph.stages[name])}
    for root, depth in where.shared.items():
        steps += prefetches(graph, root, depth, moved, spec, sizes, decide, cut=root in rows.axes)
    for name, stage in graph.stages.items():
        if name in inlined or name in joined:
            continue
        threads = name not in moved and _worth_threads(stage, moved, busy)
        if name not in moved and axes_of(stage) and spec.cores != 1:
            threads = decide(f"{name}.threads", threads, (False, True), "whether the outermost loop is shared among threads")
        if isinstance(stage, Reduce) and name in bytewise:
            steps += packed_sum_steps(stage, bytewise[name], spec, sizes, decide, threads=threads)
        else:
            steps += _shape(stage, spec, sizes, where, decide, threads=threads, moved=name in moved, within=within)
        if streams(stage, graph, spec, sizes, decide):
            steps = steps if name in where.shared else fetched_ahead(steps, stage, graph, decide)
            steps.append(StoreIn(stage=name, space="stream"))
    return tuple(steps)


def _slid(
    graph: Graph, inlined: list[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, root: str, axis: str, near: list[str]
) -> list[Step]:
    return slid(graph, root, axis, near, inlined, spec, sizes, decide)


def _by_bytes(op: Op) -> Op:
    """The op as a device sees it whose lanes read packed parameters byte by byte: there are no elements to share a panel of."""
    packed = {t.name: t for t in op.tensors if is_packed(t)}
    if not packed:
        return op
    return replace(op, params=tuple(bytes_of(packed[p.name]) if p.name in packed else p for p in op.params), stages=unpacked(op.stages, packed))


def _shape(
    stage: Stage, spec: DeviceSpec, sizes: Mapping[str, int], where: Placed, decide: Decider, *, threads: bool, moved: bool,
    within: frozenset[str],
) -> list[Step]:  # fmt: skip
    """Vector, tile and thread the loops of one stage. `within`: stages that are computed in others' loops, and what inlined ones read."""
    name = stage.name
    if isinstance(stage, Map) and where.inside.get(name, Inside()).fixed == len(stage.axes) > 0:
        return []  # a single value where it is used
    if isinstance(stage, Map):
        return map_steps(stage, where.shared.get(name, 0), spec, sizes, decide, threads=threads, strip=where.strips.get(name), moved=moved, tile=where.tiles.get(name), within=within)
    if isinstance(stage, Compact):
        return [Vector(stage=name, axis=stage.along.name)]
    if isinstance(stage, Reduce) and name in where.tiles:
        return tile_steps(stage, where.tiles[name], spec, sizes, decide)
    window = window_of(stage) if isinstance(stage, Reduce) and not moved else None
    if isinstance(stage, Reduce) and window is not None:
        return window_steps(stage, window, spec, sizes, decide, threads=threads)
    if isinstance(stage, Reduce) and _free(stage):
        inside = where.inside.get(name, Inside())
        part = inside.part(stage)
        if is_contraction(stage):
            return contraction_steps(part, spec, sizes, decide, threads=threads, whole=not moved)
        fixed = frozenset(a.name for a in stage.axes[: inside.fixed])
        return reduce_steps(part, spec, sizes, decide, whole=not moved, fixed=fixed, threads=threads)
    axes = axes_of(stage)
    if isinstance(stage, Reduce | Scan):  # states over fewer axes are combined outside the loops of the others
        axes = tuple(a for a in axes if all(a.name in t.axes for t in stage.targets))
    steps: list[Step] = [*scan_steps(stage, spec, sizes, decide)] if isinstance(stage, Scan) else []
    cut = any(isinstance(s, Split) and axes and s.axis == axes[0].name for s in steps)
    return [*steps, Parallel(stage=name, axis=f"{axes[0].name}.o" if cut else axes[0].name)] if threads and axes else steps


def _free(stage: Reduce) -> bool:
    """Whether the points may be combined in any order, all states at once."""
    return not stage.ordered and stage.reducer.commutative and len({t.axes for t in stage.targets}) == 1


def rows_of(stage: Stage, *, spec: DeviceSpec, sizes: Mapping[str, int]) -> str | None:
    """The axis of a reduction whose points a register tile takes together."""
    if not isinstance(stage, Reduce) or not _free(stage):
        return None
    roles = roles_of(stage) if is_contraction(stage) else None
    if roles is not None:
        return None if roles.strided else roles.tile
    return tile_axis(stage, spec, sizes)


def _tile_of(stage: Reduce, *, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> Tile | None:
    """The register tile of a reduction that is no contraction (whose own rules choose what is packed)."""
    return register_tile(stage, spec, sizes, decide) if _free(stage) and not is_contraction(stage) else None


def _sweeps(stage: Stage, *, spec: DeviceSpec, sizes: Mapping[str, int]) -> bool:
    """Whether a reduction reads each of its points once, so that another may read them with it."""
    return isinstance(stage, Reduce) and _free(stage) and not is_contraction(stage) and rows_of(stage, spec=spec, sizes=sizes) is None


def packs(stage: Stage, *, spec: DeviceSpec, sizes: Mapping[str, int]) -> bool:
    """Whether the stage is large enough to copy panels of what it reads."""
    if not isinstance(stage, Reduce) or not _free(stage):
        return False
    return worth_packing(stage, spec, sizes) if is_contraction(stage) else worth_a_panel(stage, spec, sizes)


def _worth_threads(stage: Stage, moved: set[str], busy: Mapping[str, int | None]) -> bool:
    """Enough work in the stage and what is computed inside it; unknown sizes count as enough."""
    total = busy[stage.name]
    inside = [busy[n] for n in moved]
    if total is None or any(n is None for n in inside):
        return True
    return total + sum(n or 0 for n in inside) >= PARALLEL_WORK
