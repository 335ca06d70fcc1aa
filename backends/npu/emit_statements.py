"""Statements on vectors of neighbours: stores, reductions along the lanes or across them, compactions."""

from __future__ import annotations

from tridsl.backends.npu.emit_functions import ELEMENTS, REDUCTIONS, element
from tridsl.backends.npu.emit_places import (
    Frame,
    Lanes,
    Place,
    address,
    along,
    cannot,
    index_text,
    is_aligned,
    lane_of,
    pointer,
    whole_of,
)
from tridsl.backends.npu.emit_values import combine, merged, number_text, stored, value
from tridsl.dtypes import INDEX, DType
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, index
from tridsl.ir.loop import Accumulate, Append, Ref, Store
from tridsl.ir.walk import variables


def append(frame: Frame, statement: Append, lanes: Lanes) -> None:
    """Elements one by one, without a branch: each is written behind those that are kept, and counts or is overwritten."""
    if statement.limit is not None or len(statement.tensors) != 1:
        raise cannot("this compaction", statement)
    place, count = frame.places[statement.tensors[0]], frame.places[statement.count.tensor]
    number = len(frame.lines)
    frame.line(f"const auto element_{number} = {stored(frame, value(frame, statement.values[0], lanes), place.dtype)};")
    frame.line(f"const auto kept_{number} = {value(frame, statement.keep, lanes)};")
    frame.line(f"for (int lane = 0; lane < {lanes.active}; ++lane) {{")
    frame.line(f"  {place.name}[{count.name}] = element_{number}.get(lane);")
    frame.line(f"  {count.name} += kept_{number}.test(lane);")
    frame.line("}")


def mask_of(frame: Frame, active: int) -> str:
    return f"aie::mask<{frame.lanes}>::from_uint64({(1 << active) - 1:#x}ull)"


def put(frame: Frame, ref: Ref, text: str, lanes: Lanes) -> None:
    """`text` (of the element type) to the lanes of `ref`; what is not active keeps its value."""
    place = frame.places[ref.tensor]
    if place.kind == "number":
        frame.line(f"{place.name} = {text};")
        return
    step, base = along(address(place, ref.index), lanes)
    partial = lanes.active < frame.lanes
    if step == 0:
        if place.kind == "registers":
            chunk, lane = lane_of(frame, place, base)
            register = f"{place.name}[{chunk}]"
            frame.line(f"{register} = aie::select({register}, {text}, aie::mask<{frame.lanes}>::from_uint64({1 << lane:#x}ull));")
            return
        frame.line(f"{place.name}[{index_text(base)}] = ({text}).get(0);")
        return
    old = value(frame, Load(tensor=ref.tensor, index=ref.index, dtype=place.dtype), lanes)
    if step == 2 and place.kind == "memory":
        _by_turns(frame, place, simplify_index(_plus(base, 2 * lanes.first)), old, text, lanes)
        return
    if partial:
        text = f"aie::select({old}, {text}, {mask_of(frame, lanes.active)})"
    if place.kind == "registers":
        frame.line(f"{old} = {text};")
        return
    first = simplify_index(_plus(base, lanes.first))
    function = "store_v" if is_aligned(frame, place, first) else "store_unaligned_v"
    frame.line(f"aie::{function}({pointer(place, first)}, {text});")


def _by_turns(frame: Frame, place: Place, first: Expr, old: str, text: str, lanes: Lanes) -> None:
    """Every second element of memory, in the vector that has the others too."""
    whole, which = whole_of(place, first, 2)
    if lanes.active < frame.lanes:
        text = f"aie::select({old}, {text}, {mask_of(frame, lanes.active)})"
    aligned = is_aligned(frame, place, whole, 2)
    number = len(frame.lines)
    frame.line(f"const auto pairs_{number} = aie::load_{'' if aligned else 'unaligned_'}v<{2 * frame.lanes}>({pointer(place, whole)});")
    other = f"aie::filter_{'even' if which else 'odd'}(pairs_{number}, 1)"
    frame.used.add("by_turns")
    turns = f"by_turns({other}, {text})" if which else f"by_turns({text}, {other})"
    frame.line(f"aie::store_{'' if aligned else 'unaligned_'}v({pointer(place, whole)}, {turns});")


def _plus(base: Expr, constant: int) -> Expr:
    return Binary(op="add", a=base, b=index(constant), dtype=INDEX)


