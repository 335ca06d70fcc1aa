"""The greatest elements of a row on an array of cores: a core keeps those of its rows, in order; of long rows each core keeps those of its parts, and
one core those of all in a second launch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.ir.expr import Load
from tridsl.ir.op import TopK
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, extent_of, known_index, targets_of, values_of
from tridsl.schedule.dealing_npu import ROW_BYTES, SLACK_BYTES, columns_of, cores_of_a_column, dealt
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Order, Parts, Split, Step, StoreIn, Vector

PART = 1024
"""Elements at least of which a core keeps the greatest before they are put together: less than two tiles that move at a time hold."""
LONG = 4
"""Parts from which on a second launch costs less than one core that looks at all of a row."""


def ranked_npu(
    graph: Graph, root: str, inlined: Sequence[str], spec: DeviceSpec, array: ArraySpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Steps for a top-k; none for one of nothing."""
    stage = graph.stages[root]
    assert isinstance(stage, TopK)
    tensors = {t.name: t for t in graph.op.tensors}
    read = {n.tensor for name in (root, *inlined) for v in values_of(graph.stages[name]) for n in walk(v) if isinstance(n, Load)}
    inputs = [t.dtype.storage_bytes for n, t in tensors.items() if n in read and t.role != "output"]
    results = [tensors[name].dtype.storage_bytes for name in targets_of(stage) if name in tensors] or [4, 4]
    kept, length = known_index(stage.k, sizes), extent_of(stage.along, sizes)
    counts = {axis.name: extent_of(axis, sizes) or 0 for axis in stage.axes}
    if not kept or not length or not all(counts.values()):
        return []
    room = array.core_memory_bytes - array.core_stack_bytes - SLACK_BYTES
    row = sum(map(_padded, (length * n for n in inputs))) + sum(_padded(kept * n) for n in results)
    cores = cores_of_a_column(array, len(inputs), len(results))
    rows = max(counts.values(), default=1)
    if row > room or length >= LONG * max(PART, kept) and rows < cores:
        return _in_parts(stage, list(counts), length, kept, (sum(inputs), results), room, cores, spec, decide)
    name = stage.name
    if not counts:
        axis = stage.along.name
        return [Split(stage=name, axis=axis, factor=length), StoreIn(stage=name, space="l1", at=f"{axis}.o"), *_slots(name, kept)]
    axis = max(reversed(counts), key=lambda n: counts[n])
    buffers = 2 if 2 * row <= room else 1
    columns = columns_of(root, spec, -(-rows // cores), decide)
    share = -(-rows // (columns * cores))
    most = max(1, min(room // (buffers * row), share))
    tile = decide(f"{root}.rows", most, [n for n in (1, 2, 4, 8) if n < most], "rows of a tile")
    steps: list[Step] = [Split(stage=name, axis=axis, factor=tile), *dealt(name, f"{axis}.o", -(-rows // tile), columns, cores)]
    if others := [n for n in counts if n != axis]:
        steps.append(Order(stage=name, axes=(f"{axis}.o.o", f"{axis}.o.i.o", *others, f"{axis}.o.i.i", f"{axis}.i")))
    return [*steps, StoreIn(stage=name, space="l1", at=f"{axis}.o.i.i", buffers=buffers), *_slots(name, kept)]


def _in_parts(
    stage: TopK, leading: list[str], length: int, kept: int, sizes: tuple[int, list[int]], room: int, cores: int, spec: DeviceSpec, decide: Decider
) -> list[Step]:  # fmt: skip
    """Parts of the row for the cores. What they keep fits in the core that puts it together."""
    bytes_of_one, results = sizes
    name, part, axis = stage.name, f"{stage.name}.part", stage.along.name
    candidate = sum(_padded(kept * n) for n in results)
    most = max(1, (room - candidate) // candidate)  # parts that one core can put together
    unit = ROW_BYTES // 2  # elements of any type
    least = max(kept, -(-length // most))
    sizes_of_parts = [n for n in range(-(-max(PART, least) // unit) * unit, length, unit) if length % n == 0 or length % n >= kept]  # whose last fills its list
    usual = sizes_of_parts[0] if sizes_of_parts else length
    others = [n for n in (256, 512, 2048, 4096) if least <= n < length and (length % n == 0 or length % n >= kept)]
    factor = decide(f"{name}.part", usual, others, "elements of a part")
    parts = -(-length // factor)
    columns = columns_of(part, spec, -(-parts // cores), decide)
    buffers = 2 if 2 * (factor * bytes_of_one + candidate) <= room else 1
    outer = f"{axis}.o"
    steps: list[Step] = [Parts(stage=name, axis=axis, factor=factor), *dealt(part, outer, parts, columns, cores)]
    if leading:
        steps.append(Order(stage=part, axes=(f"{outer}.o", f"{outer}.i.o", *leading, f"{outer}.i.i", f"{axis}.i")))
    steps += [StoreIn(stage=part, space="l1", at=f"{outer}.i.i", buffers=buffers), *_slots(part, kept)]
    if leading:
        return [*steps, StoreIn(stage=name, space="l1", at=leading[-1]), *_slots(name, kept)]
    total = (parts - 1) * kept + min(kept, length - (parts - 1) * factor)
    return [*steps, Split(stage=name, axis=outer, factor=total), StoreIn(stage=name, space="l1", at=f"{outer}.o"), *_slots(name, kept)]


def _slots(stage: str, kept: int) -> list[Step]:
    """Shifts in vectors, where there is something to shift."""
    return [Vector(stage=stage, axis="slot")] if kept > 1 else []


def _padded(size: int) -> int:
    return -(-size // ROW_BYTES) * ROW_BYTES
