"""Statements that combine: `Accumulate` (in place, or across lanes) and `Append` (compaction)."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext

from tridsl.backends.cpu.emit_cast import emit_cast
from tridsl.backends.cpu.emit_frame import Frame, emit_if
from tridsl.backends.cpu.emit_index import access_of
from tridsl.backends.cpu.emit_llvm import (
    BIT,
    STORED,
    Value,
    any_lane,
    constant,
    intrinsic,
    ir,
    lane,
    lanes_of,
    shuffle,
    splat,
)
from tridsl.backends.cpu.emit_memory import conjunction, emit_load, emit_store
from tridsl.dtypes import BOOL, F32, F64, DType
from tridsl.ir.counts import counted_condition
from tridsl.ir.expr import Load
from tridsl.ir.loop import Accumulate
from tridsl.ir.op import Reducer

States = list[Value]
GREATER = {"max": ">", "min": "<"}
"""Extremes, and how of two elements the one that stays compares with the other."""


def emit_accumulate(frame: Frame, statement: Accumulate) -> None:
    """`targets = merge(targets, values)`; in a vector loop that no target mentions, over the lanes first."""
    mask = None if statement.mask is None else frame.evaluate(statement.mask)
    if frame.lane is None:
        if mask is None:
            _merge_into(frame, statement, _values(frame, statement))
        else:
            with emit_if(frame, mask):
                _merge_into(frame, statement, _values(frame, statement))
        return
    lane_state = frame.lane
    outer = lane_state.condition
    lane_state.condition = conjunction(frame, outer, None if mask is None else splat(frame.builder, mask, lane_state.count))
    accesses = [access_of(frame, frame.places[t.tensor], t.index) for t in statement.targets]
    if all(access.uniform for access in accesses):
        _across_lanes(frame, statement)
    elif any(access.varying is not None or len(set(access.offsets)) < len(access.offsets) for access in accesses):
        _one_after_another(frame, statement)
    else:
        _merge_into(frame, statement, _values(frame, statement))
    lane_state.condition = outer


def _values(frame: Frame, statement: Accumulate) -> States:
    return [
        emit_cast(frame.builder, frame.evaluate(value), value.dtype, dtype)
        for value, dtype in zip(statement.values, statement.reducer.dtypes)
    ]


def _merge_into(frame: Frame, statement: Accumulate, values: States) -> None:
    builder, reducer = frame.builder, statement.reducer
    before = []
    for target, dtype in zip(statement.targets, reducer.dtypes):
        stored = frame.places[target.tensor].dtype
        before.append(emit_cast(builder, emit_load(frame, Load(tensor=target.tensor, index=target.index, dtype=stored)), stored, dtype))
    after = merge_states(frame, reducer, before, values)
    for target, value, dtype in zip(statement.targets, after, reducer.dtypes):
        emit_store(frame, target, emit_cast(builder, value, dtype, frame.places[target.tensor].dtype))


def merge_states(frame: Frame, reducer: Reducer, a: States, b: States) -> States:
    """The reducer's merge of earlier states `a` and later states `b`."""
    for state, earlier, later in zip(reducer.states, a, b):
        frame.values[f"a.{state}"], frame.values[f"b.{state}"] = earlier, later
    merged = [frame.evaluate(expression) for expression in reducer.merge]
    for state in reducer.states:
        del frame.values[f"a.{state}"], frame.values[f"b.{state}"]
    return merged


def _across_lanes(frame: Frame, statement: Accumulate) -> None:
    """Combine the lanes' values, then merge them into the targets once."""
    builder, lane_state, reducer = frame.builder, frame.lane, statement.reducer
    assert lane_state is not None
    counted = counted_condition(statement)
    shown = _values(frame, statement) if counted is None else [frame.evaluate(counted)]
    values = [splat(builder, v, lane_state.count) for v in shown]
    active = conjunction(frame, lane_state.tail, lane_state.condition)
    # From here on plain scalar code: the lanes are accounted for by `active`, and to the targets they are all the same.
    frame.lane = None
    frame.known[lane_state.variable] = 0
    with _some_lane(frame, statement, lane_state.condition):
        if counted is not None:
            _merge_into(frame, statement, [_population(frame, reducer.dtypes[0], values[0], active)])
        elif frame.ordered:
            _lane_by_lane(frame, statement, values, active)
        else:
            if active is not None:
                neutral = [constant(v.type, c.value) for v, c in zip(values, reducer.identity)]
                values = [builder.select(active, v, n) for v, n in zip(values, neutral)]
            _merge_into(frame, statement, _tree(frame, reducer, values))
    del frame.known[lane_state.variable]
    frame.lane = lane_state


