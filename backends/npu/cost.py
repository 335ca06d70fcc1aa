"""What a laid out kernel would take on the array: *predicted* from published rates, never measured.

Three flows overlap: the host's memory, the streams (one DMA channel moves 4 bytes a cycle), and the cores. The slowest decides. The cores' part counts
vector operations of the kernel text's loops and assumes one a cycle, more for what the hardware emulates; what Peano would make of them is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from math import prod

from tridsl.backends.npu.design import Acquire, ArrayDesign, Dimension, Invoke, Repeat, Step, Task
from tridsl.backends.npu.interleave import PAIR, interleaved_in
from tridsl.backends.npu.lanes import lanes_of
from tridsl.backends.npu.lower_program import Program, is_accumulator
from tridsl.devices.array_model import PASS_CYCLES, peak_macs, slowness
from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import ArraySpec
from tridsl.dtypes import BF16, F32, INDEX
from tridsl.ir.affine import evaluate_index
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Load, Select, Unary
from tridsl.ir.loop import Accumulate, Append, Block, For, If, Mma, Store
from tridsl.ir.walk import variables, walk

VECTOR_LANES = 16
"""Lanes of an f32 vector, which floats are computed in."""
CALL_OPERATIONS = 60
"""Vector operations of a function: an exponential is about twenty products and sums, of which the products are emulated."""
PACKED_ELEMENT = 6
"""Of a compaction, whose elements go through the scalar unit: a load takes 6 or 7, a store 2, and some overlap (4 to 8 together)."""
EMULATED_PRODUCT = 6
"""Products of bf16 that one of f32 is made of (3 to 9; aie_api)."""


COUNTED = 10000
"""Iterations up to which a condition of their places is asked in each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """Seconds, each if it were alone, and what every dispatch costs besides."""

    memory: float
    streams: float
    cores: float
    dispatch: float

    @property
    def seconds(self) -> float:
        return max(self.memory, self.streams, self.cores) + self.dispatch

    @property
    def bottleneck(self) -> str:
        return max(("memory", self.memory), ("streams", self.streams), ("cores", self.cores), key=lambda part: part[1])[0]

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {getattr(self, name) * 1e6:.1f}" for name in ("memory", "streams", "cores"))
        return f"predicted {self.seconds * 1e6:.1f} us with {self.dispatch * 1e6:.0f} us of dispatch; bound by {self.bottleneck} ({parts} us)"


def predict(design: ArrayDesign, program: Program, array: ArraySpec) -> Prediction:
    """From the design's transfers and the loops of its functions."""
    sizes = {t.name: t.element_bytes for t in design.tensors}
    total = 0.0
    channels: dict[object, int] = {}
    for task in design.sequence:
        if isinstance(task, Task):
            moved = prod(d.size for d in task.dimensions) * task.repeats * sizes[task.tensor]
            total += moved * slowness(run_bytes(task.dimensions) * sizes[task.tensor])
            key = (task.tile, task.direction, task.channel)
            channels[key] = channels.get(key, 0) + moved
    buffers = {b.name: b for b in design.buffers}
    carried = {d.buffer: d.length * buffers[d.buffer].element_bytes for chain in design.chains for d in chain.descriptors}
    places = _ranges(program)
    costs = {body.name: _cycles(body.block, array, places) for body in program.bodies}
    busiest = 0.0
    for core in design.cores:
        counts = _counts(core.program)
        busiest = max(busiest, sum(n * costs[name] for name, n in counts.items() if name in costs))
        for port in core.ports:
            channels[core.tile, port.name] = _uses(core.program, port.name) * carried[port.buffers[0]]
    cycle = 1 / array.clock_hz
    return Prediction(
        memory=total / array.memory_bytes_per_second, streams=max(channels.values(), default=0) / array.stream_bytes_per_cycle * cycle,
        cores=busiest * cycle, dispatch=array.dispatch_seconds,
    )  # fmt: skip


def run_bytes(dimensions: tuple[Dimension, ...]) -> int:
    """Elements one behind another that a transfer moves at a time."""
    run = 1
    for d in reversed(dimensions):
        if d.size == 1:
            continue
        if d.stride != run:
            break
        run *= d.size
    return run


