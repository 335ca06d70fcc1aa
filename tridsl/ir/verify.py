"""What must hold of an `Op` or `Kernel` at each stage, as tables `{node type: rules}`.

A rule is given a node and what is in scope there and yields sentences about what is wrong. Anything found is a bug of the
stage that made the value, never of the user: the diagnostics have code `internal`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from tridsl.diagnostics import Diagnostic
from tridsl.ir import loop, op
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Lead, Load, Node, Select, Unary, Var
from tridsl.ir.verify_rules import EXPRESSION_RULES, Declared, Rule, Scope, check_reducer
from tridsl.ir.verify_stages import STAGE_RULES, verify_op
from tridsl.ir.verify_statements import STATEMENT_RULES, no_boundary, no_init, parallel_not_reduced, serial_only
from tridsl.structs import dataclass, replace

Rules = Mapping[type, tuple[Rule, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """The rules of one stage."""

    name: str
    rules: Rules


def _extended(rules: Rules, more: Mapping[type, tuple[Rule, ...]]) -> Rules:
    return {**rules, **{kind: (*rules.get(kind, ()), *extra) for kind, extra in more.items()}}


_KERNEL: Rules = {**EXPRESSION_RULES, **STATEMENT_RULES}

OP = Spec(name="op", rules={**EXPRESSION_RULES, **STAGE_RULES})
LOOPS = Spec(name="loops", rules=_extended(_KERNEL, {loop.For: (serial_only,)}))
SCHEDULED = Spec(name="scheduled", rules=_extended(_KERNEL, {Load: (no_boundary,), loop.For: (parallel_not_reduced,)}))
LOWERED = Spec(name="lowered", rules=_extended(SCHEDULED.rules, {loop.Accumulate: (no_init,)}))

SPECS: Mapping[str, Spec] = {
    "check": OP, "loops": LOOPS, "specialise": LOOPS, "boundaries": SCHEDULED, "schedule": SCHEDULED, "simplify": SCHEDULED,
    "unread_tiles": SCHEDULED, "later_places": SCHEDULED, "register_tiles": SCHEDULED, "meet_lanes": SCHEDULED,
}  # fmt: skip
"""The spec of the value that a stage of the pipeline gives; `LOWERED` for every kernel after these."""


def verify(value: loop.Kernel | op.Op, spec: Spec) -> tuple[Diagnostic, ...]:
    """Everything in `value` that breaks `spec`; empty when it is well formed."""
    found: list[Diagnostic] = []

    def report(node: Node, text: str) -> None:
        found.append(Diagnostic(code="internal", message=f"{spec.name} {value.name}: {text}", span=node.span))

    def apply(node: Node, scope: Scope) -> None:
        for rule in spec.rules.get(type(node), ()):
            for text in rule(node, scope):
                report(node, text)

    def expression(node: Expr, scope: Scope) -> None:
        apply(node, scope)
        for child in _operands(node):
            expression(child, scope)

    if isinstance(value, op.Op):
        verify_op(value, apply, expression, report)
    else:
        _Walker(apply=apply, expression=expression, report=report).kernel(value)
    return tuple(found)


def _operands(node: Expr) -> Iterator[Expr]:
    match node:
        case Load():
            yield from node.index
            if node.boundary is not None and node.boundary.value is not None:
                yield node.boundary.value
            yield from (e for e in (node.mask, node.other) if e is not None)
        case Unary() | Cast():
            yield node.a
        case Binary():
            yield from (node.a, node.b)
        case Select():
            yield from (node.condition, node.a, node.b)
        case Call():
            yield from node.args
        case Const() | Var() | Lead():
            return


@dataclass(slots=True)
class _Walker:
    """Walks a kernel with what is in scope."""

    apply: Callable[[Node, Scope], None]
    expression: Callable[[Expr, Scope], None]
    report: Callable[[Node, str], None]

    def kernel(self, kernel: loop.Kernel) -> None:
        scope = Scope(messages=len(kernel.messages))
        for name in kernel.sizes:
            scope = scope.with_variable(name)
        for param in kernel.params:
            if isinstance(param, op.Scalar):
                scope = scope.with_variable(param.name, param.dtype)
        for param in kernel.params:
            if isinstance(param, op.Tensor):
                for dimension in param.shape:
                    self.expression(dimension, scope)
                if param.name in scope.tensors:
                    self.report(param, f"two parameters are named {param.name}")
                scope = scope.with_tensor(
                    param.name, Declared(dtype=param.dtype, rank=len(param.shape), writable=param.role != "input")
                )
        for buffer in kernel.scratch:
            self.apply(loop.Alloc(buffer=buffer), scope)
            scope = self.declare(buffer, scope)
        for phase in kernel.phases:
            self.block(phase.body, scope)

    def declare(self, buffer: loop.Buffer, scope: Scope) -> Scope:
        for dimension in buffer.shape:
            self.expression(dimension, scope)
        return scope.with_tensor(
            buffer.name, Declared(dtype=buffer.dtype, rank=len(buffer.shape), writable=True, loops=len(scope.loops))
        )

    def block(self, block: loop.Block, scope: Scope) -> None:
        for statement in block:
            inner = self.bind(statement, scope)
            self.apply(statement, inner)
            for node in _expressions(statement):
                self.expression(node, inner)
            match statement:
                case loop.For():
                    self.expression(statement.extent, scope)
                    self.block(statement.body, inner)
                case loop.If():
                    self.block(statement.then, scope)
                    self.block(statement.otherwise, scope)
                case loop.Alloc():
                    scope = self.declare(statement.buffer, scope)
                case loop.Accumulate():
                    self.reducer(statement.reducer)

    def bind(self, statement: loop.Stmt, scope: Scope) -> Scope:
        """The scope inside a statement; binders must be unique in the kernel."""
        match statement:
            case loop.For():
                binders = [statement.var]
            case loop.Copy():
                binders = [a.var for a in statement.axes]
            case loop.Mma():
                binders = [variable for variable, _ in statement.axes]
            case _:
                return scope
        for name in binders:
            if name in scope.bound:
                self.report(statement, f"the loop variable {name} is bound twice")
            scope.bound.add(name)
            scope = scope.with_variable(name)
        return scope.inside(statement) if isinstance(statement, loop.For) else scope

    def reducer(self, reducer: op.Reducer) -> None:
        for text in check_reducer(reducer):
            self.report(reducer, text)
        scope = Scope()
        for name, dtype in zip(reducer.states, reducer.dtypes):
            scope = scope.with_variable(f"a.{name}", dtype).with_variable(f"b.{name}", dtype)
        for merge in reducer.merge:
            self.expression(merge, scope)


def _expressions(statement: loop.Stmt) -> Iterator[Expr]:
    """The expressions that belong to a statement itself, but the extent of a loop (its variable is not in scope there)."""
    match statement:
        case loop.Store():
            yield from (*statement.target.index, statement.value, *_present(statement.mask))
        case loop.Accumulate():
            yield from (i for target in statement.targets for i in target.index)
            yield from (*statement.values, *_present(statement.mask))
        case loop.Append():
            yield from (*statement.count.index, *statement.values, statement.keep)
        case loop.Copy():
            yield from (a.extent for a in statement.axes)
            source = replace(statement.source, boundary=None)  # only what a copy reads may still lie outside
            yield from (*statement.target.index, source, *_present(statement.pad))
        case loop.Mma():
            yield from (*statement.target.index, statement.a, statement.b)
        case loop.If() | loop.Check():
            yield statement.condition
        case loop.Prefetch():
            yield from statement.index


def _present(expr: Expr | None) -> tuple[Expr, ...]:
    return () if expr is None else (expr,)


def describe(diagnostics: tuple[Diagnostic, ...]) -> str:
    """One line for each, for an assertion's message."""
    return "\n".join(d.message for d in diagnostics)
