"""The oracle for `Kernel`: runs the loops as Python, with every access checked. For small shapes and for finding bugs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

import numpy as np

from tridsl.diagnostics import CheckFailed
from tridsl.dtypes import NUMPY_TYPES, DType
from tridsl.ir import scalar
from tridsl.ir.expr import Const
from tridsl.ir.kernel_source import kernel_source
from tridsl.ir.kernel_values import KernelFault, Memory
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Scalar, Tensor

Array = np.ndarray[Any, Any]


def evaluate_kernel(
    kernel: Kernel,
    arguments: Mapping[str, Array | int | float | bool],
    sizes: Mapping[str, int],
    *,
    check_races: bool = True,
) -> dict[str, Array]:
    """What `kernel` leaves in its inout and output parameters, by name; nothing passed in is changed.

    Arguments are as for `evaluate_op`; `sizes` has a value for each of `kernel.sizes`. Outputs need no argument.
    Raises `KernelFault` for an access outside a tensor, a read of memory never written, an output element never written
    (but past the length of a `..N` tensor), lanes that disagree on a barrier and, with `check_races`, for iterations of
    one parallel loop that touch the same element; CheckFailed (an IndexError) for a failed `Check` or `raise` boundary.
    """
    code, values = _compiled(kernel, check_races)
    world = _World(kernel, arguments, sizes)
    namespace: dict[str, Any] = dict(values)
    exec(code, namespace)  # noqa: S102 (only names and numbers that `kernel_source` made up stand in the text)
    with np.errstate(all="ignore"):
        namespace["run"](world.bind, world.scalar, lambda name: int(sizes[name]), world.failed, world.outside.append)
    if world.failed:
        raise CheckFailed(kernel.messages[min(world.failed)])
    if world.outside:
        raise CheckFailed(
            f"an index into `{world.outside[0]}` is outside its shape {list(world.shapes[world.outside[0]])}"
        )
    return {p.name: world.result(p) for p in kernel.params if isinstance(p, Tensor) and p.role != "input"}


@lru_cache(maxsize=64)
def _compiled(kernel: Kernel, check_races: bool) -> tuple[CodeType, dict[str, Any]]:
    text, values = kernel_source(kernel, check_races)
    return compile(text, f"<kernel {kernel.name}>", "exec"), values


class _World:
    """The memory of one run."""

    def __init__(self, kernel: Kernel, arguments: Mapping[str, Any], sizes: Mapping[str, int]) -> None:
        self.arguments = arguments
        self.declared = {p.name: p for p in kernel.params}
        self.memory: dict[str, Memory] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.failed: set[int] = set()
        self.outside: list[str] = []

    def bind(self, name: str, shape: tuple[int, ...]) -> Memory:
        parameter = self.declared[name]
        assert isinstance(parameter, Tensor)
        self.shapes[name] = shape
        cells: list[Any] = [None] * int(np.prod(shape, dtype=np.int64))
        if parameter.role != "output":
            array = np.asarray(self.arguments[name])
            if array.dtype != NUMPY_TYPES[parameter.dtype] or array.shape != shape:
                raise ValueError(
                    f"`{name}` is {array.dtype}{list(array.shape)}, declared {parameter.dtype}{list(shape)}"
                )
            cells = _cells(array, parameter.dtype)
        self.memory[name] = Memory(cells, name)
        return self.memory[name]

    def scalar(self, name: str) -> Any:
        parameter = self.declared[name]
        assert isinstance(parameter, Scalar)
        value = self.arguments.get(name, parameter.default.value if parameter.default is not None else None)
        if value is None:
            raise ValueError(f"no value for `{name}`")
        held = scalar.constant(Const(value=value, dtype=parameter.dtype))[()]
        return held if parameter.dtype.is_float else held.item()

    def result(self, parameter: Tensor) -> Array:
        cells = self.memory[parameter.name]
        if None in cells:
            if parameter.length is None:
                raise KernelFault(
                    f"element {cells.index(None)} of {parameter.name}{list(self.shapes[parameter.name])} was never written"
                )
            cells = Memory((0 if c is None else c for c in cells), parameter.name)
        flat = np.array(cells, dtype=scalar.HELD[parameter.dtype])
        with np.errstate(all="ignore"):
            return flat.reshape(self.shapes[parameter.name]).astype(NUMPY_TYPES[parameter.dtype])


def _cells(array: Array, dtype: DType) -> list[Any]:
    held = array.astype(scalar.HELD[dtype]).ravel()
    return list(held) if dtype.is_float else held.tolist()
