"""The schedule of an op that has none, for a GPU: from the op's shape and the facts of the device alone.

1. Results that need whole rows of their inputs (softmax, norms) get a workgroup a row: the row is read once, 16 bytes a lane at a time,
   and stays in the lanes' registers.
2. Independent results get a lane for every 16 bytes.
3. Sums of products get tiles: panels of both factors in shared memory, fetched ahead, and a register tile for each lane, or fragments
   for each subgroup where the device has matrix instructions for the types.
4. Scans, compactions, long reductions and top-k run in parts.
What is left has no steps; the backend binds its loops one by one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Axis, Compact, Map, Reduce, Scan, Stage, TopK
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, over_of, points, values_of
from tridsl.schedule.contraction_gpu import contraction_gpu
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.grouping import packed_together
from tridsl.schedule.lanes import access_width
from tridsl.schedule.parts_gpu import reduced_parts, running_parts
from tridsl.schedule.ranked_gpu import ranked_parts
from tridsl.schedule.steps import At, Bind, Inline, Schedule, Split, Step, StoreIn, Unroll, Vector
from tridsl.structs import dataclass

LANES = 256
"""Lanes of a workgroup that works on independent elements."""
ROW_ACCESSES = 4
"""Accesses that each lane makes to a row: enough bytes in flight, few enough registers."""
ROW_LANES = 256
"""Lanes of a row's workgroup, beyond which too few workgroups fit a processor to hide each other's waits; each lane keeps more."""
ROW_REGISTERS = 64
"""Elements of a row that one lane keeps at most."""
ROW_REGISTERS_BESIDE = 32
"""The same where it reads other rows beside the one it keeps (weights, biases), which need registers, too: with 64, a compiler for 80 registers
puts some of them into shared memory (*measured* on an H200, layernorm of rows of 16384 f32: 141 us, 134 with 32; softmax, which reads nothing
else: 133 us of halves, 141 with 32)."""


def automatic_gpu(
    graph: Graph, inlined: Sequence[str], placed: Sequence[Step], shared: Mapping[str, int], spec: DeviceSpec,
    sizes: Mapping[str, int], decide: Decider,
) -> Schedule:  # fmt: skip
    """A legal schedule. `placed` and `shared` say which stages may be computed inside which result, at how many leading axes."""
    together = packed_together(graph, decide)
    steps: list[Step] = [*(Inline(stage=name) for name in inlined), *together]
    done: set[str] = {*inlined, *(step.stage for step in together)}
    for root, depth in shared.items():
        group = [s.stage for s in placed if isinstance(s, At) and s.consumer == root]
        row = _row(graph, root, group, depth, spec, sizes)
        if row is not None:
            steps += _row_steps(graph, row, spec, decide)
            done |= {root, *group}
    for name, stage in graph.stages.items():
        if name not in done and isinstance(stage, Map) and stage.axes:
            steps += _map_steps(stage, graph, spec, sizes, decide)
        elif name not in done and isinstance(stage, Reduce):
            found = contraction_gpu(graph, stage, spec, sizes, decide)
            steps += found.steps or reduced_parts(stage, spec, sizes, decide)
            done |= {found.reader} if found.reader else set()
        elif name not in done and isinstance(stage, Scan | Compact):
            steps += running_parts(stage, spec, sizes, decide)
        elif name not in done and isinstance(stage, TopK):
            steps += ranked_parts(stage, spec, sizes, decide)
    return tuple(steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """A result and the stages computed with it, row by row. `axes`: the axis of each stage that runs along the row, of `length`
    points; `width` of them are one access; `kept`: parameters that several stages read, of each `registers` elements to a lane at most."""

    root: str
    group: tuple[str, ...]
    leading: tuple[str, ...]
    axes: Mapping[str, str]
    length: int
    width: int
    kept: tuple[str, ...]
    registers: int


def _row(graph: Graph, root: str, group: Sequence[str], depth: int, spec: DeviceSpec, sizes: Mapping[str, int]) -> _Row | None:
    """The row, where every stage has at most one axis besides the shared ones, all of them of one known length."""
    axes: dict[str, str] = {}
    lengths: set[int | None] = set()
    for name in (*group, root):
        stage = graph.stages[name]
        if not isinstance(stage, Map | Reduce) or (isinstance(stage, Reduce) and not _combines(stage)):
            return None
        inner: tuple[Axis, ...] = (*axes_of(stage)[depth:], *over_of(stage))
        if len(inner) > 1:
            return None
        if inner:
            axes[name] = inner[0].name
            lengths.add(extent_of(inner[0], sizes))
    length = next(iter(lengths)) if len(lengths) == 1 else None
    if length is None or not depth or root not in axes or length > ROW_REGISTERS * _most_lanes(spec):
        return None
    leading = tuple(axis.name for axis in axes_of(graph.stages[root])[:depth])
    kept = _kept(graph, axes, group, root)
    return _Row(
        root=root,
        group=tuple(group),
        leading=leading,
        axes=axes,
        length=length,
        width=_width([graph.stages[name] for name in axes], graph, length),
        kept=kept,
        registers=ROW_REGISTERS_BESIDE if _read_beside(graph, axes, kept) else ROW_REGISTERS,
    )


def _combines(stage: Reduce) -> bool:
    """Whether lanes may share the reduction."""
    return not stage.ordered and stage.reducer.commutative and len({t.axes for t in stage.targets}) == 1


def _kept(graph: Graph, axes: Mapping[str, str], group: Sequence[str], root: str) -> tuple[str, ...]:
    """Inputs of which several stages of the row read the same elements: those of the row."""
    reads = [(r.reader, r.load) for r in graph.reads if r.writer is None]
    inputs = {p.name for p in graph.op.tensors if p.role == "input"}
    found = []
    for tensor in dict.fromkeys(load.tensor for _, load in reads):
        readers = [(reader, load) for reader, load in reads if load.tensor == tensor]
        of_row = all(reader in axes and load.boundary is None and load.mask is None for reader, load in readers)
        whole = of_row and all(len(load.index) > 1 and load.index[-1] == Var(name=axes[reader]) for reader, load in readers)
        if tensor in inputs and whole and len({reader for reader, _ in readers}) > 1:
            found.append(tensor)
    return tuple(found)


def _read_beside(graph: Graph, axes: Mapping[str, str], kept: Sequence[str]) -> bool:
    """Whether stages of the row read inputs along it that are not kept."""
    inputs = {p.name for p in graph.op.tensors if p.role == "input"}.difference(kept)
    return any(
        read.load.tensor in inputs and read.reader in axes and any(axes[read.reader] in variables(place) for place in read.load.index) for read in graph.reads
    )


def _width(stages: Sequence[Stage], graph: Graph, length: int) -> int:
    """Elements of one access: 16 bytes of the narrowest tensor in memory, a divisor of the row."""
    results = {p.name: p.dtype for p in graph.op.params if p in graph.op.tensors}
    names = {n.tensor for stage in stages for value in values_of(stage) for n in walk(value) if isinstance(n, Load)}
    names |= {stage.name for stage in stages}
    return access_width((results[name] for name in names if name in results), length, narrowest=True)


def _most_lanes(spec: DeviceSpec) -> int:
    return spec.max_group_lanes or 128


def _subgroup(spec: DeviceSpec) -> int:
    return spec.subgroup_sizes[-1] if spec.subgroup_sizes else 32


def _row_steps(graph: Graph, row: _Row, spec: DeviceSpec, decide: Decider) -> list[Step]:
    at = row.leading[-1]
    steps: list[Step] = [StoreIn(stage=name, space="reg") for name in row.kept]
    steps += [At(stage=name, consumer=row.root, axis=at) for name in reversed(row.group)]
    steps += [At(stage=f"{name}.reg", consumer=row.root, axis=at) for name in row.kept]
    copies = {f"{name}.reg": f"d{len(_tensor_shape(graph, name)) - 1}" for name in row.kept}
    lanes = _row_lanes(row, spec, decide)
    for name, axis in (copies | dict(row.axes)).items():
        steps += _along_row(name, axis, row.width, lanes)
    fused, fusing = all_fused(row.root, row.leading)
    steps += fusing
    return [*steps, Bind(stage=row.root, axes=((fused, "group.x"),))]


def _tensor_shape(graph: Graph, name: str) -> tuple[object, ...]:
    return next(p.shape for p in graph.op.tensors if p.name == name)


def _along_row(stage: str, axis: str, width: int, lanes: int) -> list[Step]:
    """Neighbours to a lane, then lanes, then the accesses of each lane."""
    steps: list[Step] = []
    if width > 1:
        steps.append(Split(stage=stage, axis=axis, factor=width))
        steps.append(Vector(stage=stage, axis=f"{axis}.i"))
        axis = f"{axis}.o"
    return [
        *steps,
        Split(stage=stage, axis=axis, factor=lanes),
        Unroll(stage=stage, axis=f"{axis}.o"),
        Bind(stage=stage, axes=((f"{axis}.i", "lane.x"),)),
    ]


def _row_lanes(row: _Row, spec: DeviceSpec, decide: Decider) -> int:
    """Whole subgroups, with about ROW_ACCESSES for each lane, evenly where possible."""
    accesses = row.length // row.width
    step = _subgroup(spec)
    most = max(step, _most_lanes(spec) // step * step)
    wanted = min(most, ROW_LANES, max(step, -(-accesses // (ROW_ACCESSES * step)) * step))
    wanted = max(wanted, min(most, -(-row.length // (row.registers * step)) * step))
    even = [n for n in range(step, most + 1, step) if accesses % n == 0 and wanted // 2 <= n <= 2 * wanted]
    lanes = min(even, key=lambda n: abs(n - wanted), default=wanted)
    enough = [n for n in (step << bit for bit in range(6)) if n <= most and -(-accesses // n) * row.width <= ROW_REGISTERS]
    return decide(f"{row.root}.lanes", lanes, enough, "lanes that share a row")


def _map_steps(stage: Map, graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """A lane for each access, neighbours to neighbouring lanes."""
    name, axes = stage.name, [axis.name for axis in stage.axes]
    count, last = points(stage.axes, sizes), extent_of(stage.axes[-1], sizes)
    width = _width([stage], graph, 1 << 10)
    flat = _flat(stage)
    if not flat:
        while width > 1 and (last is None or last % width):
            width //= 2
    if count is not None and count < width * _subgroup(spec):
        width = 1
    steps: list[Step] = []
    if width > 1 and not flat:
        steps += [Split(stage=name, axis=axes[-1], factor=width), Vector(stage=name, axis=f"{axes[-1]}.i")]
        axes[-1] = f"{axes[-1]}.o"
    fused, fusing = all_fused(name, axes)
    steps += fusing
    if width > 1 and flat:
        steps += [Split(stage=name, axis=fused, factor=width), Vector(stage=name, axis=f"{fused}.i")]
        fused = f"{fused}.o"
    lanes = decide(f"{name}.lanes", min(LANES, _most_lanes(spec)), (64, 128, 512), "lanes of a workgroup")
    return [*steps, Split(stage=name, axis=fused, factor=lanes), Bind(stage=name, axes=((f"{fused}.o", "group.x"), (f"{fused}.i", "lane.x")))]


def _flat(stage: Map) -> bool:
    """Every access is at the stage's own point, in its own axis order: all axes are one."""
    own = tuple(Var(name=axis.name) for axis in stage.axes)
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    inside = frozenset(v for load in loads for i in load.index for v in variables(i))
    return all(load.index == own and load.boundary is None for load in loads) and inside <= {axis.name for axis in stage.axes}
