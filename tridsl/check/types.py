"""The checker's entrance: one concrete `Op` for an overload and its types; all mistakes of a module without any call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice

from tridsl.check import inline, monoids
from tridsl.check.functions import TABLE
from tridsl.check.packing import packed
from tridsl.check.resolve import BoundModule, Overload
from tridsl.check.scope import Broken, Scope
from tridsl.check.signature import check_type_parameters, declare, type_choices
from tridsl.check.statements import computed
from tridsl.check.values import Value
from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.dtypes import DType
from tridsl.ir.op import Op
from tridsl.syntax.nodes import Invoke, Monoid, Name, Operation, Reduction, Statement, Syntax

MOST_COMBINATIONS = 32
"""How many combinations of an overload's type parameters `check_module` tries; the first ones written."""


def check_module(bound: BoundModule) -> None:
    """Reports every mistake of the module's own ops and monoids in one TriError."""
    problems: dict[tuple[str, int, str], Diagnostic] = {}

    def collect(found: tuple[Diagnostic, ...]) -> None:
        for d in found:  # the same mistake for another combination of types is not told again
            place = (d.code, d.span.start, d.span.source.name) if d.span else (d.code, -1, d.message)
            problems.setdefault(place, d)

    for monoid in bound.monoids.values():
        if monoid in bound.module.items:
            collect(tuple(_monoid_problems(monoid)))
    for _, own in bound.own():
        for overload in own:
            try:
                check_type_parameters(overload.operation)
                choices = list(islice(type_choices(overload.operation), MOST_COMBINATIONS))
            except TriError as problem:
                collect(problem.diagnostics)
                continue
            for types in choices:
                try:
                    check_op(bound, overload, types)
                except TriError as problem:
                    collect(problem.diagnostics)
    if problems:
        raise TriError(*sorted(problems.values(), key=lambda d: d.span.start if d.span else -1))


def _monoid_problems(monoid: Monoid) -> Iterator[Diagnostic]:
    for types in islice(type_choices(monoid), MOST_COMBINATIONS):
        try:
            monoids.form(monoid, types)
        except TriError as problem:
            yield from problem.diagnostics


def check_op(bound: BoundModule, overload: Overload, types: Mapping[str, DType]) -> Op:
    """The op that an overload is for chosen type parameters. Raises TriError with all its mistakes."""
    return _elaborate(bound, overload, types, ())


def _elaborate(bound: BoundModule, overload: Overload, types: Mapping[str, DType], calling: tuple[str, ...]) -> Op:
    operation = overload.operation
    home = bound.home(overload)
    scope = Scope(
        types=dict(types),
        known_reducers=tuple(home.monoids),
        known_ops=tuple(home.operations),
        monoids=partial(_use_monoid, home),
    )
    params = declare(scope, operation)
    for number, statement in enumerate(operation.body):
        scope.reductions = {}
        scope.later = frozenset(t.name for later in operation.body[number:] for t in later.targets) - set(scope.tensors)
        try:
            _statement(scope, statement, home, (*calling, operation.name))
        except TriError as problem:
            scope.diagnostics += problem.diagnostics
            scope.broken |= {t.name for t in statement.targets}
        except Broken:
            scope.broken |= {t.name for t in statement.targets}
    _check_complete(scope, operation)
    if scope.diagnostics:
        raise TriError(*scope.diagnostics)
    return Op(
        name=operation.name,
        types=tuple(types.items()),
        params=params,
        sizes=tuple(scope.sizes),
        stages=tuple(scope.stages),
        intermediates=tuple(scope.intermediates.values()),
        contracts=tuple(scope.contracts),
        checks=tuple(scope.checks),
        dynamic=tuple(d.name for d in operation.dynamic),
        doc=_documentation(operation),
        span=operation.span,
    )


def _statement(scope: Scope, statement: Statement, home: BoundModule, calling: tuple[str, ...]) -> None:
    match statement.value:
        case Reduction(reducer="compact" | "topk") as node:
            packed(scope, statement, node)
        case Invoke(function=name) as node if name in home.operations and (
            name not in TABLE or _takes_tensors(scope, node)
        ):
            if name in calling:
                raise error("E0224", f"'{name}' calls itself" + (f" through {calling[-1]}" if calling[-1] != name else ""),
                            node.name_span or node.span, help="ops do not recurse; write the loop as a reducer or a scan")  # fmt: skip
            inline.called(scope, statement, node, home, lambda o, t: _elaborate(home, o, t, calling))
        case _:
            computed(scope, statement)


def _takes_tensors(scope: Scope, node: Invoke) -> bool:
    """Tells the op `max(x)` from the function `max(a, b)`: a function takes elements."""
    return any(isinstance(a, Name) and a.name in scope.tensors and scope.tensors[a.name].rank for a in node.args)


def _use_monoid(
    home: BoundModule, name: str, arguments: tuple[Value, ...], syntax: Syntax
) -> monoids.MonoidForm | None:
    found = home.monoids.get(name)
    return monoids.apply(found, arguments, syntax) if found else None


def _check_complete(scope: Scope, operation: Operation) -> None:
    """Every result is assigned, every stage is used."""
    for result in operation.results:
        if result.name not in scope.assigned and result.name not in scope.broken:
            scope.diagnostics += error("E0206", f"the result '{result.name}' is never assigned", result.span,
                                       help=f"add a stage: {result.name}[…] = …").diagnostics  # fmt: skip
    if scope.diagnostics:
        return
    for statement in operation.body:
        names = [t.name for t in statement.targets]
        if not any(n in scope.used or n in scope.parameters for n in names):
            scope.diagnostics += error("E0209", f"the stage '{names[0]}' is never used", statement.targets[0].span,
                                       help="use it, or delete it").diagnostics  # fmt: skip


def _documentation(operation: Operation) -> str:
    """The comment lines directly above an op."""
    if operation.span is None:
        return ""
    lines = operation.span.source.text[: operation.span.start].split("\n")[:-1]
    found: list[str] = []
    while lines and lines[-1].lstrip().startswith("#"):
        found.insert(0, lines.pop().lstrip().removeprefix("#").strip())
    return "\n".join(found)
