"""What of an op's tensors should be fetched before it is needed, or stored around the caches."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from tridsl.devices.spec import DeviceSpec
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Var
from tridsl.ir.op import Axis, Compact, Map, Scan, Stage
from tridsl.schedule.analyse import Graph, axes_of, extent_of, over_of, points
from tridsl.schedule.decisions import Decider
from tridsl.schedule.maps import is_flat
from tridsl.schedule.steps import Pipeline, Step

LINE_BYTES, LONG_BYTES = 64, 1024
"""A line of the caches, and a row of which the two lines that it shares with its neighbours are a small part: a line that is stored
around the caches in two pieces costs several whole ones (measured: a stencil of rows of 472 bytes takes four times as long)."""


def prefetches(
    graph: Graph, root: str, depth: int, moved: set[str], spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider
) -> list[Step]:
    """Rows that several stages read one after the other come from a far cache or memory while the first of them waits: fetch the
    next row's while the others compute."""
    steps: list[Step] = []
    axis = axes_of(graph.stages[root])[depth - 1].name
    for tensor in graph.op.tensors:
        if tensor.role != "input":
            continue
        reads = [r for r in graph.reads if r.load.tensor == tensor.name and (r.reader == root or r.reader in moved)]
        rows = all(len(r.load.index) > depth and r.load.index[depth - 1] == Var(name=axis) for r in reads)
        if len({r.reader for r in reads}) < 2 or not rows:
            continue
        try:
            size = tensor.dtype.storage_bytes * prod(evaluate_index(n, sizes) for n in tensor.shape)
        except KeyError:
            continue
        if decide(f"{root}.prefetch.{tensor.name}", size > (spec.l1_bytes or size), (False, True), "whether the next row is prefetched"):
            steps.append(Pipeline(stage=tensor.name, depth=1, at=axis, reader=root))
    return steps


def streams(stage: Stage, graph: Graph, spec: DeviceSpec, sizes: Mapping[str, int], decide: Decider) -> bool:
    """A result too large for the caches, which nothing in the op reads again: storing it must not read it first."""
    least = spec.stream_bytes or (spec.l3_bytes + 1 if spec.l3_bytes else None)
    if not isinstance(stage, Map | Scan | Compact) or not graph.is_result(stage.name) or graph.readers(stage.name) or least is None:
        return False
    axes = {Map: axes_of(stage), Scan: (*axes_of(stage), *over_of(stage)), Compact: over_of(stage)}[type(stage)]
    count = points(axes, sizes)
    size = max(t.dtype.storage_bytes for t in stage.targets) if isinstance(stage, Scan) else stage.dtype.storage_bytes
    beyond = count is not None and count * size >= least and _whole_lines(stage, axes, size, sizes)
    return decide(f"{stage.name}.stream", beyond, (False, True), "whether the result is stored around the caches")


def _whole_lines(stage: Stage, axes: tuple[Axis, ...], size: int, sizes: Mapping[str, int]) -> bool:
    """Whether nearly all lines of the result are stored from their first byte to their last without a break."""
    if isinstance(stage, Compact) or len(axes) == 1 or (isinstance(stage, Map) and is_flat(stage)):
        return True
    inner = stage.targets[0].axes[-1] if isinstance(stage, Scan) else axes[-1].name
    row = size * next(extent_of(axis, sizes) or 0 for axis in axes if axis.name == inner)
    return row % LINE_BYTES == 0 or row >= LONG_BYTES
