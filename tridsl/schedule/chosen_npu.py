"""Elements and rows that other elements choose (`x[order[j], d]`), on an array of cores: each core holds all that may be chosen of its part of the
other axes, and takes what it is told to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Map, Stage
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, values_of
from tridsl.schedule.dealing_npu import ROW_BYTES, SLACK_BYTES, columns_of, cores_of_a_column, dealt, types_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Order, Split, Step, StoreIn, Vector

WORD_BYTES = 4


def chooses(stage: Stage) -> bool:
    """Whether an element of a tensor says which element is read."""
    return any(_inner(n) for v in values_of(stage) for n in walk(v) if isinstance(n, Load))


def chosen_npu(graph: Graph, root: str, live: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    """Steps for a map that reads what is chosen; none for anything else."""
    stage = graph.stages[root]
    if len(live) != 1 or not isinstance(stage, Map) or not stage.axes:
        return []
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    chosen = [n for n in loads if _inner(n)]
    extents = {axis.name: extent_of(axis, sizes) or 0 for axis in axes_of(stage)}
    if not all(extents.values()):
        return []
    steers = {name for n in chosen for inner in _inner(n) for name in variables(inner)}
    free = [name for name in extents if name not in steers and all(Var(name=name) in n.index for n in chosen)]
    last = axes_of(stage)[-1].name
    if not free:  # one core has all of it
        return [Split(stage=root, axis=last, factor=extents[last]), *_ordered(root, list(extents), last, [f"{last}.o"]), StoreIn(stage=root, space="l1", at=f"{last}.o")]
    axis = max(free, key=lambda name: (name != last, extents[name]))
    inputs, outputs = types_of(graph, [root])
    moving, fixed = _bytes(graph, root, loads, axis, extents, sizes)
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES - fixed
    size = min(t.storage_bytes for t in (*inputs, *outputs))
    unit = max(1, WORD_BYTES // size) if axis == last else 1
    cores = cores_of_a_column(array, len(inputs), len(outputs))
    columns = columns_of(root, spec, -(-extents[axis] // (unit * cores)), decide)
    share = -(-extents[axis] // (columns * cores))
    buffers = 2 if 2 * unit * moving <= room else 1
    most = max(unit, min(room // (buffers * moving), -(-share // unit) * unit) // unit * unit)
    whole = ROW_BYTES // size
    if axis == last and most >= whole:
        most = most // whole * whole
    tile = decide(f"{root}.tile", most, [n for n in (unit, 4 * unit, whole) if n < most], f"points of `{axis}` of a tile")
    steps: list[Step] = [Split(stage=root, axis=axis, factor=tile), *dealt(root, f"{axis}.o", -(-extents[axis] // tile), columns, cores)]
    steps += _ordered(root, list(extents), axis, [f"{axis}.o.o", f"{axis}.o.i.o", f"{axis}.o.i.i"])
    if axis == last and tile % whole == 0:
        steps.append(Vector(stage=root, axis=f"{axis}.i"))
    return [*steps, StoreIn(stage=root, space="l1", at=f"{axis}.o.i.i", buffers=buffers)]


def _inner(load: Load) -> list[Load]:
    return [n for i in load.index for n in walk(i) if isinstance(n, Load) and n.index]


def _ordered(root: str, axes: list[str], cut: str, outer: list[str]) -> list[Step]:
    """The loops over tiles around all others."""
    inside = [f"{name}.i" if name == cut else name for name in axes]
    return [Order(stage=root, axes=(*outer, *inside))] if len(axes) > 1 else []


def _bytes(graph: Graph, root: str, loads: Sequence[Load], axis: str, extents: Mapping[str, int], sizes: Mapping[str, int]) -> tuple[int, int]:
    """Bytes in a core of one point of `axis`, and of what does not move with it."""
    tensors = {t.name: t for t in graph.op.tensors}
    moving, fixed = 0, 0
    for load in dict.fromkeys(loads):
        tensor = tensors[load.tensor]
        total = tensor.dtype.storage_bytes
        for place, length in zip(load.index, tensor.shape):
            total *= 1 if place == Var(name=axis) else evaluate_index(length, sizes)
        if Var(name=axis) in load.index:
            moving += total if load.index[-1] == Var(name=axis) else -(-total // ROW_BYTES) * ROW_BYTES
        else:
            fixed += -(-total // ROW_BYTES) * ROW_BYTES
    result = tensors[root].dtype.storage_bytes
    for name, extent in extents.items():
        result *= 1 if name == axis else extent
    return moving + (result if axis == list(extents)[-1] else -(-result // ROW_BYTES) * ROW_BYTES), fixed
