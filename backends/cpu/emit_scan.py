"""Running combinations over the lanes of a vector: log2(lanes) merges with the vector shifted by 1, 2, 4, … lanes.

What was combined before the vector meets it in one merge at the end, so from vector to vector only one merge waits for another:
with vectors of 16 lanes a 16th of the chain of a scalar loop. The running value is kept in all lanes of a register, as that merge
needs it; taking it out and spreading it again would cost three shuffles a vector, of eight.
"""

from __future__ import annotations

from tridsl.backends.cpu.emit_cast import emit_cast, from_stored, to_stored
from tridsl.backends.cpu.emit_frame import Frame
from tridsl.backends.cpu.emit_index import STORED_BYTES
from tridsl.backends.cpu.emit_llvm import STORED, Value, constant, ir, lane, lanes_of, shuffle, splat
from tridsl.backends.cpu.emit_memory import conjunction, emit_load, emit_store
from tridsl.backends.cpu.emit_reduce import merge_states
from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate, Block, For, Kernel, Ref
from tridsl.ir.op import Reducer
from tridsl.ir.scans import scan_of
from tridsl.ir.walk import walk

States = list[Value]


def emit_scan(frame: Frame, body: Block, step: Accumulate) -> None:
    """The body of a vector loop that scans (`ir.scans`): the stores see the running values of their own lane."""
    builder, lane_state, reducer = frame.builder, frame.lane, step.reducer
    assert lane_state is not None
    values = [
        splat(builder, emit_cast(builder, frame.evaluate(v), v.dtype, dtype), lane_state.count) for v, dtype in zip(step.values, reducer.dtypes)
    ]
    active = conjunction(frame, lane_state.tail, lane_state.condition)
    neutral = [constant(v.type, c.value) for v, c in zip(values, reducer.identity)]
    if active is not None:
        values = [builder.select(active, v, n) for v, n in zip(values, neutral)]
    frame.lane = None  # the running values are one for all lanes
    lanes = lane_state.count
    earlier = [splat(builder, _running(frame, step, n, lanes), lanes) for n in range(len(values))]
    own = _prefixes(frame, reducer, values, [_unknown(frame, n) for n in neutral])
    totals = [shuffle(builder, v, [lanes - 1] * lanes) for v in own]
    inclusive, after = ([splat(builder, v, lanes) for v in merge_states(frame, reducer, earlier, part)] for part in (own, totals))
    exclusive = [_shifted(frame, v, e, 1) for v, e in zip(inclusive, earlier)]
    for target, value, dtype in zip(step.targets, after, reducer.dtypes):
        _keep(frame, target, emit_cast(builder, value, dtype, frame.places[target.tensor].dtype))
    frame.lane = lane_state
    for part, seen in ((body[: body.index(step)], exclusive), (body[body.index(step) + 1 :], inclusive)):
        for target, value, dtype in zip(step.targets, seen, reducer.dtypes):
            frame.scanned[target.tensor] = emit_cast(builder, value, dtype, frame.places[target.tensor].dtype)
        frame.run(part)
    frame.scanned.clear()


def spread_of(kernel: Kernel) -> dict[str, int]:
    """Registers that only scans of one number of lanes run in, and that number."""
    lanes: dict[str, set[int]] = {}
    for phase in kernel.phases:
        for loop in (n for n in walk(phase) if isinstance(n, For) and n.kind == "vector"):
            step = scan_of(loop)
            for target in step.targets if step else ():
                lanes.setdefault(target.tensor, set()).add(loop.bound or 0)
    return {name: min(counts) for name, counts in lanes.items() if len(counts) == 1 and min(counts) & (min(counts) - 1) == 0}


def _running(frame: Frame, step: Accumulate, state: int, lanes: int) -> Value:
    """The running value, in all lanes where it is kept so."""
    target, dtype = step.targets[state], step.reducer.dtypes[state]
    place = frame.places[target.tensor]
    if place.spread == lanes:
        stored = frame.builder.load(place.pointer, align=64, typ=ir.VectorType(STORED[place.dtype], lanes))
        return emit_cast(frame.builder, from_stored(frame.builder, stored, place.dtype), place.dtype, dtype)
    return emit_cast(frame.builder, emit_load(frame, Load(tensor=target.tensor, index=target.index, dtype=place.dtype)), place.dtype, dtype)


def _keep(frame: Frame, target: Ref, value: Value) -> None:
    place = frame.places[target.tensor]
    if place.spread == lanes_of(value):
        frame.builder.store(to_stored(frame.builder, value, place.dtype), place.pointer, align=64)
    else:
        emit_store(frame, target, lane(frame.builder, value, 0))


def _prefixes(frame: Frame, reducer: Reducer, values: States, neutral: States) -> States:
    """Lane n: the combination of lanes 0..n."""
    lanes, step = lanes_of(values[0]), 1
    while step < lanes:
        earlier = [_shifted(frame, v, n, step) for v, n in zip(values, neutral)]
        values = [splat(frame.builder, v, lanes) for v in merge_states(frame, reducer, earlier, values)]
        step *= 2
    return values


def _unknown(frame: Frame, value: Value) -> Value:
    """A constant of one register, hidden from LLVM: shifting zeros in it makes a `vexpand` of it (two instructions of the shuffle
    port), shifting an unknown in a `valign` (one)."""
    width = lanes_of(value) * STORED_BYTES[value.type.element] * 8 if value.type.element in STORED_BYTES else 0
    if not frame.chip.x86 or "avx512f" not in frame.chip.features or width != frame.chip.vector_bits:
        return value
    return frame.entry.asm(ir.FunctionType(value.type, [value.type]), "", "=v,0", [value], False)


def _shifted(frame: Frame, value: Value, fill: Value, by: int) -> Value:
    """Lane n takes lane n - `by`; the first lanes those of `fill`, the same in all lanes (its last ones: one instruction)."""
    lanes = lanes_of(value)
    return shuffle(frame.builder, fill, list(range(lanes - by, 2 * lanes - by)), value)
