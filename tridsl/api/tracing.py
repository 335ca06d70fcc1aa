"""Calls of ops inside a traced function are recorded instead of run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tridsl.api import calls
from tridsl.api.calls import Symbol
from tridsl.api.compilation import text_steps
from tridsl.api.engine import Engine
from tridsl.api.resolution import Call, Options, resolve, whole_op
from tridsl.check.sizes import Number
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.op import Scalar
from tridsl.program.compose import with_constants
from tridsl.program.graph import Node
from tridsl.program.trace import Tracer
from tridsl.schedule.steps import Schedule


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

    def steps(spec: DeviceSpec) -> Schedule | None:
        return text_steps(engine, call, resolved, spec, engine.override(resolved, spec.kind))

    node = Node(label=engine.name, op=op, device=device, schedule=steps)
    results = trace.call(node, tuple(inputs), tuple(shapes), tuple(resolved.shapes[t.name] for t in op.outputs))
    return results[0] if len(results) == 1 else results or None
