"""What an array of cores is dealt: how many columns and cores share a stage's work, and in which parts."""

from __future__ import annotations

from collections.abc import Sequence

from tridsl.devices.spec import ArraySpec, DeviceSpec
from tridsl.dtypes import DType
from tridsl.ir.expr import Load
from tridsl.ir.walk import walk
from tridsl.schedule.analyse import Graph, values_of
from tridsl.schedule.decisions import Decider
from tridsl.schedule.steps import Bind, Split, Step

TILE_BYTES = 4096
"""Of one tensor in a tile: long enough for the host's memory (runs of 128 bytes reach a fifth of its rate), short enough for two of each."""
ROW_BYTES = 64
"""Rows and tiles are multiples of the widest access of any core."""
SLACK_BYTES = 1024
"""Of a core's memory, left for what alignment costs."""


def types_of(graph: Graph, names: Sequence[str]) -> tuple[list[DType], list[DType]]:
    """Element types of the parameters that the stages read, and of the results that they make."""
    tensors = {t.name: t for t in graph.op.tensors}
    read = {n.tensor for name in names for v in values_of(graph.stages[name]) for n in walk(v) if isinstance(n, Load)}
    inputs = [t.dtype for n, t in tensors.items() if n in read and t.role != "output"]
    return inputs, [t.dtype for n, t in tensors.items() if n in names and t.role != "input"]


def cores_of_a_column(array: ArraySpec, inputs: int, outputs: int) -> int:
    """Cores of one column that can have tiles of their own of so many tensors: inputs take turns in one channel to each core, results have a channel
    each. Many inputs make long chains of descriptors, of which the memory tile's channels have half each."""
    for rows in range(array.rows, 1, -1):
        channels = min(inputs, array.shim_out_channels) + rows * outputs <= array.memtile_in_channels and rows + outputs <= array.memtile_out_channels
        chains = inputs <= array.shim_out_channels or 2 * (inputs * (rows + 2) + outputs) <= array.memtile_descriptors
        if channels and chains:
            return rows
    return 1


def columns_of(name: str, spec: DeviceSpec, parts: int, decide: Decider) -> int:
    most = spec.columns or 1
    powers = [n for n in (1, 2, 4, 8) if n <= most]
    return decide(f"{name}.columns", next((n for n in powers if n >= parts), powers[-1]), powers, "columns of the array")


def dealt(name: str, axis: str, tiles: int, columns: int, rows: int) -> list[Step]:
    """Loop `axis` of `tiles` iterations in contiguous parts: `.o` to columns, `.i.o` to rows, `.i.i` one after the other."""
    core = -(-tiles // (columns * rows))
    return [
        Split(stage=name, axis=axis, factor=core * rows),
        Split(stage=name, axis=f"{axis}.i", factor=core),
        Bind(stage=name, axes=((f"{axis}.o", "column"), (f"{axis}.i.o", "row"))),
    ]
