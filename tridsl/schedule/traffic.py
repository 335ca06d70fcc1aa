"""What of an op's tensors should be fetched before it is needed, or stored around the caches."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Load, Var
from tridsl.ir.op import Axis, Compact, Map, Scan, Stage, Tensor
from tridsl.ir.walk import variables, walk
from tridsl.schedule.analyse import Graph, axes_of, extent_of, over_of, points
from tridsl.schedule.decisions import Decider
from tridsl.schedule.maps import crossing_axis, is_flat
from tridsl.schedule.steps import Fuse, Pipeline, Split, Step, Vector

LINE_BYTES, LONG_BYTES = 64, 1024
"""A line of the caches, and a row of which the two lines that it shares with its neighbours are a small part: a line that is stored
around the caches in two pieces costs several whole ones (measured: a stencil of rows of 472 bytes takes four times as long)."""

SOONER = 4
"""A transpose is stored around the caches from this part of `stream_bytes` on: it writes rows side by side, each a line now and then, which
takes the caches the longer to read first (measured, floats with and without: 500 squared 79 and 86 us, 600 squared 138 and 209 us, 1024
squared 0.42 and 0.91 ms)."""

BEYOND = 1.25
"""Of L2, what a map reads and writes of it before its result is stored around the caches (measured, f32 rows scaled and shifted: 2.2 MB
in all take the same either way, 2.8 MB 0.77, 3.4 MB 0.70 of the time)."""

AHEAD_BYTES = 8192
"""How far ahead the inputs of a long map are fetched: two pages. What the hardware fetches ends with a page, and a core that computes
has too few loads in flight to make up for it (measured on an Emerald Rapids, 10^7 f32: exp and tanh 0.67, gelu 0.71, exp 0.80 of the time
without, a copy 0.98; 2 KiB ahead a tenth more, 4 to 8 KiB the same)."""


def prefetches(
    graph: Graph, root: str, depth: int, moved: set[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider, *, cut: bool
) -> list[Step]:
    """Rows that several stages read one after the other come from a far cache or memory while the first of them waits: fetch the
    next row's while the others compute. `cut`: some rows go together."""
    steps: list[Step] = []
    axis = axes_of(graph.stages[root])[depth - 1].name
    for tensor in graph.op.tensors:
        if tensor.role != "input":
            continue
        reads = [r for r in graph.reads if r.load.tensor == tensor.name and (r.reader == root or r.reader in moved)]
        rows = all(len(r.load.index) > depth and r.load.index[depth - 1] == Var(name=axis) for r in reads)
        if len({r.reader for r in reads}) < 2 or not rows:
            continue
        steps += _next_rows(tensor, root, f"{axis}.o" if cut else axis, spec, sizes, decide)
    return steps