def _some_lane(frame: Frame, statement: Accumulate, condition: Value | None) -> AbstractContextManager[None]:
    """Where no lane takes part, what is combined into may lie outside of its tensor; a register does not."""
    if condition is None or all(frame.places[t.tensor].space == "reg" for t in statement.targets):
        return nullcontext()
    return emit_if(frame, any_lane(frame.builder, condition))


def _population(frame: Frame, dtype: DType, condition: Value, active: Value | None) -> Value:
    """The number of lanes in which the condition holds: that of the ones in a mask."""
    builder, count = frame.builder, lanes_of(condition)
    held = condition if active is None else builder.and_(condition, active)
    word = ir.IntType(count)
    ones = intrinsic(builder, "ctpop", word, [builder.bitcast(held, word)])
    wide = STORED[dtype]
    return builder.zext(ones, wide) if count < wide.width else builder.trunc(ones, wide) if count > wide.width else ones


def _one_after_another(frame: Frame, statement: Accumulate) -> None:
    """Lanes that may meet in one target (`y[lane // 4]`) take turns."""
    builder, lane_state = frame.builder, frame.lane
    assert lane_state is not None
    active = conjunction(frame, lane_state.tail, lane_state.condition)
    frame.lane = None
    for number in range(lane_state.count):
        frame.known[lane_state.variable] = frame.lane_number = number
        if active is None:
            _merge_into(frame, statement, _values(frame, statement))
        else:
            with emit_if(frame, lane(builder, active, number)):
                _merge_into(frame, statement, _values(frame, statement))
    del frame.known[lane_state.variable]
    frame.lane = lane_state


def _lane_by_lane(frame: Frame, statement: Accumulate, values: States, active: Value | None) -> None:
    """In lane order, for loops that promise it."""
    for number in range(lanes_of(values[0])):
        one = [lane(frame.builder, v, number) for v in values]
        if active is None:
            _merge_into(frame, statement, one)
        else:
            with emit_if(frame, lane(frame.builder, active, number)):
                _merge_into(frame, statement, one)


def _tree(frame: Frame, reducer: Reducer, values: States) -> States:
    """All lanes in log2(lanes) merges.

    Halves are merged where order does not matter (the cheapest shuffles), neighbours where it does. A number of lanes that
    is no power of two is filled up with the identity. Sums of integers stay as wide as they are: where vectors become shorter, LLVM's X86
    backend (22) takes such a tree of products or absolute differences of bytes for vpdpbusd or psadbw, and leaves out their last additions.
    """
    builder, count = frame.builder, lanes_of(values[0])
    if reducer.dtypes == (BOOL,) and reducer.op in ("and", "or"):
        return [intrinsic(builder, f"vector.reduce.{reducer.op}", BIT, values, [values[0].type])]
    size = 1 << (count - 1).bit_length()
    if size != count:
        fill = [constant(v.type, c.value) for v, c in zip(values, reducer.identity)]
        values = [shuffle(builder, v, [*range(count), *[count] * (size - count)], f) for v, f in zip(values, fill)]
    if reducer.op in GREATER and len(values) == 1 and reducer.dtypes[0] in (F32, F64):
        return [_extreme(builder, GREATER[reducer.op], values[0])]
    whole = size if reducer.op == "add" and reducer.dtypes[0].is_integer else 0
    while size > 1:
        size //= 2
        first = range(size) if reducer.commutative else range(0, 2 * size, 2)
        second = range(size, 2 * size) if reducer.commutative else range(1, 2 * size, 2)
        earlier, later = ([shuffle(builder, v, [*part, *[-1] * (whole - size)]) for v in values] for part in (first, second))
        merged = merge_states(frame, reducer, earlier, later)
        values = [splat(builder, m, max(size, whole)) for m in merged]
    return [lane(builder, v, 0) for v in values]


def _extreme(builder: Value, sign: str, lanes: Value) -> Value:
    """The greatest or least of all lanes, NaN if one is: asked of all at once, beside the halves, whose steps then are one instruction each."""
    unordered = builder.fcmp_unordered("uno", lanes, lanes)
    found, size = lanes, lanes_of(lanes)
    while size > 1:
        size //= 2
        first, second = (shuffle(builder, found, [*part]) for part in (range(size), range(size, 2 * size)))
        found = builder.select(builder.fcmp_ordered(sign, first, second), first, second)
    any_unordered = intrinsic(builder, "vector.reduce.or", BIT, [unordered], [unordered.type]) if lanes_of(lanes) > 1 else lane(builder, unordered, 0)
    return builder.select(any_unordered, constant(found.type.element, math.nan), lane(builder, found, 0))
