"""Names of a module: overload sets, monoids, schedules, benches and what `use` brings in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from types import MappingProxyType

from tridsl.check.functions import TABLE
from tridsl.check.names import suggestion
from tridsl.check.reducers import BUILTINS
from tridsl.diagnostics import Diagnostic, Label, SourceFile, Span, TriError, error
from tridsl.dtypes import DTYPES
from tridsl.structs import dataclass
from tridsl.syntax.nodes import BenchBlock, Module, Monoid, Operation, ScheduleBlock, Use
from tridsl.syntax.parse import parse

DEVICES = ("cpu", "gpu", "npu", "any")
"""What a schedule block may be for."""

Resolver = Callable[[str, str], SourceFile | None]
"""`resolver(module, name)`: the source in which `use module: name` finds `name`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overload:
    """One definition of an op. `home` is the module whose names its body means; None: the module it is found in."""

    operation: Operation
    home: BoundModule | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundModule:
    """A module with its names resolved. The mappings are read-only and in order of definition."""

    module: Module
    operations: Mapping[str, tuple[Overload, ...]]
    monoids: Mapping[str, Monoid]
    schedules: Mapping[str, tuple[ScheduleBlock, ...]]
    benches: Mapping[str, tuple[BenchBlock, ...]]

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.operations, *self.monoids)

    def own(self) -> tuple[tuple[str, tuple[Overload, ...]], ...]:
        """The ops that this module itself defines."""
        return tuple(
            (n, kept) for n, found in self.operations.items() if (kept := tuple(o for o in found if o.home is None))
        )

    def home(self, overload: Overload) -> BoundModule:
        return overload.home or self


def bind(module: Module, resolver: Resolver) -> BoundModule:
    """Resolves every name that a module defines or imports. Raises TriError with all mistakes (E0201, E0202, E0222, E0223)."""
    return _Binder(resolver=resolver).bind(module, ())


@dataclass(slots=True, kw_only=True)
class _Binder:
    resolver: Resolver
    finished: dict[str, BoundModule] = field(default_factory=dict)

    def bind(self, module: Module, path: tuple[str, ...]) -> BoundModule:
        problems: list[Diagnostic] = []
        operations: dict[str, tuple[Overload, ...]] = {}
        monoids: dict[str, Monoid] = {}
        schedules: dict[str, tuple[ScheduleBlock, ...]] = {}
        benches: dict[str, tuple[BenchBlock, ...]] = {}
        for use in (i for i in module.items if isinstance(i, Use)):
            for name in use.names:
                try:
                    source = self._source(use, name.name, name.span, path)
                    home = self._imported(source, path)
                    self._import(home, use, name.name, name.span, operations, monoids, schedules, benches)
                except TriError as problem:
                    problems += problem.diagnostics
        for item in module.items:
            problems += _define(item, operations, monoids)
        for item in module.items:
            if isinstance(item, ScheduleBlock | BenchBlock):
                if item.op not in operations:
                    kind = "schedule" if isinstance(item, ScheduleBlock) else "bench"
                    span = item.op_span if isinstance(item, ScheduleBlock) else item.span
                    problems += error("E0201", f"{kind} of an unknown op '{item.op}'", span,
                                      help=suggestion(item.op, operations) or "define the op in this file, or bring it in with use").diagnostics  # fmt: skip
                elif isinstance(item, ScheduleBlock) and item.device not in DEVICES:
                    problems += error("E0201", f"a schedule is for a device, and there is no '{item.device}'", item.op_span,
                                      help=suggestion(item.device, DEVICES) or f"write one of {', '.join(DEVICES)}").diagnostics  # fmt: skip
                elif isinstance(item, ScheduleBlock):
                    schedules[item.op] = (*schedules.get(item.op, ()), item)
                else:
                    benches[item.op] = (*benches.get(item.op, ()), item)
        if problems:
            raise TriError(*problems)
        return BoundModule(
            module=module,
            operations=MappingProxyType(operations),
            monoids=MappingProxyType(monoids),
            schedules=MappingProxyType(schedules),
            benches=MappingProxyType(benches),
        )

    def _source(self, use: Use, name: str, span: Span | None, path: tuple[str, ...]) -> SourceFile:
        source = self.resolver(use.module, name)
        if source is None:
            raise error("E0222", f"'{name}' is not found in '{use.module}'", span or use.span,
                        help="check the spelling of both; the standard library is 'stdlib'")  # fmt: skip
        if source.name in path:
            circle = " → ".join([*path[path.index(source.name) :], source.name])
            raise error(
                "E0223",
                f"the modules import each other: {circle}",
                span or use.span,
                help="move what both need into a third file",
            )
        return source

    def _imported(self, source: SourceFile, path: tuple[str, ...]) -> BoundModule:
        if source.name not in self.finished:
            self.finished[source.name] = self.bind(parse(source), (*path, source.name))
        return self.finished[source.name]

    def _import(self, home: BoundModule, use: Use, name: str, span: Span | None, operations: dict[str, tuple[Overload, ...]],
                monoids: dict[str, Monoid], schedules: dict[str, tuple[ScheduleBlock, ...]], benches: dict[str, tuple[BenchBlock, ...]]) -> None:  # fmt: skip
        if name in operations or name in monoids:
            raise error(
                "E0202",
                f"'{name}' is brought in twice",
                span or use.span,
                help="a name comes from one module; drop one of the two",
            )
        if name in home.operations:
            found = tuple(Overload(operation=o.operation, home=o.home or home) for o in home.operations[name])
            operations[name] = found
            schedules[name] = home.schedules.get(name, ())
            if name in home.benches:
                benches[name] = home.benches[name]
        elif name in home.monoids:
            monoids[name] = home.monoids[name]
        else:
            raise error("E0222", f"'{use.module}' does not define '{name}'", span or use.span,
                        help=suggestion(name, home.names) or f"it defines {', '.join(home.names) or 'nothing'}")  # fmt: skip


