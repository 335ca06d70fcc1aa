"""Calls of one op: from Python arguments to a kernel and back. The slow path; the native dispatcher stands in front of it."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tridsl.api import calls
from tridsl.api.arguments import wrapper_like
from tridsl.api.calls import Symbol
from tridsl.api.devices import find
from tridsl.api.families import Family
from tridsl.api.modules import TriModule
from tridsl.api.resolution import Call, Options, Resolved, host_arrays, identify, resolve, whole_op
from tridsl.api.signatures import OpSummary
from tridsl.backend import Binary, Code
from tridsl.check.sizes import Number
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.ir.expr import index
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.program.compose import with_constants
from tridsl.program.graph import Node
from tridsl.program.layouts import decode_layouts
from tridsl.program.realise import Loaded, Realiser, Target
from tridsl.program.trace import Tracer
from tridsl.runtime.memory import allocate, require
from tridsl.schedule.steps import Schedule

DYNAMIC_LIMIT = 8
"""Values of one size that get kernels of their own; with more, the size becomes an argument of the kernel."""

READY_LIMIT = 4096
"""Calls remembered by one op; past it the table starts anew (the kernels stay)."""

SMALL_POINTS = 1 << 15
"""Iterations below which a second thread costs more than it brings."""


class Tuner(Protocol):
    """Who knows better than the schedule text: pins and tuned winners of the personality. `autotune` implements it."""

    def __call__(self, op: Op, sizes: Mapping[str, int], device: str) -> tuple[str, Schedule | None] | None:
        """(device name, schedule) for a call on `device` (`auto`, or as the caller named it); None: no evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What the call layer is given when the parts are wired. `native` keeps the native dispatcher's code."""

    realiser: Realiser
    tuner: Tuner | None = None
    native: Any = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ready:
    """A kernel for calls of one shape on one device. `points` is the order of its iterations."""

    resolved: Resolved
    loaded: Loaded
    target: Target
    points: int
    threads: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Answered:
    """A call that has been answered, for whoever wants to answer the next one like it faster."""

    ready: Ready
    call: Call
    options: Options
    threads: int


