"""Calls of one op: from Python arguments to a kernel and back. The slow path; the native dispatcher stands in front of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tridsl.api import calls
from tridsl.api.arguments import wrapper_like
from tridsl.api.calls import Symbol
from tridsl.api.devices import find
from tridsl.api.families import Family
from tridsl.api.modules import TriModule
from tridsl.api.resolution import Call, Options, Resolved, host_arrays, identify, resolve, whole_op
from tridsl.api.signatures import OpSummary
from tridsl.backend import Binary
from tridsl.check.sizes import Number
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.ir.walk import variables
from tridsl.program.compose import with_constants
from tridsl.program.realise import Loaded, Realiser, Served, Target, default_threads
from tridsl.program.tuner import Asked, Tuner, served
from tridsl.runtime.memory import allocate, require
from tridsl.structs import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

    from tridsl.program.place import Placer
    from tridsl.schedule.steps import Schedule

DYNAMIC_LIMIT = 8
"""Values of one size that get kernels of their own; with more, the size becomes an argument of the kernel."""

READY_LIMIT = 4096
"""Calls remembered by one op; past it the table starts anew (the kernels stay)."""

class Services(NamedTuple):
    """What the call layer is given when the parts are wired. `native` keeps the native dispatcher's code; `placer` None keeps
    every call of a program on the program's device."""

    realiser: Realiser
    tuner: Tuner | None = None
    placer: Placer | None = None
    native: Any = None


class Ready(NamedTuple):
    """A kernel for calls of one shape on one device; holds nobody's arrays. `points` is the order of its iterations."""

    resolved: Resolved
    loaded: Loaded
    target: Target
    points: int
    threads: int


class Answered(NamedTuple):
    """A call that has been answered, for whoever wants to answer the next one like it faster."""

    ready: Ready
    call: Call
    options: Options
    threads: int


class Request(NamedTuple):
    """A kernel to be made: `dynamic` sizes stay arguments; `schedule` None asks for the schedule text or the automatic one."""

    engine: Engine
    call: Call
    resolved: Resolved
    strides: Mapping[str, tuple[int, ...]]
    dynamic: frozenset[str] = frozenset()
    schedule: Schedule | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class Engine:
    """The call engine of op `name` of `module`. `schedules` override by device kind (`*`: every kind)."""

    module: TriModule
    name: str
    services: Services
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    on_answer: Callable[[Answered], None] | None = None
    on_change: Callable[[], None] | None = None
    families: dict[Any, Family] = field(default_factory=dict)
    _ready: dict[Any, Ready] = field(default_factory=dict)

    @property
    def summary(self) -> OpSummary:
        return self.module.op(self.name)

    def __call__(self, *args: Any, **keywords: Any) -> Any:
        """Call the op. Everything a user can get wrong raises TriError E05xx or E06xx before memory is allocated."""
        call, options = identify(self.module, self.name, self.families, args, keywords)
        if any(isinstance(argument, Symbol) for argument in call.given.values()):
            from tridsl.api.tracing import record  # start-up time: only a traced function needs it

            return record(self, call, options)
        key = _key(call, options)
        ready = self._ready.get(key)
        if ready is None:
            ready = self._prepare(call, options)
            if len(self._ready) >= READY_LIMIT:
                self._forget()
            self._ready[key] = ready
        threads = options.threads or ready.threads
        results = _execute(ready, call, options, threads)
        if self.on_answer is not None:
            self.on_answer(Answered(ready=ready, call=call, options=options, threads=threads))
        if options.tune and self.services.tuner is not None:
            asked = self.asked(call, ready.resolved, ready.target, options.threads)
            self.services.tuner.train(asked, lambda: self._renew(key, call, options))
        return results

    def _renew(self, key: Any, call: Call, options: Options) -> None:
        """There is a better kernel for such calls: compile it, then let them have it."""
        self._ready[key] = self._prepare(call, options)
        if self.on_change is not None:
            self.on_change()

    def _forget(self) -> None:
        """There have been many shapes: begin anew, and so does whoever remembers what was answered."""
        self._ready.clear()
        if self.on_change is not None:
            self.on_change()

    def _prepare(self, call: Call, options: Options) -> Ready:
        resolved = resolve(call)
        header = resolved.header
        if options.out is None:
            require(tuple((t.name, resolved.shapes[t.name], t.dtype) for t in header.outputs))
        target = find(options.device)
        points = math.prod(resolved.sizes.values())
        threads = default_threads(points)
        asked = self.asked(call, resolved, target, options.threads)
        call.family.note(resolved.sizes, DYNAMIC_LIMIT)
        strides = self.strides(call, resolved, options, target)
        layouts = tuple((name, a.layout) for name, a in call.given.items())
        packed = _packed_sizes(header, call)

        def sizes_left(served: Served) -> frozenset[str]:  # what a tuner found was found for these very sizes
            if target.device.spec.fixed_sizes:
                return frozenset()
            return frozenset(resolved.header.dynamic) if served.refuse is not None else call.family.dynamic - packed

        def parts(served: Served) -> tuple[object, ...]:
            dynamic = sizes_left(served)
            fixed = tuple((name, value) for name, value in sorted(resolved.sizes.items()) if name not in dynamic)
            constants = tuple(call.constants.items())
            return (call.family.key, resolved.extra, fixed, constants, tuple(strides.items()), layouts, served.steps)

        def build(served: Served) -> Binary:
            from tridsl.api.compilation import build_kernel  # start-up time: a warm process never compiles

            request = Request(
                engine=self, call=call, resolved=resolved, strides=strides, dynamic=sizes_left(served), schedule=served.steps
            )
            return build_kernel(request, target)

        loaded = self.services.realiser.serve(self.choice(asked), parts, target, build)
        return Ready(resolved=resolved, loaded=loaded, target=target, points=points, threads=threads)

    def choice(self, asked: Asked) -> Served:
        """The schedule of a call: what this op object was given, then the tuner's word, then None for text or automatic."""
        given = self.schedules.get(asked.target.device.spec.kind, self.schedules.get("*"))
        return served(self.services.tuner, asked) if given is None else Served(given)

    def asked(self, call: Call, resolved: Resolved, target: Target, threads: int | None) -> Asked:
        """`threads` None: as many as a call without the option uses."""
        return Asked(
            target=target,
            header=resolved.header,
            sizes=resolved.sizes,
            threads=threads or default_threads(math.prod(resolved.sizes.values())),
            layouts={name: a.layout for name, a in call.given.items()},
            arguments={**resolved.arrays(call.given), **call.numbers},
            kernel=lambda: self._kernel_of(call, resolved),
            op=lambda: with_constants(whole_op(call, resolved), call.constants),
            blocks=lambda: self.module.bound.schedules.get(self.name, ()),
        )

    def _kernel_of(self, call: Call, resolved: Resolved) -> str:
        """What the op computes, as evidence names it: worked out once, then remembered, so that no process parses to ask."""
        store = self.services.realiser.store
        key = store.key("meaning", call.family.key, resolved.extra, tuple(call.constants.items()))
        record = store.get(key)
        if record is not None:
            return record.decode()
        from tridsl.personality.evidence import meaning  # start-up time: a process without evidence does not need it

        found = meaning(with_constants(whole_op(call, resolved), call.constants))
        store.put(key, found.encode())
        return found

    def strides(self, call: Call, resolved: Resolved, options: Options, target: Target) -> dict[str, tuple[int, ...]]:
        """Strides of the parameters that are not row-major contiguous, where the device reads them in place."""
        if not target.in_host_memory:
            return {}
        arrays = resolved.arrays({name: a for name, a in call.given.items() if a.layout == "row"})
        if options.out is not None:
            arrays |= {
                name: a.array for name, a in calls.accept_out(resolved.header, resolved.shapes, options.outs).items()
            }
        return {name: steps for name, array in arrays.items() if (steps := calls.strides_of(array)) is not None}


