"""What a lane keeps of a reduction until the lanes are combined: the reducer's own states, or others that cost less to update.

    m max= x[n]        ->   lanes:  largest = x > largest ? x : largest;  ordered = ordered and x == x       (two instructions and a half)
                            at the end:  m max= ordered ? largest : nan                                      (instead of three)
    i argmax= x[n], n  ->   lanes:  if not (x <= best) and best == best:  best, at = x, i32(n)               (n of a lane only grows)
                            at the end:  i argmax= best, at
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tridsl.check.reducers import BUILTINS
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import BOOL, I32, INDEX
from tridsl.ir.affine import interval, normal_form
from tridsl.ir.expr import Binary, Call, Cast, CompareOp, Const, Expr, Select, Unary, Var
from tridsl.ir.loop import Accumulate, For
from tridsl.ir.op import Reducer
from tridsl.ir.walk import substitute
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Partial:
    """`reducer` updates a lane's states with `values`. `start` gives the states of a lane that begins at an iteration of the loop,
    `finish` the values of the statement's own reducer from a lane's states. `shared`: states of which copies of the unrolled loop, half as
    many, do for all. `mergeable`: `reducer` also combines the states of two copies; if not, only what `finish` gives can be."""

    reducer: Reducer
    values: tuple[Expr, ...]
    start: Callable[[Expr], tuple[Expr, ...]]
    finish: Callable[[tuple[Expr, ...]], tuple[Expr, ...]]
    shared: tuple[bool, ...]
    mergeable: bool = True


def partial_of(statement: Accumulate, loop: For, spec: DeviceSpec) -> Partial:
    """The cheapest form known for what `statement` does in `loop`."""
    for recognise in FORMS:
        found = recognise(statement, loop, spec)
        if found is not None:
            return found
    reducer = statement.reducer
    return Partial(
        reducer=reducer, values=statement.values, start=lambda first: reducer.identity, finish=lambda states: states,
        shared=(False,) * len(reducer.states),
    )  # fmt: skip


def _extreme(statement: Accumulate, loop: For, spec: DeviceSpec) -> Partial | None:
    """The largest or smallest float: whether a NaN was seen is kept apart, because hardware that compares into masks does that for two
    registers at once. Copies share that answer."""
    reducer = statement.reducer
    if reducer.op not in ("max", "min") or not reducer.dtypes[0].is_float or not spec.has_masks:
        return None
    (dtype,), (value,) = reducer.dtypes, statement.values
    a, b = Var(name="a.extreme", dtype=dtype), Var(name="b.extreme", dtype=dtype)
    before, after = Var(name="a.ordered", dtype=BOOL), Var(name="b.ordered", dtype=BOOL)
    further = Binary(op="gt" if reducer.op == "max" else "lt", a=a, b=b, dtype=BOOL)
    return Partial(
        reducer=Reducer(
            name=f"lane_{reducer.name}", states=("extreme", "ordered"), dtypes=(dtype, BOOL),
            identity=(reducer.identity[0], Const(value=True, dtype=BOOL)),
            merge=(Select(condition=further, a=a, b=b, dtype=dtype), Binary(op="and", a=before, b=after, dtype=BOOL)),
        ),
        values=(value, ordered(value)),
        start=lambda first: (reducer.identity[0], Const(value=True, dtype=BOOL)),
        finish=lambda states: (Select(condition=states[1], a=states[0], b=Const(value=float("nan"), dtype=dtype), dtype=dtype),),
        shared=(False, True),
    )  # fmt: skip


def _position(statement: Accumulate, loop: For, spec: DeviceSpec) -> Partial | None:
    """The first place of the largest or smallest number, where places grow as the loop runs: a later element wins only if it is
    better, so nobody compares places, and they are held in 32 bits. A lane starts at the first place it comes to, which is the answer
    where nothing is better than the identity."""
    reducer, values = statement.reducer, statement.values
    comparisons = POSITIONS.get(reducer.name)
    if comparisons is None or reducer != BUILTINS[reducer.name].make(reducer.dtypes[0]) or statement.mask is not None:
        return None
    value, place = values
    bound = loop.bound if not isinstance(loop.extent, Const) else int(loop.extent.value)
    last = None if bound is None else interval(place, {loop.var: (0, max(0, bound - 1))})[1]
    first = None if bound is None else interval(place, {loop.var: (0, max(0, bound - 1))})[0]
    if normal_form(place).coefficient(loop.var) != 1 or first is None or first < 0 or last is None or last + ROOM > GREATEST:
        return None
    dtype = reducer.dtypes[0]
    a, b = Var(name="a.value", dtype=dtype), Var(name="b.value", dtype=dtype)
    here, there = Var(name="a.place", dtype=I32), Var(name="b.place", dtype=I32)
    wins, loses = comparisons
    better: Expr = Binary(op=wins, a=b, b=a, dtype=BOOL)
    if dtype.is_float:  # a NaN beats every number but not an earlier NaN
        beaten = Unary(op="not", a=Binary(op=loses, a=b, b=a, dtype=BOOL), dtype=BOOL)
        better = Binary(op="and", a=beaten, b=ordered(a), dtype=BOOL)
    return Partial(
        reducer=Reducer(
            name=f"lane_{reducer.name}", states=("value", "place"), dtypes=(dtype, I32),
            identity=(reducer.identity[0], Const(value=GREATEST, dtype=I32)),
            merge=(Select(condition=better, a=b, b=a, dtype=dtype), Select(condition=better, a=there, b=here, dtype=I32)),
        ),
        values=(value, Cast(a=place, dtype=I32)),
        start=lambda first: (reducer.identity[0], Cast(a=substitute(place, {loop.var: first}), dtype=I32)),
        finish=lambda states: (states[0], Cast(a=states[1], dtype=INDEX)),
        shared=(False, False), mergeable=False,
    )  # fmt: skip


def ordered(value: Expr) -> Expr:
    return Unary(op="not", a=Call(function="isnan", args=(value,), dtype=BOOL), dtype=BOOL)


FORMS = (_extreme, _position)
POSITIONS: Mapping[str, tuple[CompareOp, CompareOp]] = {"argmax": ("gt", "le"), "argmin": ("lt", "ge")}
"""How a later value compares that wins, and one that loses."""
GREATEST = (1 << 31) - 1
ROOM = 1 << 16
"""More than the lanes of an unrolled step, whose first places may lie past the last element."""