@dataclass(slots=True, kw_only=True, eq=False)
class Engine:
    """The call engine of op `name` of `module`. `schedules` override by device kind (`*`: every kind)."""

    module: TriModule
    name: str
    services: Services
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    on_answer: Callable[[Answered], None] | None = None
    _families: dict[Any, Family] = field(default_factory=dict)
    _ready: dict[Any, Ready] = field(default_factory=dict)

    @property
    def summary(self) -> OpSummary:
        return self.module.op(self.name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the op. Everything a user can get wrong raises TriError E05xx or E06xx before memory is allocated."""
        call, options = identify(self.module, self.name, self._families, args, keywords)
        if any(isinstance(argument, Symbol) for argument in call.given.values()):
            return self._trace(call, options)
        key = _key(call, options)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._prepare(call, options)
            if len(self._ready) >= READY_LIMIT:
                self._ready.clear()
            self._ready[key] = ready
        threads = options.threads or ready.threads
        results = _execute(ready, call, options, threads)
        if self.on_answer is not None:
            self.on_answer(Answered(ready=ready, call=call, options=options, threads=threads))
        return results

    def lower(self, args: tuple[Any, ...], keywords: Mapping[str, Any], until: str, schedule: Schedule | None) -> str:
        """The text of stage `until` for these arguments; `op` is the checked op itself."""
        from tridsl import pipeline  # start-up time: only what compiles needs it
        from tridsl.ir.printer import print_op

        call, options = identify(self.module, self.name, self._families, args, keywords)
        resolved = resolve(call)
        target, chosen = self._choice(call, resolved, options.device)
        op, facts = self._specialised(call, resolved, self._strides(call, resolved, options, target), frozenset())
        if until == "op":
            return print_op(op)
        steps = self._steps(call, resolved, target.device.spec, chosen if schedule is None else schedule)
        side = pipeline.Build(spec=target.device.spec, backend=target.backend, schedule=steps, facts=facts)
        return _text(pipeline.lower(op, side, until=until))

    def reference(self, args: tuple[Any, ...], keywords: Mapping[str, Any]) -> Any:
        """What the oracle computes for these arguments; `inout` arguments are returned behind the results, not changed."""
        from tridsl.ir.evaluate_op import evaluate_op  # start-up time: only the oracle needs it

        call, _ = identify(self.module, self.name, self._families, args, keywords)
        resolved = resolve(call)
        calls.check_contracts(resolved.header, resolved.checks, {**resolved.sizes, **call.numbers})
        calls.check_values(call.family.header, call.given)
        op = whole_op(call, resolved)
        found = evaluate_op(op, {**_elements(resolved, call), **call.numbers}, resolved.sizes)
        wrap = wrapper_like(call.first)
        written = [t for t in op.tensors if t.role != "input"]
        results = tuple(wrap(found[t.name][: int(found[t.length])] if t.length else found[t.name]) for t in written)
        return results[0] if len(results) == 1 else results

    def _prepare(self, call: Call, options: Options) -> Ready:
        resolved = resolve(call)
        header = resolved.header
        if options.out is None:
            require(tuple((t.name, resolved.shapes[t.name], t.dtype) for t in header.outputs))
        target, schedule = self._choice(call, resolved, options.device)
        call.family.note(resolved.sizes, DYNAMIC_LIMIT)
        dynamic = call.family.dynamic
        strides = self._strides(call, resolved, options, target)
        layouts = tuple((name, a.layout) for name, a in call.given.items())
        fixed = tuple((name, value) for name, value in sorted(resolved.sizes.items()) if name not in dynamic)
        parts = (call.family.key, resolved.extra, fixed, tuple(call.constants.items()), tuple(strides.items()), layouts, schedule)

        def build() -> Binary:
            from tridsl import pipeline  # start-up time: a warm process never compiles

            op, facts = self._specialised(call, resolved, strides, dynamic)
            steps = self._steps(call, resolved, target.device.spec, schedule)
            return pipeline.build(op, pipeline.Build(spec=target.device.spec, backend=target.backend, schedule=steps, facts=facts))

        loaded = self.services.realiser.realise(parts, target, build)
        points = math.prod(resolved.sizes.values())
        threads = 1 if points < SMALL_POINTS else len(os.sched_getaffinity(0))
        return Ready(resolved=resolved, loaded=loaded, target=target, points=points, threads=threads)

    def _choice(self, call: Call, resolved: Resolved, device: str) -> tuple[Target, Schedule | None]:
        """Device and schedule: what this op object was given, then the tuner's word, then None for text or automatic."""
        tuned = self.services.tuner(resolved.header, resolved.sizes, device) if self.services.tuner else None
        name, schedule = tuned if tuned is not None else (device, None)
        target = find(name)
        return target, self.schedules.get(target.device.spec.kind, self.schedules.get("*", schedule))

    def _override(self, resolved: Resolved, spec: DeviceSpec) -> Schedule | None:
        """The schedule chosen for a device of a program, as `_choice`."""
        tuned = self.services.tuner(resolved.header, resolved.sizes, spec.kind) if self.services.tuner else None
        return self.schedules.get(spec.kind, self.schedules.get("*", tuned[1] if tuned is not None else None))

    def _steps(self, call: Call, resolved: Resolved, spec: DeviceSpec, chosen: Schedule | None) -> Schedule | None:
        """`chosen`, or the schedule text of the module that holds for this device and these sizes, or None for automatic."""
        if chosen is not None:
            return chosen
        from tridsl.schedule.text import text_schedule  # start-up time, as above

        known = {**resolved.sizes, **{name: value for name, value in call.constants.items() if isinstance(value, int)}}
        return text_schedule(self.module.bound.schedules.get(self.name, ()), whole_op(call, resolved), spec, known)

    def _strides(self, call: Call, resolved: Resolved, options: Options, target: Target) -> dict[str, tuple[int, ...]]:
        """Strides of the parameters that are not row-major contiguous, where the device reads them in place."""
        if not target.in_host_memory:
            return {}
        arrays = resolved.arrays({name: a for name, a in call.given.items() if a.layout == "row"})
        if options.out is not None:
            arrays |= {name: a.array for name, a in calls.accept_out(resolved.header, resolved.shapes, options.outs).items()}
        return {name: steps for name, array in arrays.items() if (steps := calls.strides_of(array)) is not None}

    def _specialised(self, call: Call, resolved: Resolved, strides: Mapping[str, tuple[int, ...]], dynamic: frozenset[str]) -> tuple[Op, Any]:
        """The op with const parameters in the code and its parameters' memory layout; the sizes that are fixed."""
        from tridsl.passes.specialise import Specialisation  # start-up time, as above

        layouts = {name: a.layout for name, a in call.given.items()}
        op = with_constants(whole_op(call, resolved), call.constants)
        params = tuple(_laid_out(p, strides, layouts) for p in op.params)
        fixed = tuple((name, value) for name, value in sorted(resolved.sizes.items()) if name not in dynamic)
        return decode_layouts(replace(op, params=params)), Specialisation(sizes=fixed)

    def _trace(self, call: Call, options: Options) -> Any:
        """Record the call: some arguments are tensors of a function that is being traced."""
        if options.out is not None:
            raise error("E0536", f"{self.name}() got out= inside @tridsl.jit", help="leave it out: the program plans its own memory")
        resolved = resolve(call)
        calls.check_contracts(resolved.header, resolved.checks, {**resolved.sizes, **call.numbers})
        if any(t.length for t in resolved.header.outputs):
            raise error("E0537", f"{self.name}() has results of run-time length, whose shape is not known inside @tridsl.jit", help="call it outside the function")
        trace = next(a.tracer.trace for a in call.given.values() if isinstance(a, Symbol))
        if trace.closed:
            raise error("E0536", f"{self.name}() got a tensor of a traced function that has returned", help="return tensors from the function, do not keep them")
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
                inputs.append(trace.constant(argument, argument.dtype, argument.shape, argument.layout))
        device = None if options.device == "auto" else options.device

        def steps(spec: DeviceSpec) -> Schedule | None:
            return self._steps(call, resolved, spec, self._override(resolved, spec))

        node = Node(label=self.name, op=op, device=device, schedule=steps)
        results = trace.call(node, tuple(inputs), tuple(shapes), tuple(resolved.shapes[t.name] for t in op.outputs))
        return results[0] if len(results) == 1 else results or None


def _text(value: Any) -> str:
    """A stage's value as text."""
    from tridsl.ir.printer import print_kernel  # start-up time, as above

    if isinstance(value, Code):
        return value.text
    if isinstance(value, Binary):
        return f"{value.backend} binary `{value.entry}`, {len(value.blob)} bytes"
    return print_kernel(value)


def _key(call: Call, options: Options) -> tuple[Any, ...]:
    layouts = tuple((a.shape, a.strides, a.layout) for a in call.given.values())
    outs = None if options.outs is None else tuple((getattr(o, "strides", None), getattr(o, "shape", None)) for o in options.outs)
    return (call.family.key, layouts, tuple(call.constants.values()), options.device, outs)


def _execute(ready: Ready, call: Call, options: Options, threads: int) -> Any:
    resolved, signature = ready.resolved, ready.loaded.binary.signature
    header = resolved.header
    calls.check_contracts(header, resolved.checks, {**resolved.sizes, **call.numbers})
    calls.check_values(header, call.given)
    given_out = {} if options.out is None else calls.accept_out(header, resolved.shapes, options.outs)
    calls.check_writes(header, call.given, given_out, call.family.in_place)
    arrays = resolved.arrays(call.given)
    outputs = {t.name: given_out[t.name].array if given_out else allocate(t.name, resolved.shapes[t.name], t.dtype) for t in header.outputs}
    arrays |= outputs
    lengths = {t.length: np.zeros((), np.int64) for t in header.outputs if t.length}
    passed = arrays if ready.target.in_host_memory else host_arrays(arrays)
    slots = [_slot(parameter, passed, lengths, call.numbers) for parameter in signature.params]
    slots += [resolved.sizes[name] for name in signature.sizes]
    ready.loaded.executable(slots, threads)
    for tensor in header.tensors:
        if tensor.role != "input" and passed[tensor.name] is not arrays[tensor.name]:
            np.copyto(arrays[tensor.name], passed[tensor.name])
    return _results(header, call, outputs, lengths, options)


def _slot(parameter: Tensor | Scalar, arrays: Mapping[str, Any], lengths: Mapping[Any, Any], numbers: Mapping[str, Number]) -> Any:
    if isinstance(parameter, Scalar):
        return numbers[parameter.name]
    return lengths[parameter.name] if parameter.name in lengths else arrays[parameter.name]


def _results(header: Op, call: Call, outputs: Mapping[str, NDArray[Any]], lengths: Mapping[Any, NDArray[Any]], options: Options) -> Any:
    """What the call returns: `out` itself, or the first array argument's type; `..N` results cut to their length."""
    wrap = wrapper_like(call.first)
    results: list[Any] = []
    for position, tensor in enumerate(header.outputs):
        array = outputs[tensor.name]
        if tensor.length:
            array = array[: int(lengths[tensor.length])]
            results.append(wrapper_like(options.outs[position])(array) if options.outs else wrap(array))
        else:
            results.append(options.outs[position] if options.outs else wrap(array))
    if not results:
        return None
    return tuple(results) if len(results) > 1 else results[0]


def _elements(resolved: Resolved, call: Call) -> dict[str, NDArray[Any]]:
    """Arrays of elements, packed ones decoded."""
    return {
        name: np.asarray(call.values[name]) if call.given[name].layout != "row" else array
        for name, array in resolved.arrays(call.given).items()
    }


def _laid_out(parameter: Tensor | Scalar, strides: Mapping[str, tuple[int, ...]], layouts: Mapping[str, str]) -> Tensor | Scalar:
    if isinstance(parameter, Scalar):
        return parameter
    steps = strides.get(parameter.name)
    return replace(
        parameter,
        strides=None if steps is None else tuple(map(index, steps)),
        layout=layouts.get(parameter.name, parameter.layout),
    )
