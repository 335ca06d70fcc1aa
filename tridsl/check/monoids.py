"""User monoids: from syntax to a `Reducer` with what feeds it (`lift`) and what comes out (`result`)."""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.check.expressions import evaluate
from tridsl.check.names import cast, listing, written
from tridsl.check.operands import adapt
from tridsl.check.scope import Place, Scope
from tridsl.check.values import Value, operand_type, typed
from tridsl.diagnostics import error
from tridsl.dtypes import DTYPES, DType, compute_type
from tridsl.ir.expr import Const, Expr, Var
from tridsl.ir.op import Reducer
from tridsl.structs import dataclass
from tridsl.syntax.nodes import Monoid, Parameter, Statement, StateVariable, Syntax


@dataclass(frozen=True, slots=True, kw_only=True)
class MonoidForm:
    """A monoid of concrete types.

    `lift` gives each state over `Var(<parameter>)`; `result` is over `Var(<state>)`; both in compute types.
    """

    parameters: tuple[tuple[str, DType], ...]
    reducer: Reducer
    lift: tuple[Expr, ...]
    result: Expr
    result_type: DType


def form(monoid: Monoid, types: Mapping[str, DType]) -> MonoidForm:
    """The checked monoid for chosen type parameters."""
    scope = Scope(types=types)
    parameters = tuple((p.name, scope.type_dtype(p.type)) for p in monoid.parameters)
    states = tuple((s.name, scope.type_dtype(s.type)) for s in monoid.state)
    _check_names(monoid)
    for state, (_, dtype) in zip(monoid.state, states):
        if compute_type(dtype) != dtype:
            raise error("E0231", f"the state '{state.name}' cannot be {dtype}: nothing accumulates in a storage type", state.type.span,
                        help=f"make it {compute_type(dtype)}")  # fmt: skip
    identity = []
    for state, (_, dtype) in zip(monoid.state, states):
        neutral = adapt(scope, evaluate(scope, state.identity, Place()), dtype, Place())
        if not isinstance(neutral, Const):
            raise error(
                "E0230",
                f"the identity of '{state.name}' is not a constant",
                state.identity.span,
                help="write a literal, lowest or -inf",
            )
        identity.append(neutral)
    arguments = {name: _variable(name, dtype, monoid) for name, dtype in parameters}
    lift = _body(scope, monoid, "lift", monoid.lift, states, arguments)
    a, b = monoid.merge_names
    both = {
        f"{local}.{name}": _variable(f"{side}.{name}", dtype, monoid)
        for local, side in ((a, "a"), (b, "b"))
        for name, dtype in states
    }
    merge = _body(scope, monoid, "merge", monoid.merge, states, both)
    result_type = scope.type_dtype(monoid.result_type)
    final = Place(locals={name: _variable(name, dtype, monoid) for name, dtype in states})
    result = adapt(scope, evaluate(scope, monoid.result, final), result_type, final)
    reducer = Reducer(
        name=monoid.name,
        states=tuple(name for name, _ in states),
        dtypes=tuple(dtype for _, dtype in states),
        identity=tuple(identity),
        merge=merge,
        commutative=False,
        span=monoid.span,
    )
    return MonoidForm(parameters=parameters, reducer=reducer, lift=lift, result=result, result_type=result_type)


def apply(monoid: Monoid, arguments: tuple[Value, ...], syntax: Syntax) -> MonoidForm:
    """The monoid with type parameters chosen by the arguments of a use."""
    if len(arguments) != len(monoid.parameters):
        raise error("E0228", f"'{monoid.name}' takes {len(monoid.parameters)} values, not {len(arguments)}", syntax.span,
                    help=f"its parameters are {listing(p.name for p in monoid.parameters)}")  # fmt: skip
    types: dict[str, DType] = {}
    generic = {t.name: t for t in monoid.type_parameters}
    for parameter, argument in zip(monoid.parameters, arguments):
        name = parameter.type.dtype
        if name in generic and name not in types and argument.type is not None:
            types[name] = operand_type(argument.type)
    for name, choice in generic.items():
        if name not in types and choice.default is not None:
            types[name] = types.get(choice.default.name) or Scope(types={}).dtype(
                choice.default.name, choice.default.span
            )
        legal = [types.get(c.name) or DTYPES.get(c.name) for c in choice.choices]
        if types.get(name) not in legal:
            given = f"cannot be {types[name]}" if name in types else "is not fixed by the arguments"
            raise error("E0231", f"the type {name} of '{monoid.name}' {given}", syntax.span,
                        help=f"it is one of {listing((str(t) for t in legal), 'or')}")  # fmt: skip
    result = form(monoid, types)
    for (name, dtype), argument in zip(result.parameters, arguments):
        if argument.type is not None and operand_type(argument.type) != operand_type(dtype):
            raise error("E0231", f"'{written(argument.syntax)}' is {argument.type}, '{name}' of '{monoid.name}' is {dtype}", argument.syntax.span,
                        label=str(argument.type), help=f"write {cast(dtype, argument.syntax)}")  # fmt: skip
    return result


def _check_names(monoid: Monoid) -> None:
    if not monoid.state:
        raise error(
            "E0230",
            f"the monoid '{monoid.name}' has no state",
            monoid.name_span or monoid.span,
            help="declare one: state s: f32 = 0",
        )
    seen: set[str] = set()
    items: tuple[Parameter | StateVariable, ...] = (*monoid.parameters, *monoid.state)
    for item in items:
        if item.name in seen:
            raise error(
                "E0202",
                f"'{item.name}' is declared twice in the monoid '{monoid.name}'",
                item.span,
                help="rename one of the two",
            )
        seen.add(item.name)
    for parameter in monoid.parameters:
        if parameter.type.dims is not None or parameter.qualifier or parameter.default is not None:
            raise error(
                "E0231",
                f"the parameter '{parameter.name}' of a monoid is one plain value",
                parameter.span,
                help=f"write {parameter.name}: f32",
            )
    if monoid.merge_names[0] == monoid.merge_names[1]:
        raise error("E0230", "merge needs two different names", monoid.span, help="write merge a, b { … }")


def _variable(name: str, dtype: DType, monoid: Monoid) -> Value:
    return typed(Var(name=name, dtype=compute_type(dtype)), dtype, monoid)


def _body(scope: Scope, monoid: Monoid, block: str, statements: tuple[Statement, ...], states: tuple[tuple[str, DType], ...],
          given: Mapping[str, Value]) -> tuple[Expr, ...]:  # fmt: skip
    """The new states that a block computes, each over what the block is given."""
    known = dict(given)
    dtypes = dict(states)
    done: dict[str, Expr] = {}
    for statement in statements:
        if len(statement.targets) != 1 or statement.indices:
            raise error(
                "E0230",
                f"a line of {block} gives one plain name a value",
                statement.span,
                help="write m = max(a.m, b.m)",
            )
        name = statement.targets[0].name
        if name in done:
            raise error(
                "E0207",
                f"'{name}' is assigned twice in {block}",
                statement.targets[0].span,
                help="name the intermediate value differently",
            )
        value = evaluate(scope, statement.value, Place(locals=known))
        if name in dtypes:
            done[name] = adapt(scope, value, dtypes[name], Place(locals=known))
            known[name] = typed(done[name], dtypes[name], statement.targets[0])
        else:
            known[name] = value
    missing = [name for name in dtypes if name not in done]
    if missing:
        raise error("E0230", f"{block} of '{monoid.name}' does not compute the state {listing(missing)}", monoid.name_span or monoid.span,
                    help=f"every state is assigned in {block}")  # fmt: skip
    return tuple(done[name] for name, _ in states)