def _next_rows(tensor: Tensor, root: str, at: str, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> list[Step]:
    try:
        size = tensor.dtype.storage_bytes * prod(evaluate_index(n, sizes) for n in tensor.shape)
    except KeyError:
        return []
    if not decide(f"{root}.prefetch.{tensor.name}", size > (spec.l1_bytes or size), (False, True), "whether the next row is prefetched"):
        return []
    return [Pipeline(stage=tensor.name, depth=1, at=at, reader=root)]


def sources_ahead(
    graph: Graph, name: str, root: str, at: str, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """What a stage that is made row by row, right before each row of `root` (its loop `at`), reads of inputs that the nearest cache does
    not hold: the next row's is fetched along with this one's (measured on an Emerald Rapids, edges of 1920 x 1080: 0.87 of the time
    without from the last cache, 0.82 from memory; two rows ahead are no better)."""
    steps: list[Step] = []
    axis = axes_of(graph.stages[name])[0].name
    for tensor in graph.op.tensors:
        loads = [r.load for r in graph.reads if r.load.tensor == tensor.name and r.reader == name]
        rows = all(axis in variables(n.index[0]) and not any(isinstance(i, Load) for i in walk(n.index)) for n in loads)
        if tensor.role != "input" or not loads or not rows:
            continue
        steps += _next_rows(tensor, root, at, spec, sizes, decide)
    return steps


def streams(stage: Stage, graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> bool:
    """A result too large for the caches, which nothing in the op reads again: storing it must not read it first."""
    least = spec.stream_bytes or (spec.l3_bytes + 1 if spec.l3_bytes else None)
    if not isinstance(stage, Map | Scan | Compact) or not graph.is_result(stage.name) or graph.readers(stage.name) or least is None:
        return False
    axes = {Map: axes_of(stage), Scan: (*axes_of(stage), *over_of(stage)), Compact: over_of(stage)}[type(stage)]
    count = points(axes, sizes)
    size = max(t.dtype.storage_bytes for t in stage.targets) if isinstance(stage, Scan) else stage.dtype.storage_bytes
    if isinstance(stage, Map) and spec.stream_bytes and crossing_axis(stage) is not None:
        least //= SOONER
    if isinstance(stage, Map) and spec.stream_bytes and spec.l2_bytes and count is not None:
        passed = _points_read(stage, {t.name for t in graph.op.tensors if t.role == "input"})
        if passed is not None and count * (size + passed) >= BEYOND * spec.l2_bytes:
            least = min(least, count * size)
    beyond = count is not None and count * size >= least and _whole_lines(stage, axes, size, sizes)
    return decide(f"{stage.name}.stream", beyond, (False, True), "whether the result is stored around the caches")


def _points_read(stage: Map, inputs: set[str]) -> int | None:
    """Bytes that are read from memory for one point alone; None where its neighbours read some of them, too, or a stage makes them."""
    loads = {n for n in walk(stage.value) if isinstance(n, Load)}
    point = {a.name for a in stage.axes}
    if not all(n.tensor in inputs and all(isinstance(i, Var) for i in n.index) for n in loads):
        return None
    return sum(n.dtype.storage_bytes for n in loads if {i.name for i in n.index if isinstance(i, Var)} == point)


def _whole_lines(stage: Stage, axes: tuple[Axis, ...], size: int, sizes: Mapping[str, int]) -> bool:
    """Whether nearly all lines of the result are stored from their first byte to their last without a break."""
    if isinstance(stage, Compact) or len(axes) == 1 or (isinstance(stage, Map) and is_flat(stage)):
        return True
    inner = stage.targets[0].axes[-1] if isinstance(stage, Scan) else axes[-1].name
    row = size * next(extent_of(axis, sizes) or 0 for axis in axes if axis.name == inner)
    return row % LINE_BYTES == 0 or row >= LONG_BYTES


def fetched_ahead(steps: list[Step], stage: Stage, graph: Graph, decide: Decider) -> list[Step]:
    """The steps of a stage that `streams`; where it is one long loop, in stretches, of which the next one's inputs are fetched."""
    vector = next((n for n, step in enumerate(steps) if isinstance(step, Vector) and step.stage == stage.name), None)
    if vector is None or not isinstance(stage, Map) or not is_flat(stage):
        return steps
    fused = any(isinstance(step, Fuse) and step.stage == stage.name for step in steps)
    loads = [n for n in walk(stage.value) if isinstance(n, Load)]
    inputs = {t.name: t.dtype for t in graph.op.tensors if t.role == "input" and any(n.tensor == t.name for n in loads)}
    if not inputs or (len(stage.axes) > 1 and not fused):
        return steps
    if not decide(f"{stage.name}.prefetch", True, (False,), "whether the inputs of the next stretch are prefetched"):
        return steps
    step = steps[vector]
    assert isinstance(step, Vector)
    stretch = AHEAD_BYTES // max(t.storage_bytes for t in inputs.values())
    cut: list[Step] = [Split(stage=stage.name, axis=step.axis, factor=stretch), Vector(stage=stage.name, axis=f"{step.axis}.i")]
    hints = (Pipeline(stage=tensor, depth=1, at=f"{step.axis}.o", reader=stage.name) for tensor in inputs)
    return [*steps[:vector], *cut, *steps[vector + 1 :], *hints]
