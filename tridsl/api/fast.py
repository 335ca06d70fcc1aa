"""From a call that worked to a native specialisation: which calls the dispatcher may answer without Python."""

from __future__ import annotations

import threading
from dataclasses import field
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.api.arguments import Array
from tridsl.dtypes import NUMPY_TYPES, TRIT
from tridsl.ir.expr import Var
from tridsl.ir.op import Scalar
from tridsl.ir.walk import variables
from tridsl.structs import dataclass

if TYPE_CHECKING:
    from tridsl.api.calls import Given
    from tridsl.api.engine import Answered, Engine
    from tridsl.backends.cpu.dispatch import Argument, Dispatcher, Extent, Store
    from tridsl.ir.expr import Expr

RELEASE_GIL_POINTS = 1 << 14
"""Kernels of more iterations take longer than handing the GIL over."""


@dataclass(slots=True, kw_only=True, eq=False)
class FastPath:
    """The native dispatcher of one op, made when a kernel that it can call runs for the second time.

    Offered are calls on exact NumPy arrays and packed buffers. Left to the engine: run-time lengths, unpacked trits (their values are checked),
    contracts that a later call could break, results whose size no argument vouches for, `out=` with gaps. `native`: calls of
    `instance` go to the dispatcher first.
    """

    engine: Engine
    instance: object
    store: Store | None = None
    native: bool = False
    _dispatcher: Dispatcher | None = None
    _met: set[Any] = field(default_factory=set)
    _offered: set[Any] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, answered: Answered) -> None:
        """Consider what was just answered; costs next to nothing when it was considered before."""
        key = (id(answered.ready), answered.options.given, tuple(answered.call.values))
        if key in self._offered:
            return
        with self._lock:
            if key not in self._met:  # a call made once should not wait for the dispatcher
                self._met.add(key)
                return
            if key in self._offered:
                return
            self._offered.add(key)
            arguments = _arguments(answered) if _eligible(answered) else None
            if arguments is not None:
                self._add(answered, arguments)

    def forget(self) -> None:
        """What was offered is out of date: calls go to the engine again until they have been answered anew."""
        with self._lock:
            self._met.clear()
            self._offered.clear()
            if self._dispatcher is not None:
                self._dispatcher.clear()

    def _add(self, answered: Answered, arguments: tuple[Argument, ...]) -> None:
        from tridsl.backends.cpu.dispatch import Dispatcher, Specialisation  # start-up time: once a CPU kernel has run

        ready = answered.ready
        specialisation = Specialisation(
            executable=ready.loaded.executable,  # type: ignore[arg-type]
            arguments=arguments,
            results=None if ready.resolved.outputs else (),
            threads=answered.threads,
            release_gil=ready.points > RELEASE_GIL_POINTS,
            keywords=answered.options.given,
        )
        if self._dispatcher is None:
            self._dispatcher = Dispatcher(self.engine, name=self.engine.name, store=self.store)
        added = self._dispatcher.add(specialisation)
        if (
            not added and ready.loaded.binary.signature.sizes
        ):  # one kernel for many shapes is worth more than those it follows
            self._dispatcher.clear()
            added = self._dispatcher.add(specialisation)
        if added and not self.native:
            self.native = self._dispatcher.attach(self.instance)


def _eligible(answered: Answered) -> bool:
    ready, call = answered.ready, answered.call
    return (
        hasattr(ready.loaded.executable, "entry")
        and not ready.resolved.checks
        and all(type(call.values[name]) is np.ndarray or _is_packed(argument) for name, argument in call.given.items())
        and all(tensor.length is None for tensor in ready.resolved.header.tensors)
        and all(_is_packed(call.given.get(tensor.name)) for tensor in ready.resolved.header.tensors if tensor.dtype == TRIT)
        and all(type(out) is np.ndarray and out.flags.c_contiguous for out in answered.options.outs or ())
    )


def _is_packed(argument: Given | None) -> bool:
    return argument is not None and argument.layout != "row"


def _arguments(answered: Answered) -> tuple[Argument, ...] | None:
    """How such calls look; None where sizes that are arguments of the kernel cannot be described or vouched for."""
    from tridsl.backends.cpu.dispatch import Held, ScalarArgument, TensorArgument  # see above

    resolved, call = answered.ready.resolved, answered.call
    dynamic = frozenset(answered.ready.loaded.binary.signature.sizes)
    if any(variables(contract.condition) & dynamic for contract in resolved.header.contracts):
        return None
    declared = {tensor.name: tensor.shape for tensor in resolved.header.tensors}
    arguments: list[Argument] = []
    for parameter in call.family.header.params:
        if isinstance(parameter, Scalar):
            default = None if parameter.default is None else parameter.default.value
            constant = call.numbers[parameter.name] if parameter.const else None
            arguments.append(
                ScalarArgument(name=parameter.name, dtype=parameter.dtype, default=default, constant=constant)
            )
        elif parameter.role != "output":
            given = call.given[parameter.name]
            if _is_packed(given):  # bytes of the layout, whose shape says too little about the elements'
                if variables(declared[parameter.name]) & dynamic or not isinstance(given, Array) or given.shape != resolved.seen[parameter.name]:
                    return None
                held = Held(layout=given.layout, shape=given.shape)
                arguments.append(TensorArgument(name=parameter.name, dtype=given.array.dtype, shape=given.array.shape, held=held))
                continue
            array = call.values[parameter.name]
            shape = _extents(declared[parameter.name], array.shape, dynamic)
            strides = None if array.flags.c_contiguous else array.strides
            own_sizes = dynamic & variables(declared[parameter.name])
            if shape is None or (own_sizes and (strides is not None or array.shape != resolved.seen[parameter.name])):
                return None
            arguments.append(
                TensorArgument(
                    name=parameter.name, dtype=array.dtype, shape=shape, strides=strides, role=parameter.role
                )
            )
    for tensor in resolved.outputs:
        shape = _extents(tensor.shape, resolved.shapes[tensor.name], dynamic)
        vouched = any(tensor.shape == declared[name] for name in call.given) or not dynamic & variables(tensor.shape)
        if shape is None or not vouched:
            return None
        arguments.append(TensorArgument(name=tensor.name, dtype=NUMPY_TYPES[tensor.dtype], shape=shape, role="output"))
    return tuple(arguments)


def _extents(declared: tuple[Expr, ...], actual: tuple[int, ...], dynamic: frozenset[str]) -> tuple[Extent, ...] | None:
    """The extents as numbers, or as the sizes that they are; None where one is an expression over a dynamic size."""
    from tridsl.backends.cpu.dispatch import Size  # see above

    extents: list[Extent] = []
    for expression, extent in zip(declared, actual):
        names = variables(expression) & dynamic
        if names and not isinstance(expression, Var):
            return None
        extents.append(Size(name=expression.name) if names and isinstance(expression, Var) else extent)
    return tuple(extents)
