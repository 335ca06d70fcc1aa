"""The values of an op's expressions over index grids: what a stage can read, and a rule for each kind of node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np

from tridsl.dtypes import INDEX, NUMPY_TYPES, DType
from tridsl.ir import scalar
from tridsl.ir.expr import Binary, Boundary, Call, Cast, Const, Expr, Load, Select, Unary, Var
from tridsl.ir.op import Axis, Op, Scalar, Tensor
from tridsl.structs import dataclass

Array = np.ndarray[Any, Any]
Argument = Array | int | float | bool


@dataclass(slots=True)
class World:
    """Everything a stage can read. Tensors are held as `scalar.held_type`, so a value is what a load gives after its cast."""

    op: Op
    exact: bool
    scalars: dict[str, tuple[Array, DType]] = field(default_factory=dict)
    tensors: dict[str, Array] = field(default_factory=dict)
    types: dict[str, DType] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)

    def bind_scalar(self, parameter: Scalar, arguments: Mapping[str, Argument]) -> None:
        value = arguments.get(parameter.name, parameter.default.value if parameter.default is not None else None)
        if value is None:
            raise ValueError(f"no value for `{parameter.name}`")
        self.scalars[parameter.name] = (
            scalar.constant(Const(value=value, dtype=parameter.dtype), self.exact),  # type: ignore[arg-type]
            parameter.dtype,
        )

    def bind_tensor(self, parameter: Tensor, arguments: Mapping[str, Argument]) -> None:
        array = np.asarray(arguments[parameter.name])
        shape = self.shape(parameter.shape)
        if array.dtype != NUMPY_TYPES[parameter.dtype] or array.shape != shape:
            declared = f"{NUMPY_TYPES[parameter.dtype]}{list(shape)}"
            raise ValueError(f"`{parameter.name}` is {array.dtype}{list(array.shape)}, declared {declared}")
        self.tensors[parameter.name] = array.astype(scalar.held_type(parameter.dtype, self.exact))  # always a copy
        self.types[parameter.name] = parameter.dtype

    def shape(self, dimensions: Sequence[Expr]) -> tuple[int, ...]:
        return tuple(max(0, int(self.value(d, {}))) for d in dimensions)

    def bounds(self, axis: Axis) -> tuple[int, int]:
        low, high = int(self.value(axis.lo, {})), int(self.value(axis.hi, {}))
        return low, max(low, high)

    def target(self, name: str, dtype: DType, default_shape: tuple[int, ...]) -> Array:
        """The array a stage writes: an inout parameter's own contents, or zeros of the declared shape."""
        if name not in self.tensors:
            declared = [t for t in (*self.op.tensors, *self.op.intermediates) if t.name == name]
            shape = self.shape(declared[0].shape) if declared else default_shape
            self.tensors[name] = np.zeros(shape, dtype=scalar.held_type(dtype, self.exact))
            self.types[name] = dtype
        return self.tensors[name]

    def is_parameter(self, name: str) -> bool:
        return any(p.name == name for p in self.op.params)

    def value(self, expr: Expr, variables: Mapping[str, Array]) -> Array:
        return _EXPRESSIONS[type(expr)](self, expr, variables)


def _const(world: World, e: Const, variables: Mapping[str, Array]) -> Array:
    return scalar.constant(e, world.exact)


def _var(world: World, e: Var, variables: Mapping[str, Array]) -> Array:
    if e.name in variables:
        return variables[e.name]
    value, dtype = world.scalars[e.name]
    return value.astype(np.int64) if e.dtype == INDEX and dtype != INDEX else value  # an integer parameter as an index


def _unary(world: World, e: Unary, variables: Mapping[str, Array]) -> Array:
    return scalar.UNARY[e.op](world.value(e.a, variables))


def _binary(world: World, e: Binary, variables: Mapping[str, Array]) -> Array:
    return scalar.BINARY[e.op](world.value(e.a, variables), world.value(e.b, variables))


def _select(world: World, e: Select, variables: Mapping[str, Array]) -> Array:
    return np.where(world.value(e.condition, variables), world.value(e.a, variables), world.value(e.b, variables))


def _cast(world: World, e: Cast, variables: Mapping[str, Array]) -> Array:
    return scalar.cast(world.value(e.a, variables), e.a.dtype, e.dtype, world.exact)


def _call(world: World, e: Call, variables: Mapping[str, Array]) -> Array:
    return scalar.call(e.function, tuple(world.value(a, variables) for a in e.args), e.dtype, world.exact)


def _load(world: World, e: Load, variables: Mapping[str, Array]) -> Array:
    array = world.tensors[e.tensor]
    if not e.index:
        return array
    index = [np.asarray(world.value(i, variables)) for i in e.index]
    inside: Array = np.asarray(True)
    mapped = []
    for axis, (position, length) in enumerate(zip(index, array.shape, strict=True)):
        if e.boundary is not None:
            if axis == 0 and e.boundary.extent is not None:
                length = int(world.value(e.boundary.extent, {}))
            position = map_boundary(e.boundary, position, length)
        within = (position >= 0) & (position < length)
        inside = inside & within
        mapped.append(np.where(within, position, 0))
    if inside.all():
        if not array.size:  # so the grid is empty too
            return np.zeros(inside.shape, dtype=array.dtype)
        return array[tuple(mapped)]
    if e.boundary is None:
        raise IndexError(f"{e.tensor} of shape {list(array.shape)} is read outside; the op is not well formed")
    if e.boundary.mode == "raise":
        axes = ", ".join(str(n) for n in array.shape)
        world.outside.append(f"an index into `{e.tensor}` is outside its shape [{axes}]")
    read = array[tuple(mapped)] if array.size else np.zeros((), dtype=array.dtype)
    pad: Array = np.zeros((), dtype=array.dtype)
    if e.boundary.value is not None:
        pad = scalar.cast(world.value(e.boundary.value, variables), e.boundary.value.dtype, e.dtype, world.exact)
    return np.where(inside, read, pad)


def map_boundary(boundary: Boundary, position: Array, length: int) -> Array:
    """The index inside `0..length` that `position` stands for; unchanged for `value` and `raise`, and where length is 0."""
    if boundary.mode in ("value", "raise") or length == 0:
        return position
    if boundary.mode == "edge":
        return np.clip(position, 0, length - 1)
    if boundary.mode == "wrap":
        return np.remainder(position, length)
    mirrored = length - 1 if boundary.mode == "reflect" else length  # reflect does not repeat the border element
    if mirrored == 0:
        return np.zeros_like(position)
    folded = np.remainder(position, 2 * mirrored)
    return np.where(folded < length, folded, (0 if boundary.mode == "reflect" else -1) + 2 * mirrored - folded)


_EXPRESSIONS: dict[type, Callable[[World, Any, Mapping[str, Array]], Array]] = {
    Const: _const, Var: _var, Unary: _unary, Binary: _binary, Select: _select, Cast: _cast, Call: _call, Load: _load,
}  # fmt: skip
