"""Rules for expressions and reducers, and the scope that rules see."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import field
from typing import Any

from tridsl.dtypes import BOOL, COMPUTE, INDEX, DType, compute_type
from tridsl.ir.expr import COMPARE, FUNCTIONS, Binary, Call, Cast, Const, Expr, Lead, Load, Select, Unary, Var
from tridsl.ir.loop import For
from tridsl.ir.op import Reducer
from tridsl.ir.print_expressions import print_expr
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """A tensor in scope; `loops` is how many loops are around its declaration."""

    dtype: DType
    rank: int
    writable: bool
    loops: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What is in force at a node. `bound` collects every loop variable of the kernel, in scope or not."""

    variables: Mapping[str, DType] = field(default_factory=dict)
    tensors: Mapping[str, Declared] = field(default_factory=dict)
    loops: tuple[For, ...] = ()
    bound: set[str] = field(default_factory=set)
    messages: int = 0

    def with_variable(self, name: str, dtype: DType = INDEX) -> Scope:
        return replace(self, variables={**self.variables, name: dtype})

    def with_tensor(self, name: str, declared: Declared) -> Scope:
        return replace(self, tensors={**self.tensors, name: declared})

    def inside(self, statement: For) -> Scope:
        return replace(self, loops=(*self.loops, statement))


Rule = Callable[[Any, Scope], Iterator[str]]


def place(tensor: str, index: tuple[Expr, ...], scope: Scope) -> Iterator[str]:
    """A tensor at an index: declared, with one i64 for each axis."""
    declared = scope.tensors.get(tensor)
    if declared is None:
        yield f"{tensor} is used where it is not declared"
        return
    if declared.rank != len(index):
        yield f"{tensor} has {declared.rank} axes and is used with {len(index)} indices"
    for position in index:
        if position.dtype != INDEX:
            yield f"{tensor} is indexed with the {position.dtype} {print_expr(position)}"


def condition(expr: Expr | None, what: str) -> Iterator[str]:
    if expr is not None and expr.dtype != BOOL:
        yield f"the {what} {print_expr(expr)} is {expr.dtype}, not bool"


def _const(e: Const, scope: Scope) -> Iterator[str]:
    if e.dtype.is_float:
        if isinstance(e.value, bool) or not isinstance(e.value, int | float):
            yield f"a constant of type {e.dtype} is the {type(e.value).__name__} {e.value!r}"
    elif (
        isinstance(e.value, float)
        or e.dtype.low is None
        or e.dtype.high is None
        or not e.dtype.low <= e.value <= e.dtype.high
    ):
        yield f"the constant {e.value!r} is not a {e.dtype}"


def _var(e: Var, scope: Scope) -> Iterator[str]:
    known = scope.variables.get(e.name)
    if known is None:
        yield f"{e.name} is not bound"
    elif known != e.dtype and compute_type(known) != e.dtype and not (known.is_integer and e.dtype == INDEX):  # const i32 as an extent
        yield f"{e.name} is {known} and is read as {e.dtype}"


def _load(e: Load, scope: Scope) -> Iterator[str]:
    yield from place(e.tensor, e.index, scope)
    declared = scope.tensors.get(e.tensor)
    if declared is not None and declared.dtype != e.dtype:
        yield f"{e.tensor} holds {declared.dtype} and is read as {e.dtype}"
    yield from condition(e.mask, "mask of a load")
    if e.other is not None and e.other.dtype not in (e.dtype, compute_type(e.dtype)):
        yield f"a load of {e.dtype} has the {e.other.dtype} {print_expr(e.other)} where it is masked"
    if e.boundary is not None:
        value = e.boundary.value
        if (e.boundary.mode == "value") != (value is not None):
            yield f"the boundary of {e.tensor} is '{e.boundary.mode}' {'with' if value is not None else 'without'} a value"
        elif value is not None and value.dtype != compute_type(e.dtype):
            yield f"{e.tensor} of {e.dtype} is padded with the {value.dtype} {print_expr(value)}"


def _arithmetic_type(dtype: DType, what: str) -> Iterator[str]:
    if dtype in COMPUTE:
        yield f"{what} is done in {dtype}, which is for storage only"


