"""Tracing: a function is run once on symbolic tensors, and the calls of ops it makes become a `Graph`.

A `Tracer` has a shape and an element type but no values. Whatever needs values is refused with the name of the operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any, NoReturn

import numpy as np

from tridsl.diagnostics import error
from tridsl.dtypes import NUMPY_TYPES, DType
from tridsl.program.graph import Graph, Input, Node, Operand, Value
from tridsl.structs import dataclass, replace


@dataclass(slots=True, kw_only=True, eq=False)
class Trace:
    """The recorder of one run. `constants` are arrays that the function captured, by identity."""

    values: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    constants: dict[int, tuple[str, Any]] = field(default_factory=dict)
    closed: bool = False

    def argument(self, name: str, dtype: DType, shape: tuple[int, ...], layout: str = "row") -> Tracer:
        """A tensor that the caller passes."""
        tracer = self._tracer(name, dtype, shape, layout)
        self.inputs.append(tracer.value.name)
        return tracer

    def constant(self, array: Any, identity: int, dtype: DType, shape: tuple[int, ...], layout: str = "row") -> Tracer:
        """A tensor that the function captured: read at every call, from the same memory. `identity` is that of memory which
        `array` keeps alive."""
        if identity in self.constants:
            name = self.constants[identity][0]
            return Tracer(value=next(v for v in self.values if v.name == name), trace=self)
        tracer = self._tracer("constant", dtype, shape, layout)
        self.constants[identity] = (tracer.value.name, array)
        return tracer

    def call(
        self,
        call: Node,
        inputs: tuple[Tracer | bool | int | float, ...],
        shapes: tuple[tuple[int, ...], ...],
        results: tuple[tuple[int, ...], ...],
    ) -> tuple[Tracer, ...]:
        """Record `call` (an op of constant sizes) on `inputs`, broadcast to `shapes`; `results` are the outputs' shapes."""
        given: list[Input] = []
        for value, shape in zip(inputs, shapes):
            given.append(Operand(value=value.value.name, shape=shape) if isinstance(value, Tracer) else value)
        outputs = tuple(
            self._tracer(f"{call.label}.{tensor.name}", tensor.dtype, shape)
            for tensor, shape in zip(call.op.outputs, results)
        )
        self.nodes.append(replace(call, inputs=tuple(given), outputs=tuple(o.value.name for o in outputs)))
        return outputs

    def graph(self, results: tuple[Tracer, ...]) -> Graph:
        """The finished program; calls whose results nobody needs are left out. No further call may be recorded."""
        self.closed = True
        outputs = tuple(r.value.name for r in results)
        needed = set(outputs)
        kept: list[Node] = []
        for node in reversed(self.nodes):
            if node.updates or needed & set(node.outputs):
                kept.append(node)
                needed |= set(node.reads)
        nodes = tuple(reversed(kept))
        named = {*self.inputs, *outputs, *(name for node in nodes for name in (*node.reads, *node.outputs))}
        return Graph(
            inputs=tuple(self.inputs),
            outputs=outputs,
            nodes=nodes,
            values=tuple(v for v in self.values if v.name in named),
            constants=tuple((name, array) for name, array in self.constants.values() if name in named),
        )

    def _tracer(self, name: str, dtype: DType, shape: tuple[int, ...], layout: str = "row") -> Tracer:
        taken = {v.name for v in self.values}
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}.{number}", number + 1
        value = Value(name=unique, dtype=dtype, shape=shape, layout=layout)
        self.values.append(value)
        return Tracer(value=value, trace=self)


def _refused(what: str, instead: str) -> NoReturn:
    raise error(
        "E0536",
        f"{what} needs the values of a tensor, but inside @tridsl.jit it has only a shape and an element type",
        help=instead,
    )


def _needs_values(operation: str) -> Callable[..., NoReturn]:
    def method(self: Tracer, *args: Any, **keywords: Any) -> NoReturn:
        _refused(
            f"{operation} of {self}", "write it as an op (tridsl.compile) and call that, or do it outside the function"
        )

    return method


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tracer:
    """A tensor while a function is traced: `shape`, `ndim`, `dtype`, `size` are known, elements are not."""

    value: Value
    trace: Trace = field(repr=False)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    @property
    def ndim(self) -> int:
        return len(self.value.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.value.shape, dtype=np.int64))

    @property
    def dtype(self) -> np.dtype[Any]:
        return NUMPY_TYPES[self.value.dtype]

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of a tensor without axes")
        return self.shape[0]

    def __str__(self) -> str:
        return f"`{self.value}`"

    __repr__ = __str__

    def __bool__(self) -> NoReturn:
        raise error(
            "E0535",
            f"a condition (`if`, `while`, `and`, `not`) on {self} depends on its values, which are not known while tracing",
            help="put the condition into an op: y[i] = if c[i] > 0 then a[i] else b[i]",
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **keywords: Any) -> NoReturn:
        _refused(f"np.{ufunc.__name__} on {self}", "call an op instead: stdlib, or your own with tridsl.compile")

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> NoReturn:
        _refused(f"np.{function.__name__} on {self}", "call an op instead: stdlib, or your own with tridsl.compile")

    __array__ = _needs_values("np.asarray()")
    __dlpack__ = _needs_values("__dlpack__()")
    __float__ = _needs_values("float()")
    __int__ = _needs_values("int()")
    __index__ = _needs_values("use as an index")
    __iter__ = _needs_values("iteration over elements")
    __getitem__ = _needs_values("indexing [ ]")
    __setitem__ = _needs_values("assignment to elements [ ]")
    __add__ = __radd__ = _needs_values("the operator +")
    __sub__ = __rsub__ = _needs_values("the operator -")
    __mul__ = __rmul__ = _needs_values("the operator *")
    __truediv__ = __rtruediv__ = _needs_values("the operator /")
    __floordiv__ = __rfloordiv__ = _needs_values("the operator //")
    __mod__ = __rmod__ = _needs_values("the operator %")
    __pow__ = __rpow__ = _needs_values("the operator **")
    __matmul__ = __rmatmul__ = _needs_values("the operator @")
    __neg__ = _needs_values("the operator -")
    __abs__ = _needs_values("abs()")
    __lt__ = _needs_values("the comparison <")
    __le__ = _needs_values("the comparison <=")
    __gt__ = _needs_values("the comparison >")
    __ge__ = _needs_values("the comparison >=")
    __eq__ = _needs_values("the comparison ==")
    __ne__ = _needs_values("the comparison !=")
    __hash__ = object.__hash__
