"""Calls of ops inside a traced function are recorded instead of run."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tridsl.api import calls
from tridsl.api.calls import Symbol
from tridsl.api.engine import Engine
from tridsl.api.resolution import Call, Options, Resolved, resolve, whole_op
from tridsl.check.sizes import Number
from tridsl.diagnostics import error
from tridsl.ir.op import Scalar
from tridsl.program.compose import with_constants
from tridsl.program.fuse import points
from tridsl.program.graph import Node
from tridsl.program.realise import Served, Target, default_threads
from tridsl.program.trace import Tracer
from tridsl.program.tuner import Asked, Tuner, served
from tridsl.structs import dataclass, replace

if TYPE_CHECKING:
    from tridsl.schedule.steps import Schedule


@dataclass(frozen=True, slots=True)
class _Called:
    """`program.graph.Origin` of a call of an op."""

    engine: Engine
    call: Call
    resolved: Resolved

    def schedule(self, target: Target) -> Served:
        served = self.engine.choice(self._asked(target))

        def text(chosen: Schedule | None) -> Schedule | None:
            from tridsl.api.compilation import text_steps  # start-up time: imports the compiler

            return text_steps(self.engine, self.call, self.resolved, target.device.spec, chosen)

        refuse = served.refuse
        return Served(text(served.steps), None if refuse is None else lambda problem: text(refuse(problem)))

    def train(self, target: Target, done: Callable[[], None]) -> None:
        if self.engine.services.tuner is not None:
            self.engine.services.tuner.train(self._asked(target), done)

    def _asked(self, target: Target) -> Asked:
        return self.engine.asked(self.call, self.resolved, target, None)


@dataclass(frozen=True, slots=True)
class Joined:
    """`program.graph.Origin` of calls that were joined: evidence is kept by the op that they became."""

    node: Node
    tuner: Tuner | None

    def schedule(self, target: Target) -> Served:
        return served(self.tuner, self._asked(target))

    def train(self, target: Target, done: Callable[[], None]) -> None:
        if self.tuner is not None:
            self.tuner.train(self._asked(target), done)

    def _asked(self, target: Target) -> Asked:
        op = self.node.op

        def kernel() -> str:
            from tridsl.personality.evidence import meaning  # start-up time: see `Engine._kernel_of`

            return meaning(op)

        return Asked(
            target=target,
            header=op,
            sizes={},
            threads=default_threads(sum(points(stage) for stage in op.stages)),
            layouts={},
            arguments={p.name: given for p, given in zip(op.inputs, self.node.inputs) if isinstance(p, Scalar)},
            kernel=kernel,
            op=lambda: op,
            blocks=tuple,
        )


def record(engine: Engine, call: Call, options: Options) -> Any:
    """Record the call: some arguments are tensors of a function that is being traced."""
    if options.out is not None:
        raise error(
            "E0536",
            f"{engine.name}() got out= inside @tridsl.jit",
            help="leave it out: the program plans its own memory",
        )
    resolved = resolve(call)
    calls.check_contracts(resolved.header, resolved.checks, {**resolved.sizes, **call.numbers})
    if any(t.length for t in resolved.header.outputs):
        raise error(
            "E0537",
            f"{engine.name}() has results of run-time length, whose shape is not known inside @tridsl.jit",
            help="call it outside the function",
        )
    trace = next(a.tracer.trace for a in call.given.values() if isinstance(a, Symbol))
    if trace.closed:
        raise error(
            "E0536",
            f"{engine.name}() got a tensor of a traced function that has returned",
            help="return tensors from the function, do not keep them",
        )
    op = with_constants(whole_op(call, resolved), {**resolved.sizes, **call.constants})
    op = replace(op, contracts=(), dynamic=())
    inputs: list[Tracer | Number] = []
    shapes: list[tuple[int, ...]] = []
    for parameter in op.inputs:
        if isinstance(parameter, Scalar):
            inputs.append(call.numbers[parameter.name])
            shapes.append(())
            continue
        argument = call.given[parameter.name]
        shapes.append(resolved.seen[parameter.name])
        if isinstance(argument, Symbol):
            inputs.append(argument.tracer)
        else:
            inputs.append(trace.constant(argument, id(argument.array), argument.dtype, argument.shape, argument.layout))
    device = None if options.device == "auto" else options.device

    node = Node(label=engine.name, op=op, device=device, origin=_Called(engine, call, resolved))
    results = trace.call(node, tuple(inputs), tuple(shapes), tuple(resolved.shapes[t.name] for t in op.outputs))
    return results[0] if len(results) == 1 else results or None
