"""How the loops of one map run on a device with vectors: flat, by blocks (transposes), or row by row."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Load, Node, Var
from tridsl.ir.op import Map
from tridsl.ir.walk import children, walk
from tridsl.schedule.analyse import extent_of, unit_stride_axis
from tridsl.schedule.copied import accesses, panels
from tridsl.schedule.decisions import Decider
from tridsl.schedule.fuse import all_fused
from tridsl.schedule.reductions import Tile
from tridsl.schedule.short_rows import short_row_steps, short_rows
from tridsl.schedule.steps import Fuse, Order, Parallel, Split, Step, Unroll, Vector

BLOCK, BLOCKS = 32, (16, 32, 64, 128, 256, 512)
"""Side of a block of a transpose without panels: 32 rows of a 128-byte stretch each, read and written, are 8 KiB of f32."""
LINE_BYTES, LINES, STRETCH = 64, 2, 384
"""With panels, where the result's rows are whole lines: blocks of two lines each way, as lines come to the second cache in pairs (rows of
1024 and 2048 floats take 1.3 and 1.2 times as long with one line of each of 256 rows). Rows that end within a line are made in long
stretches, of one line of each of up to 384 rows: a line that is made in two pieces costs several whole ones (1000 x 1000 floats:
0.44 ms, 2.3 ms with blocks of 32 x 64)."""
SHORTEST = 8
"""Elements of an axis from which blocks of registers save loads and stores."""


def map_steps(
    stage: Map, shared: int, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, threads: bool, strip: str | None, moved: bool,
    tile: Tile | None = None, within: frozenset[str] = frozenset(),
) -> list[Step]:  # fmt: skip
    """Steps for one map. `shared`: leading axes whose loops stages before it share; `strip`: the axis that is cut for them; `moved`: it
    is computed inside another stage's loops; `tile`: that of the sums that it is made of; `within`: tensors of which it can have no
    panel, as they are computed in its loops, or read there by what is computed there too."""
    name, axes = stage.name, [a.name for a in stage.axes]
    if not axes:
        return []
    steps: list[Step] = []
    if tile is not None:
        outer = f"{axes[0]}.o" if axes[0] in (tile.tall, tile.wide) else axes[0]
        steps += [Parallel(stage=name, axis=outer)] if threads else []
        return [*steps, Unroll(stage=name, axis=f"{tile.tall}.i"), Vector(stage=name, axis=f"{tile.wide}.i")]
    if strip is not None:
        if threads:
            steps.append(Parallel(stage=name, axis=f"{strip}.o" if strip == axes[0] else axes[0]))
        return [*steps, Vector(stage=name, axis=axes[-1])]
    if moved:
        return [Vector(stage=name, axis=axes[-1])]
    group = shared > 0
    if not group and len(axes) > 1 and is_flat(stage) and decide(f"{name}.flat", True, (False,), "whether all axes become one"):
        fused, fusing = all_fused(name, axes)
        steps += fusing
        axes = [fused]
    if shared == len(stage.axes):
        shared -= 1  # what the stages before it make are single values: they lie in the lanes with the result
    if len(axes) == 1 and threads and shared == 0:
        block = decide(f"{name}.block", 16384, (1024, 4096, 65536, 262144), "elements that a thread takes at a time")
        steps.append(Split(stage=name, axis=axes[0], factor=block))
        return [*steps, Parallel(stage=name, axis=f"{axes[0]}.o"), Vector(stage=name, axis=f"{axes[0]}.i")]
    period = None if group or len(axes) == 1 else short_rows(stage, extent_of(stage.axes[-1], sizes), spec)
    if period is not None and decide(f"{name}.short_rows", True, (False,), "whether lanes run on over rows shorter than a register"):
        return short_row_steps(stage, period, threads=threads)
    crossing = crossing_axis(stage)
    if crossing is not None and not group and decide(f"{name}.blocks", True, (False,), "whether a transpose goes by blocks"):
        return _blocks(stage, axes, crossing, sizes, decide, threads=threads, within=within)
    if threads and len(axes) > 1:
        outer = axes[0]
        for axis in axes[1 : max(shared, 1)]:
            steps.append(Fuse(stage=name, outer=outer, inner=axis))
            outer = f"{outer}.{axis}"
        steps.append(Parallel(stage=name, axis=outer))
    if shared < len(axes):
        free = axes[max(shared, 1) if threads else shared :] or axes[-1:]
        lanes = decide(f"{name}.vector", axes[-1], free if _strided(stage) else (), "the axis along which vectors lie")
        steps.append(Vector(stage=name, axis=lanes))
    return steps


def crossing_axis(stage: Map) -> str | None:
    """The axis along which an input is contiguous while the result is contiguous along another: a transpose."""
    names = [a.name for a in stage.axes]
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    found = [axis for n in loads if (axis := unit_stride_axis(n)) in names[:-1] and Var(name=names[-1]) in n.index]
    return found[0] if found else None


def _blocks(
    stage: Map, axes: list[str], crossing: str, sizes: Mapping[str, int], decide: Decider, *, threads: bool, within: frozenset[str]
) -> list[Step]:
    """Blocks of a transpose, so that every line read or written is used whole. Where both sides are long enough, what lies across the
    result is copied into a panel that lies along it: registers transpose it on the way (`passes.transpose_blocks`)."""
    name, last = stage.name, axes[-1]
    extents = {a.name: extent_of(a, sizes) for a in stage.axes}
    plain = [n for n in accesses(stage) if n.boundary is None and n.tensor not in within]
    across = [n for n in plain if unit_stride_axis(n) == crossing and Var(name=last) in n.index]
    long = all(extents[a] is None or (extents[a] or 0) >= SHORTEST for a in (crossing, last))
    turned = decide(f"{name}.transposed", long, (True, False), "whether registers transpose the blocks")
    height, width = BLOCK, BLOCK
    if turned and across:
        line = max(1, LINE_BYTES // max(n.dtype.storage_bytes for n in across))
        whole = (extents[last] or 1) * stage.dtype.storage_bytes % LINE_BYTES == 0
        height, width = (LINES * line, LINES * line) if whole else (line, _even(extents[last], line))
    height = decide(f"{name}.block_rows", height, BLOCKS, "rows of a block of a transpose")
    width = decide(f"{name}.block_columns", width, BLOCKS, "columns of a block of a transpose")
    steps: list[Step] = [Split(stage=name, axis=a, factor=n) for a, n in ((crossing, height), (last, width))]
    outer = [f"{a}.o" if a in (crossing, last) else a for a in axes]
    steps.append(Order(stage=name, axes=(*outer, f"{crossing}.i", f"{last}.i")))
    if threads:
        steps.append(Parallel(stage=name, axis=outer[0]))
    steps.append(Vector(stage=name, axis=f"{last}.i"))
    return [*steps, *(panels(stage, across, outer[-1]) if turned else ())]


def _even(extent: int | None, step: int) -> int:
    """A multiple of `step` up to `STRETCH` that cuts the extent into even parts: of 600 elements 304, not 384 and 216."""
    if not extent:
        return STRETCH
    parts = -(-extent // STRETCH)
    return -(-extent // (parts * step)) * step


def _strided(stage: Map) -> bool:
    """Whether some access is contiguous along another axis than the result is (a transposition, say)."""
    votes = {unit_stride_axis(n) for n in walk(stage.value) if isinstance(n, Load)}
    return bool(votes - {None, stage.axes[-1].name})


def is_flat(stage: Map) -> bool:
    """Every access is at the stage's own point, in its own axis order, so all axes are one contiguous axis."""
    axes = tuple(Var(name=a.name) for a in stage.axes)
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    return all(n.index == axes and n.boundary is None for n in loads) and not _uses_axes(stage)


def _uses_axes(stage: Map) -> bool:
    """Whether the value uses an index as a number."""
    names = {a.name for a in stage.axes}

    def uses(node: Node) -> bool:
        if isinstance(node, Load):
            return False
        return (isinstance(node, Var) and node.name in names) or any(uses(child) for child in children(node))

    return uses(stage.value)