def _counts(steps: tuple[Step, ...], times: int = 1) -> dict[str, int]:
    """How often each function runs."""
    found: dict[str, int] = {}
    for step in steps:
        inner: Mapping[str, int] = {}
        if isinstance(step, Invoke):
            inner = {step.function: times}
        elif isinstance(step, Repeat):
            inner = _counts(step.body, times * step.count)
        for name, n in inner.items():
            found[name] = found.get(name, 0) + n
    return found


def _uses(steps: tuple[Step, ...], port: str) -> int:
    return sum(
        step.count * _uses(step.body, port) if isinstance(step, Repeat) else int(isinstance(step, Acquire) and step.port == port) for step in steps
    )


def _cycles(block: Block, array: ArraySpec, places: Mapping[str, int]) -> float:
    total = 0.0
    for statement in block:
        match statement:
            case For() if (found := interleaved_in(statement)) is not None and found.lanes == lanes_of((statement,)):
                total += PAIR * (2 + _operations(found.store.value))  # each exchanged and written
            case For(extent=Const(value=count), kind="vector"):
                total += -(-int(count) // VECTOR_LANES) * _cycles(statement.body, array, places)
            case For(extent=Const(value=count)) | For(bound=int() as count):
                total += int(count) * _cycles(statement.body, array, places)
            case If(condition=condition):
                then, otherwise = (_cycles(part, array, places) for part in (statement.then, statement.otherwise))
                share = _share(condition, places)
                total += max(then, otherwise) if share is None else share * then + (1 - share) * otherwise
            case Mma(intrinsic=name):
                row = INTRINSICS[name]
                total += row.m * row.n * row.k / (peak_macs(array, row.arithmetic) or 1)
            case Store() if is_accumulator(statement.target.tensor) or any(isinstance(n, Load) and is_accumulator(n.tensor) for n in walk(statement.value)):
                total += _passed(statement, array)
            case Store(value=value):
                total += 1 + _operations(value)
            case Accumulate(values=values):
                total += 1 + sum(map(_operations, values))
            case Append(values=values, keep=keep):
                total += VECTOR_LANES * PACKED_ELEMENT + _operations(keep) + sum(map(_operations, values))
    return total


def _ranges(program: Program) -> dict[str, int]:
    """How often the loops over the array and those that move tiles run."""
    found = dict([program.column, program.row])
    waiting = list(program.steps)
    while waiting:
        step = waiting.pop()
        if isinstance(step, Repeat):
            found[step.variable] = step.count
            waiting += step.body
    return found


def _share(condition: Expr, places: Mapping[str, int]) -> float | None:
    """In how many of the iterations of those loops it is true; None where it is decided otherwise, or in too many to count."""
    names = sorted(variables(condition))
    if not isinstance(condition, Binary) or condition.op != "lt" or not set(names) <= set(places) or prod(places[n] for n in names) > COUNTED:
        return None
    points = [dict(zip(names, point)) for point in product(*(range(places[n]) for n in names))]
    return sum(evaluate_index(condition.a, point) < evaluate_index(condition.b, point) for point in points) / len(points)


def _passed(statement: Store, array: ArraySpec) -> float:
    """One element of an accumulator from or to memory (`array_model.pass_cycles` in two halves); nothing for a start from 0."""
    if not is_accumulator(statement.target.tensor):
        return PASS_CYCLES / 2 + 4 / array.load_bytes
    return 0.0 if isinstance(statement.value, Const) else PASS_CYCLES / 2 + 4 / (2 * array.load_bytes)


def _operations(node: object) -> float:
    match node:
        case Load() | Const():
            return 0
        case Cast(a=place) if place.dtype == INDEX and not any(isinstance(n, Load) for n in walk(place)):
            return 0  # known when the code is written
        case Binary(op="mul", a=Cast(a=Load(dtype=x)), b=Cast(a=Load(dtype=y))) if x == y == BF16:
            return 1
        case Binary(op="mul" | "div" as op, a=a, b=b, dtype=dtype):
            own = (EMULATED_PRODUCT if dtype == F32 else 1) * (1 if op == "mul" else 5)
            return own + _operations(a) + _operations(b)
        case Binary(a=a, b=b):
            return 1 + _operations(a) + _operations(b)
        case Select(condition=c, a=a, b=b):
            return 1 + _operations(c) + _operations(a) + _operations(b)
        case Unary(a=a) | Cast(a=a):
            return 1 + _operations(a)
        case Call(args=args):
            return CALL_OPERATIONS + sum(map(_operations, args))
    return 0