def _key(call: Call, options: Options) -> tuple[Any, ...]:
    layouts = tuple((a.shape, a.strides, a.layout) for a in call.given.values())
    outs = (
        None
        if options.outs is None
        else tuple((getattr(o, "strides", None), getattr(o, "shape", None)) for o in options.outs)
    )
    return (call.family.key, layouts, tuple(call.constants.values()), options.device, outs)


def _packed_sizes(header: Op, call: Call) -> frozenset[str]:
    """Sizes of packed matrices: a model has few of them, and kernels on their bytes need to know where blocks end."""
    packed = [t for t in header.tensors if t.name in call.given and call.given[t.name].layout != "row"]
    return frozenset(v for t in packed for v in variables(t.shape)) - frozenset(header.dynamic)


def _execute(ready: Ready, call: Call, options: Options, threads: int) -> Any:
    resolved, signature = ready.resolved, ready.loaded.binary.signature
    header, shapes = resolved.header, resolved.shapes
    if resolved.checks:
        calls.check_contracts(header, resolved.checks, {**resolved.sizes, **call.numbers})
    if resolved.trits:
        calls.check_values(header, call.given)
    given_out = {} if options.out is None else calls.accept_out(header, shapes, options.outs)
    if given_out or resolved.updated:
        calls.check_writes(header, call.given, given_out, call.family.in_place)
    arrays = resolved.arrays(call.given)
    outputs = {
        t.name: given_out[t.name].array if given_out else allocate(t.name, shapes[t.name], t.dtype)
        for t in resolved.outputs
    }
    arrays |= outputs
    lengths = {t.length: np.zeros((), np.int64) for t in resolved.outputs if t.length}
    passed = arrays if ready.target.in_host_memory else host_arrays(arrays)
    slots = [_slot(parameter, passed, lengths, call.numbers) for parameter in signature.params]
    slots += [resolved.sizes[name] for name in signature.sizes]
    ready.loaded.executable(slots, threads)
    if passed is not arrays:
        for name in (*outputs, *resolved.updated):
            if passed[name] is not arrays[name]:
                np.copyto(arrays[name], passed[name])
    return _results(resolved, call, outputs, lengths, options)


def _slot(
    parameter: Tensor | Scalar, arrays: Mapping[str, Any], lengths: Mapping[Any, Any], numbers: Mapping[str, Number]
) -> Any:
    if isinstance(parameter, Scalar):
        return numbers[parameter.name]
    return lengths[parameter.name] if parameter.name in lengths else arrays[parameter.name]


def _results(
    resolved: Resolved,
    call: Call,
    outputs: Mapping[str, NDArray[Any]],
    lengths: Mapping[Any, NDArray[Any]],
    options: Options,
) -> Any:
    """What the call returns: `out` itself, or the first array argument's type; `..N` results cut to their length."""
    wrap = wrapper_like(call.first)
    results: list[Any] = []
    for position, tensor in enumerate(resolved.outputs):
        array = outputs[tensor.name]
        if tensor.length:
            array = array[: int(lengths[tensor.length])]
            results.append(wrapper_like(options.outs[position])(array) if options.outs else wrap(array))
        else:
            results.append(options.outs[position] if options.outs else wrap(array))
    if not results:
        return None
    return tuple(results) if len(results) > 1 else results[0]
