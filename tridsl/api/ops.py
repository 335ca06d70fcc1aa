"""Ops as Python objects, and the namespaces they live in.

`ops.softmax(x)` is an attribute and a call. Op objects are laid out so that a native dispatcher can be attached to one
(`backends.cpu.dispatch_type`, the vectorcall protocol): once a CPU kernel has run, a call like the one it answered runs no
Python code. Until then, and for every call the dispatcher does not recognise, `__call__` is the engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from tridsl.api.engine import Engine, Services
from tridsl.api.fast import FastPath
from tridsl.api.modules import TriModule
from tridsl.api.signatures import signature_line
from tridsl.diagnostics import TriError, error

if TYPE_CHECKING:
    from inspect import Signature

    from tridsl.api.schedules import ScheduleBuilder
    from tridsl.schedule.steps import Schedule


class OpObject:
    """An op of a module. Call it; see `help(op)` for its text, `op.lower`, `op.reference`, `op.schedule`."""

    __slots__ = ("_engine", "_fast")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fast = FastPath(engine=engine, instance=self, store=engine.services.native)
        engine.on_answer = self._fast.offer
        engine.on_change = self._fast.forget

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        return self._engine(*args, **keywords)

    def __copy__(self) -> OpObject:
        """An op is like a function: copies of what holds it hold the same one."""
        return self

    def __deepcopy__(self, memo: object) -> OpObject:
        return self

    @property
    def __name__(self) -> str:
        return self._engine.name

    @property
    def __doc__(self) -> str:  # type: ignore[override]
        from tridsl.api.texts import help_text  # start-up time, as below

        return help_text(self._engine.summary)

    @property
    def __signature__(self) -> Signature:
        from tridsl.api.texts import python_signature  # start-up time, as below

        return python_signature(self._engine.summary)

    def __repr__(self) -> str:
        lines = [signature_line(self._engine.name, overload) for overload in self._engine.summary.overloads]
        return "\n".join(f"<op {line}>" for line in lines)

    @property
    def text(self) -> str:
        """The source of every overload."""
        return "\n\n".join(overload.text for overload in self._engine.summary.overloads)

    def lower(
        self,
        *args: Any,
        device: str = "auto",
        until: str = "emit",
        schedule: Schedule | ScheduleBuilder | None = None,
        **keywords: Any,
    ) -> str:
        """The text of stage `until` (op, loops, …, schedule, …, emit) for a call with these arguments.

        Stage names are those of `tridsl lower --until`. Raises E0802 for an unknown stage and what the stages raise.
        """
        from tridsl.api.compilation import lower  # start-up time: a call of a cached kernel does not need it

        return lower(self._engine, args, {**keywords, "device": device}, until, _steps(schedule))

    def reference(self, *args: Any, **keywords: Any) -> Any:
        """The answer of the NumPy interpreter for the same arguments: slow, and the judge of every kernel."""
        from tridsl.api.compilation import reference  # start-up time, as above

        return reference(self._engine, args, keywords)

    def schedule(self, device: str = "cpu", stage: str | None = None) -> ScheduleBuilder:
        """A schedule builder for a device kind; `stage` defaults to the op's first result."""
        from tridsl.api.schedules import ScheduleBuilder  # start-up time, as above

        names = self._engine.summary.overloads[0].result_names
        return ScheduleBuilder(device=device, stage=stage or (names[0] if names else self._engine.name))

    def with_schedule(self, schedule: Schedule | ScheduleBuilder) -> OpObject:
        """This op under `schedule`: on the builder's device kind, or on every device for a plain tuple of steps."""
        kind = "*" if isinstance(schedule, tuple) else schedule.device
        engine = self._engine
        steps = _steps(schedule)
        assert steps is not None
        return make_op(
            Engine(
                module=engine.module,
                name=engine.name,
                services=engine.services,
                schedules={**engine.schedules, kind: steps},
            )
        )


def _steps(schedule: Schedule | ScheduleBuilder | None) -> Schedule | None:
    return schedule if schedule is None or isinstance(schedule, tuple) else schedule.steps


@cache
def _op_class() -> type[OpObject]:
    """`OpObject` with room for a native dispatcher, where this interpreter allows one."""
    from tridsl.backends.cpu.dispatch_build import abi_problem  # start-up time: no op, no dispatcher
    from tridsl.backends.cpu.dispatch_type import callable_type

    if abi_problem() is not None:
        return OpObject
    kind = callable_type(OpObject)
    text: Any = OpObject.__dict__["__doc__"]
    setattr(kind, "__doc__", text)  # noqa: B010  # else None, which would hide the property
    return kind


def make_op(engine: Engine) -> OpObject:
    """The object of an engine's op."""
    return _op_class()(engine)


class UnknownOp(TriError, AttributeError):
    """E0534, and what `getattr` and `hasattr` expect."""


class Namespace:
    """The ops of one module as attributes. `dir()` lists them."""

    def __init__(self, module: TriModule, services: Services) -> None:
        self._module = module
        self._services = services

    def __getattr__(self, name: str) -> OpObject:
        if name.startswith("__"):
            raise AttributeError(name)
        found = self._module.ops.get(name)
        if found is None:
            from tridsl.check.names import suggestion  # start-up time: it knows syntax trees

            module = self._module
            raise UnknownOp(
                *error(
                    "E0534",
                    f"{module.source.name} has no op `{name}`",
                    help=suggestion(name, module.ops) or f"its ops: {', '.join(module.ops) or 'none'}",
                ).diagnostics
            )
        op = make_op(Engine(module=self._module, name=name, services=self._services))
        self.__dict__[name] = op  # the next look-up is an ordinary attribute
        return op

    def __getitem__(self, name: str) -> OpObject:
        return getattr(self, name)  # type: ignore[no-any-return]

    def __iter__(self) -> Iterator[str]:
        return iter(self._module.ops)

    def __dir__(self) -> list[str]:
        return [*super().__dir__(), *self._module.ops]

    def __repr__(self) -> str:
        return f"<tridsl ops of {self._module.source.name}: {', '.join(self._module.ops)}>"