def _define(
    item: object, operations: dict[str, tuple[Overload, ...]], monoids: dict[str, Monoid]
) -> tuple[Diagnostic, ...]:
    match item:
        case Operation():
            problem = _name_problem(item.name, item.name_span or item.span, monoids, DTYPES)
            if problem:
                return problem
            before = operations.get(item.name, ())
            same = next((o for o in before if _signature(o.operation) == _signature(item)), None)
            if same is not None:
                other = same.operation.name_span
                return error("E0202", f"two overloads of '{item.name}' have the same parameters", item.name_span or item.span,
                             others=(Label(span=other, text="the other one"),) if other else (),
                             help="overloads differ in element types or in numbers of axes").diagnostics  # fmt: skip
            operations[item.name] = (*before, Overload(operation=item))
        case Monoid():
            problem = _name_problem(
                item.name, item.name_span or item.span, {**monoids, **operations}, {**DTYPES, **BUILTINS, **TABLE}
            )
            if problem:
                return problem
            monoids[item.name] = item
    return ()


def _name_problem(
    name: str, span: Span | None, taken: Mapping[str, object], words: Mapping[str, object]
) -> tuple[Diagnostic, ...]:
    """An op may be called like a reducer or function, since it is called in another way (`y = sum(x)`); a monoid may not."""
    if name in taken:
        return error("E0202", f"'{name}' is defined twice", span, help="rename one of the two").diagnostics
    if name in words or name == "wide":
        return error("E0202", f"'{name}' is a word of the language", span, help="choose another name").diagnostics
    return ()


def _signature(operation: Operation) -> tuple[object, ...]:
    """What two overloads must differ in: the types and numbers of axes of the parameters."""
    choices = {t.name: frozenset(c.name for c in t.choices) for t in operation.type_parameters}
    return tuple(
        (choices.get(p.type.dtype, p.type.dtype), None if p.type.dims is None else len(p.type.dims))
        for p in operation.parameters
    )