def store(frame: Frame, statement: Store, lanes: Lanes) -> None:
    if statement.mask is not None:
        raise cannot("a store under a condition", statement)
    place = frame.places[statement.target.tensor]
    if place.kind == "counter":
        frame.line(f"{place.name} = {index_text(statement.value)};")
        return
    dtype = place.dtype
    put(frame, statement.target, stored(frame, value(frame, statement.value, lanes), dtype), lanes)


def accumulate(frame: Frame, statement: Accumulate, lanes: Lanes) -> None:
    op = statement.reducer.op
    named = {name for name, _ in lanes.variables}
    halves = bool(named) and op not in REDUCTIONS and not named & variables(statement.targets[0].index)
    if (op is None or halves) and statement.mask is None and not statement.init:
        _merge(frame, statement, lanes)
        return
    if op is None or statement.mask is not None or statement.init:
        raise cannot(f"the reducer `{statement.reducer.name}`", statement)
    target = statement.targets[0]
    place = frame.places[target.tensor]
    dtype = statement.reducer.dtypes[0]
    text = value(frame, statement.values[0], lanes)
    own = {name for name, _ in lanes.variables}
    old = Load(tensor=target.tensor, index=target.index, dtype=place.dtype)
    before = value(frame, old if place.dtype == dtype else Cast(a=old, dtype=dtype), lanes if own & variables(target.index) else Lanes(active=frame.lanes))
    if own and not own & variables(target.index):
        text = _across(frame, op, text, dtype, statement.reducer.identity[0], lanes)
        lanes = Lanes(active=frame.lanes)
    put(frame, target, stored(frame, combine(frame, op, before, text, dtype), place.dtype), lanes)


def _merge(frame: Frame, statement: Accumulate, lanes: Lanes) -> None:
    """A reducer of several states, or of one that no instruction has: `merge`, lane by lane, then of the lanes' halves until one is left."""
    reducer = statement.reducer
    own = {name for name, _ in lanes.variables}
    across = bool(own) and not any(own & variables(t.index) for t in statement.targets)
    values = tuple(value(frame, v, lanes) for v in statement.values)
    still = Lanes(active=frame.lanes) if across or not own else lanes
    if across:
        if lanes.active < frame.lanes:
            nothing = (value(frame, i, still) for i in reducer.identity)
            values = tuple(f"aie::select({n}, {v}, {mask_of(frame, lanes.active)})" for n, v in zip(nothing, values))
        half = frame.lanes // 2
        while half:
            number = len(frame.lines)
            names = [f"lanes_{number}_{n}" for n in range(len(values))]
            for name, text in zip(names, values):
                frame.line(f"const auto {name} = {text};")
            values = merged(frame, reducer, names, [f"aie::shuffle_down({name}, {half})" for name in names])
            half //= 2
        values = tuple(f"aie::broadcast<{element(d)}, {frame.lanes}>({v}.get(0))" for v, d in zip(values, reducer.dtypes))
    before = []
    for target, dtype in zip(statement.targets, reducer.dtypes):
        held = frame.places[target.tensor].dtype
        old = Load(tensor=target.tensor, index=target.index, dtype=held)
        before.append(value(frame, old if held == dtype else Cast(a=old, dtype=dtype), still))
    found = merged(frame, reducer, before, values)
    for target, text, dtype in zip(statement.targets, found, reducer.dtypes):
        held = frame.places[target.tensor].dtype
        put(frame, target, text if held == dtype else stored(frame, text, held), still)


def _across(frame: Frame, op: str, text: str, dtype: DType, identity: Const, lanes: Lanes) -> str:
    """All active lanes combined, in every lane."""
    if op not in REDUCTIONS or dtype not in ELEMENTS:
        raise cannot(f"reductions by `{op}` of {dtype}")
    kind = ELEMENTS[dtype]
    if lanes.active < frame.lanes:
        text = f"aie::select(aie::broadcast<{kind}, {frame.lanes}>({number_text(identity.value, dtype)}), {text}, {mask_of(frame, lanes.active)})"
    name = f"lanes_{len(frame.lines)}"
    frame.line(f"const auto {name} = {text};")
    found = f"aie::broadcast<{kind}, {frame.lanes}>({REDUCTIONS[op].format(a=name)})"
    if dtype.is_float and op in ("max", "min"):  # a sum of all is NaN where one is; what is not NaN does not change
        total = f"{name}_nan"
        lone = f"aie::select(aie::zeros<{kind}, {frame.lanes}>(), {name}, aie::neq({name}, {name}))"
        frame.line(f"const auto {total} = aie::broadcast<{kind}, {frame.lanes}>(aie::reduce_add({lone}));")
        return f"aie::select({found}, {total}, aie::neq({total}, {total}))"
    return found
