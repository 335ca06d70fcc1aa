"""From a call that worked to a native specialisation: which calls the dispatcher may answer without Python."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tridsl.dtypes import NUMPY_TYPES, TRIT
from tridsl.ir.op import Scalar

if TYPE_CHECKING:
    from tridsl.api.engine import Answered, Engine
    from tridsl.backends.cpu.dispatch import Argument, Dispatcher, Store

RELEASE_GIL_POINTS = 1 << 14
"""Kernels of more iterations take longer than handing the GIL over."""


@dataclass(slots=True, kw_only=True, eq=False)
class FastPath:
    """The native dispatcher of one op, made when the first kernel that it can call has run.

    Offered are calls on exact NumPy arrays of fixed shapes. Left to the engine: run-time lengths, unpacked trits (their
    values are checked), contracts on run-time scalars, sizes that are arguments of the kernel, `out=` with gaps.
    """

    engine: Engine
    owner: type
    store: Store | None = None
    _dispatcher: Dispatcher | None = None
    _offered: set[Any] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def offer(self, answered: Answered) -> None:
        """Consider what was just answered; costs next to nothing when it was considered before."""
        key = (id(answered.ready), answered.options.given, tuple(answered.call.values))
        if key in self._offered:
            return
        self._offered.add(key)
        if not _eligible(answered):
            return
        from tridsl.backends.cpu.dispatch import Dispatcher, Specialisation  # start-up time: once a CPU kernel has run

        specialisation = Specialisation(
            executable=answered.ready.loaded.executable,  # type: ignore[arg-type]
            arguments=_arguments(answered),
            results=None if answered.ready.resolved.header.outputs else (),
            threads=answered.threads,
            release_gil=answered.ready.points > RELEASE_GIL_POINTS,
            keywords=answered.options.given,
        )
        with self._lock:
            if self._dispatcher is None:
                self._dispatcher = Dispatcher(self.engine, name=self.engine.name, store=self.store)
            if self._dispatcher.add(specialisation):
                self.owner.__call__ = self._dispatcher.function  # type: ignore[method-assign]


def _eligible(answered: Answered) -> bool:
    ready, call = answered.ready, answered.call
    return (
        hasattr(ready.loaded.executable, "entry")
        and not ready.resolved.checks
        and not ready.loaded.binary.signature.sizes
        and all(type(call.values[name]) is np.ndarray for name in call.given)
        and all(tensor.length is None and tensor.dtype != TRIT for tensor in ready.resolved.header.tensors)
        and all(type(out) is np.ndarray and out.flags.c_contiguous for out in answered.options.outs or ())
    )


def _arguments(answered: Answered) -> tuple[Argument, ...]:
    from tridsl.backends.cpu.dispatch import ScalarArgument, TensorArgument  # see above

    resolved, call = answered.ready.resolved, answered.call
    arguments: list[Argument] = []
    for parameter in call.family.header.params:
        if isinstance(parameter, Scalar):
            default = None if parameter.default is None else parameter.default.value
            constant = call.numbers[parameter.name] if parameter.const else None
            arguments.append(
                ScalarArgument(name=parameter.name, dtype=parameter.dtype, default=default, constant=constant)
            )
        elif parameter.role != "output":
            array = call.values[parameter.name]
            strides = None if array.flags.c_contiguous else array.strides
            arguments.append(
                TensorArgument(
                    name=parameter.name, dtype=array.dtype, shape=array.shape, strides=strides, role=parameter.role
                )
            )
    outputs = [
        TensorArgument(
            name=tensor.name, dtype=NUMPY_TYPES[tensor.dtype], shape=resolved.shapes[tensor.name], role="output"
        )
        for tensor in resolved.header.outputs
    ]
    return (*arguments, *outputs)