_OPERANDS: Mapping[str, Callable[[DType], bool]] = {
    "div": lambda t: t.is_float,
    "shl": lambda t: t.is_integer,
    "shr": lambda t: t.is_integer,
    "and": lambda t: not t.is_float,
    "or": lambda t: not t.is_float,
    "xor": lambda t: not t.is_float,
    **{name: lambda t: t != BOOL for name in ("add", "sub", "mul", "floordiv", "mod", "min", "max")},
}


def _binary(e: Binary, scope: Scope) -> Iterator[str]:
    if e.a.dtype != e.b.dtype:
        yield f"the operands of {e.op} are {e.a.dtype} and {e.b.dtype}: {print_expr(e)}"
    if e.dtype != (BOOL if e.op in COMPARE else e.a.dtype):
        yield f"{e.op} of {e.a.dtype} is marked {e.dtype}: {print_expr(e)}"
    yield from _arithmetic_type(e.a.dtype, e.op)
    if e.op in _OPERANDS and not _OPERANDS[e.op](e.a.dtype):
        yield f"{e.op} is not for {e.a.dtype}: {print_expr(e)}"


def _unary(e: Unary, scope: Scope) -> Iterator[str]:
    if e.dtype != e.a.dtype:
        yield f"{e.op} of {e.a.dtype} is marked {e.dtype}: {print_expr(e)}"
    yield from _arithmetic_type(e.dtype, e.op)
    fits = {"not": e.dtype == BOOL, "invert": e.dtype.is_integer}.get(e.op, e.dtype != BOOL)
    if not fits:
        yield f"{e.op} is not for {e.dtype}: {print_expr(e)}"


def _select(e: Select, scope: Scope) -> Iterator[str]:
    yield from condition(e.condition, "condition of a choice")
    if not e.a.dtype == e.b.dtype == e.dtype:
        yield f"a choice of {e.dtype} is between {e.a.dtype} and {e.b.dtype}: {print_expr(e)}"


def _call(e: Call, scope: Scope) -> Iterator[str]:
    if e.function not in FUNCTIONS:
        yield f"there is no function {e.function}"
        return
    if len(e.args) != FUNCTIONS[e.function]:
        yield f"{e.function} takes {FUNCTIONS[e.function]} arguments and has {len(e.args)}"
    types = {a.dtype for a in e.args}
    if len(types) > 1 or not all(t.is_float for t in types):
        yield f"{e.function} is called with {', '.join(str(a.dtype) for a in e.args)}"
    for dtype in types:
        yield from _arithmetic_type(dtype, e.function)
    wanted = {BOOL} if e.function in ("isnan", "isinf") else types
    if e.dtype not in wanted:
        yield f"{e.function} is marked {e.dtype}"


def _cast(e: Cast, scope: Scope) -> Iterator[str]:
    return iter(())


def _lead(e: Lead, scope: Scope) -> Iterator[str]:
    if e.tensor not in scope.tensors:
        yield f"{e.tensor} is used where it is not declared"
    if e.count < 1 or e.dtype != INDEX:
        yield f"the lead of {e.tensor} to {e.count} elements is {e.dtype}"


EXPRESSION_RULES: Mapping[type, tuple[Rule, ...]] = {
    Const: (_const,), Var: (_var,), Load: (_load,), Binary: (_binary,), Unary: (_unary,), Select: (_select,), Call: (_call,),
    Cast: (_cast,), Lead: (_lead,),
}  # fmt: skip


def check_reducer(reducer: Reducer) -> Iterator[str]:
    """One type, identity and merge for each state, in the state's type."""
    counts = {len(reducer.states), len(reducer.dtypes), len(reducer.identity), len(reducer.merge)}
    if len(counts) != 1:
        yield f"the reducer {reducer.name} has {len(reducer.states)} states and {len(reducer.merge)} merges"
    for name, dtype, identity, merge in zip(reducer.states, reducer.dtypes, reducer.identity, reducer.merge):
        if not identity.dtype == merge.dtype == dtype:
            yield f"the state {name} of {reducer.name} is {dtype}, starts as {identity.dtype} and is merged as {merge.dtype}"
        yield from _arithmetic_type(dtype, f"the state {name} of {reducer.name}")
    if reducer.op is not None and not (
        len(reducer.merge) == 1 and isinstance(reducer.merge[0], Binary) and reducer.merge[0].op == reducer.op
    ):
        yield f"the reducer {reducer.name} says it is {reducer.op} and merges otherwise"
