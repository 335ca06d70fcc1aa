"""From a resolved call to machine code, to the text of any stage, and to the oracle's answer. Imported only when needed."""

from __future__ import annotations

from collections.abc import Mapping
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl import pipeline
from tridsl.api import calls
from tridsl.api.arguments import wrapper_like
from tridsl.api.devices import find
from tridsl.api.engine import Engine, Request
from tridsl.api.resolution import Call, Resolved, identify, resolve, whole_op
from tridsl.backend import Binary, Code
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import index
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.passes.specialise import Specialisation
from tridsl.program.compose import with_constants
from tridsl.program.realise import Target
from tridsl.schedule.steps import Schedule
from tridsl.structs import replace

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time


def build_kernel(request: Request, target: Target) -> Binary:
    """Machine code for the call, specialised on everything but the dynamic sizes."""
    op, facts = _specialised(request)
    return pipeline.build(op, _side(request, target, facts))


def compiled(engine: Engine, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> tuple[Binary, Target]:
    """The machine code that a call with these arguments runs, and where."""
    request, target = _request(engine, args, keywords, None)
    return build_kernel(request, target), target


def lower(
    engine: Engine, args: tuple[Any, ...], keywords: Mapping[str, Any], until: str, schedule: Schedule | None
) -> str:
    """The text of stage `until` for these arguments; `op` is the checked op itself."""
    from tridsl.ir.printer import print_op  # start-up time: a compilation prints nothing

    request, target = _request(engine, args, keywords, schedule)
    op, facts = _specialised(request)
    return print_op(op) if until == "op" else _text(pipeline.lower(op, _side(request, target, facts), until=until))


def stage_seconds(engine: Engine, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> dict[str, float]:
    """How long each stage of the compilation for these arguments takes, in order: `automatic` chooses the schedule, `build` is the
    compiler of the target's own (LLVM, glslc)."""
    request, target = _request(engine, args, keywords, None)
    start = perf_counter()
    op, facts = _specialised(request)
    side = pipeline.complete(op, _side(request, target, facts))
    seconds = {"automatic": perf_counter() - start}
    pipeline.build(op, side, on_stage=lambda name, value, elapsed: seconds.update({name: elapsed}))
    return seconds


def _request(
    engine: Engine, args: tuple[Any, ...], keywords: Mapping[str, Any], schedule: Schedule | None
) -> tuple[Request, Target]:
    """What a call with these arguments would have compiled, with `schedule` in place of the chosen one."""
    call, options = identify(engine.module, engine.name, engine.families, args, keywords)
    resolved = resolve(call)
    target = find(options.device)
    chosen = engine.choice(engine.asked(call, resolved, target, options.threads)).steps
    strides = engine.strides(call, resolved, options, target)
    steps = chosen if schedule is None else schedule
    return Request(engine=engine, call=call, resolved=resolved, strides=strides, schedule=steps), target


def reference(engine: Engine, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
    """What the oracle computes for these arguments: results, then `inout` arguments as they would be; nothing is changed."""
    from tridsl.ir.evaluate_op import evaluate_op  # start-up time: a compilation does not interpret

    call, _ = identify(engine.module, engine.name, engine.families, args, keywords)
    resolved = resolve(call)
    calls.check_contracts(resolved.header, resolved.checks, {**resolved.sizes, **call.numbers})
    calls.check_values(call.family.header, call.given)
    op = whole_op(call, resolved)
    found = evaluate_op(op, {**_elements(resolved, call), **call.numbers}, resolved.sizes)
    wrap = wrapper_like(call.first)
    written = sorted((t for t in op.tensors if t.role != "input"), key=lambda t: t.role == "inout")
    results = tuple(wrap(found[t.name][: int(found[t.length])] if t.length else found[t.name]) for t in written)
    return results[0] if len(results) == 1 else results


def text_steps(
    engine: Engine, call: Call, resolved: Resolved, spec: DeviceSpec, chosen: Schedule | None
) -> Schedule | None:
    """`chosen`, or the schedule text of the module that holds for this device and these sizes, or None for automatic."""
    if chosen is not None:
        return chosen
    blocks = engine.module.bound.schedules.get(engine.name, ())
    if not blocks:
        return None
    from tridsl.schedule.text import text_schedule  # start-up time: few ops have schedules of their own

    known = {**resolved.sizes, **{name: value for name, value in call.constants.items() if isinstance(value, int)}}
    return text_schedule(blocks, whole_op(call, resolved), spec, known)


def _side(request: Request, target: Target, facts: Specialisation) -> pipeline.Build:
    spec = target.device.spec
    steps = text_steps(request.engine, request.call, request.resolved, spec, request.schedule)
    records = request.engine.services.realiser.store
    return pipeline.Build(spec=spec, backend=target.backend, schedule=steps, facts=facts, records=records)


def _specialised(request: Request) -> tuple[Op, Specialisation]:
    """The op with const parameters in the code and its parameters' memory layout; the sizes that are fixed."""
    call, resolved = request.call, request.resolved
    layouts = {name: a.layout for name, a in call.given.items()}
    op = with_constants(whole_op(call, resolved), call.constants)
    params = tuple(_laid_out(p, request.strides, layouts) for p in op.params)
    fixed = tuple((name, value) for name, value in sorted(resolved.sizes.items()) if name not in request.dynamic)
    return replace(op, params=params), Specialisation(sizes=fixed)


def _text(value: Any) -> str:
    """A stage's value as text."""
    from tridsl.ir.printer import print_kernel  # start-up time, as above

    if isinstance(value, Code):
        return value.text
    if isinstance(value, Binary):
        return f"{value.backend} binary `{value.entry}`, {len(value.blob)} bytes"
    return print_kernel(value) if isinstance(value, Kernel) else str(value)


def _elements(resolved: Resolved, call: Call) -> dict[str, NDArray[Any]]:
    """Arrays of elements, packed ones decoded."""
    return {
        name: np.asarray(call.values[name]) if call.given[name].layout != "row" else array
        for name, array in resolved.arrays(call.given).items()
    }


def _laid_out(
    parameter: Tensor | Scalar, strides: Mapping[str, tuple[int, ...]], layouts: Mapping[str, str]
) -> Tensor | Scalar:
    if isinstance(parameter, Scalar):
        return parameter
    steps = strides.get(parameter.name)
    return replace(
        parameter,
        strides=None if steps is None else tuple(map(index, steps)),
        layout=layouts.get(parameter.name, parameter.layout),
    )
