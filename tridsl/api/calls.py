"""One call's arguments, made sense of: bound to parameters, typed, broadcast, sizes solved, contracts checked."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from tridsl.api.arguments import Array, as_array, as_scalar, is_array, is_number
from tridsl.api.signatures import Overload
from tridsl.buffer import check_trits
from tridsl.check.sizes import Number, evaluate
from tridsl.diagnostics import error
from tridsl.dtypes import I8, NUMPY_TYPES, TRIT, DType
from tridsl.ir.op import Contract, Op, Scalar
from tridsl.ir.walk import variables

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

    from tridsl.program.trace import Tracer


class Symbol(NamedTuple):
    """A tensor of a traced function as an argument: everything of an `Array` but its elements."""

    tracer: Tracer
    dtype: DType
    shape: tuple[int, ...]
    layout: str = "row"
    strides: tuple[int, ...] | None = None


Given: TypeAlias = Array | Symbol

OVERLAP_WORK = 10_000
"""How hard NumPy looks for an element that two views share, before they count as overlapping."""


def is_tracer(value: Any) -> bool:
    """Whether `value` is a tensor of a traced function. Start-up time: while nothing traces, the tracer is not imported."""
    trace = sys.modules.get("tridsl.program.trace")
    return trace is not None and isinstance(value, trace.Tracer)


def describe(values: Mapping[str, Any], overload: Overload) -> tuple[dict[str, Given], dict[str, Any]]:
    """Tensors and scalars among the arguments. A 0-d array is a scalar. Raises what `as_array` raises, E0532."""
    dtypes = {p.name: p.dtype for p in overload.parameters if p.role in ("scalar", "const")}
    tensors: dict[str, Given] = {}
    scalars: dict[str, Any] = {}
    for name, value in values.items():
        if is_number(value):
            scalars[name] = value
        elif is_tracer(value):
            tensors[name] = Symbol(tracer=value, dtype=value.value.dtype, shape=value.shape, layout=value.value.layout)
        elif name in dtypes and not is_array(value):
            raise error(
                "E0532",
                f"argument `{name}` is a scalar {dtypes[name]}, got {type(value).__name__}",
                help="pass a number",
            )
        else:
            tensors[name] = as_array(name, value)
    return tensors, scalars


def convert_scalars(header: Op, scalars: Mapping[str, Any], given: Mapping[str, Given]) -> dict[str, Number]:
    """Every scalar parameter's value in its own type, defaults filled in. Raises what `as_scalar` raises."""
    numbers: dict[str, Number] = {}
    for parameter in header.params:
        if isinstance(parameter, Scalar):
            if parameter.name in scalars:
                numbers[parameter.name] = as_scalar(parameter.name, scalars[parameter.name], parameter.dtype)
            elif parameter.name in given:
                shape = given[parameter.name].shape
                raise error(
                    "E0523",
                    f"argument `{parameter.name}` of {header.name}() is a scalar {parameter.dtype}, got an array of shape {shape}",
                    help="pass a number",
                )
            elif parameter.default is not None:
                numbers[parameter.name] = parameter.default.value
            else:
                raise error(
                    "E0521",
                    f"{header.name}() is missing the argument `{parameter.name}`",
                    help=f"pass {parameter.name}= as {parameter.dtype}",
                )
    return numbers


def check_tensors(header: Op, given: Mapping[str, Given]) -> None:
    """Element types, layouts, ranks; E0522, E0523, E0531, E0532."""
    for tensor in header.tensors:
        if tensor.role == "output":
            continue
        argument = given.get(tensor.name)
        if argument is None:
            raise error(
                "E0532",
                f"argument `{tensor.name}` must be an array of {tensor.dtype} with {len(tensor.shape)} axes, got a number",
            )
        if argument.dtype != tensor.dtype and not (tensor.dtype == TRIT and argument.dtype == I8):
            raise error(
                "E0522",
                f"argument `{tensor.name}` of {header.name}() must have elements of type {tensor.dtype}, got {argument.dtype}",
                help=f"convert it: {tensor.name}.astype(...), or choose the overload or type parameter that takes {argument.dtype}",
            )
        if len(argument.shape) < len(tensor.shape):
            raise error(
                "E0523",
                f"argument `{tensor.name}` of {header.name}() needs at least {len(tensor.shape)} axes, got shape {argument.shape}",
                help=f"add axes: {tensor.name}[np.newaxis, ...]",
            )


def check_values(header: Op, given: Mapping[str, Given]) -> None:
    """Elements of unpacked `trit` arguments are -1, 0 or 1 (E0531). Reads the whole array; packed buffers are known to be right."""
    for tensor in header.tensors:
        argument = given.get(tensor.name)
        if tensor.dtype == TRIT and isinstance(argument, Array) and argument.layout == "row":
            check_trits(argument.array, tensor.name)


def batch_shape(header: Op, given: Mapping[str, Given]) -> tuple[int, ...]:
    """The extra leading axes of all arguments, broadcast by NumPy's rules. Raises E0524 where they do not fit together."""
    leading = {
        t.name: given[t.name].shape[: len(given[t.name].shape) - len(t.shape)]
        for t in header.tensors
        if t.role != "output"
    }
    batch: list[int] = []
    for axis in range(-max(map(len, leading.values()), default=0), 0):
        extents = {name: shape[axis] for name, shape in leading.items() if len(shape) >= -axis}
        chosen = next((name for name, extent in extents.items() if extent != 1), None)
        extent = 1 if chosen is None else extents[chosen]
        for name, other in extents.items():
            if other not in (1, extent):
                raise error(
                    "E0524",
                    f"the leading axes of `{chosen}` {given[chosen or name].shape} and `{name}` {given[name].shape} do not broadcast: {extent} against {other}",
                    help="leading axes must be equal, 1, or absent",
                )
        batch.append(extent)
    for tensor in header.tensors:
        if tensor.role == "inout" and leading[tensor.name] != tuple(batch)[len(batch) - len(leading[tensor.name]) :]:
            raise error(
                "E0524",
                f"`{tensor.name}` is updated in place, so its leading axes {leading[tensor.name]} cannot be broadcast to {tuple(batch)}",
                help=f"give `{tensor.name}` the full shape",
            )
    return tuple(batch)


def runtime_contracts(header: Op) -> tuple[Contract, ...]:
    """The contracts that depend on scalars that are no constants: they are checked at every call."""
    runtime = {p.name for p in header.params if isinstance(p, Scalar) and not p.const}
    return tuple(c for c in header.contracts if variables(c.condition) & runtime)


def check_contracts(header: Op, contracts: Sequence[Contract], values: Mapping[str, Number]) -> None:
    """Raises E0505 for the first contract that does not hold, with the values it was checked for."""
    for contract in contracts:
        if not evaluate(contract.condition, values):
            shown = ", ".join(f"{name} = {values[name]}" for name in sorted(variables(contract.condition)))
            raise error(
                "E0505",
                f"{header.name}: {contract.message}: this call has {shown}",
                contract.span,
                help="see the op's `where`",
            )


def broadcast(shape: tuple[int, ...], batch: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """`shape` with its own leading axes at their full extent; `rank` axes are the op's."""
    extra = len(shape) - rank
    return (*batch[len(batch) - extra :], *shape[extra:])


def strides_of(array: NDArray[Any]) -> tuple[int, ...] | None:
    """Strides in elements, None for row-major contiguous memory."""
    return None if array.flags.c_contiguous else tuple(step // array.itemsize for step in array.strides)


def result_shapes(op: Op, values: Mapping[str, Number]) -> dict[str, tuple[int, ...]]:
    """Shape of each output (capacity, for a `..N` one)."""
    return {tensor.name: tuple(int(evaluate(d, values)) for d in tensor.shape) for tensor in op.outputs}


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def accept_out(op: Op, shapes: Mapping[str, tuple[int, ...]], out: Any) -> dict[str, Array]:
    """`out=`: one array, or a tuple with one per result. Raises E0528 for number, type or shape, E0529 if read-only."""
    given = out if isinstance(out, tuple) else (out,)
    if len(given) != len(op.outputs):
        raise error(
            "E0528",
            f"{op.name}() has {_counted(len(op.outputs), 'result')}, but out= has {_counted(len(given), 'array')}",
            help="pass a tuple with one array per result",
        )
    arrays: dict[str, Array] = {}
    for tensor, value in zip(op.outputs, given):
        array = as_array("out", value)
        if array.dtype != tensor.dtype and not (tensor.dtype == TRIT and array.dtype == I8):
            raise error(
                "E0528",
                f"out= for the result `{tensor.name}` must be {tensor.dtype}, got {array.dtype}",
                help="results are never converted; allocate the right type",
            )
        if array.shape != shapes[tensor.name] or array.layout != "row":
            raise error(
                "E0528",
                f"out= for the result `{tensor.name}` must have shape {shapes[tensor.name]}, got {array.shape}",
                help=f"pass np.empty({shapes[tensor.name]}, np.{NUMPY_TYPES[tensor.dtype]})",
            )
        if not array.array.flags.writeable:
            raise error(
                "E0529", f"out= for the result `{tensor.name}` is read-only", help="pass an array that may be written"
            )
        if any(step == 0 and extent > 1 for step, extent in zip(array.array.strides, array.shape)):
            raise error(
                "E0529",
                f"out= for the result `{tensor.name}` is a broadcast view: several elements share one place",
                help="pass an array of its own",
            )
        arrays[tensor.name] = array
    return arrays


def check_writes(
    header: Op, given: Mapping[str, Given], outputs: Mapping[str, Array], in_place: Sequence[tuple[str, str]]
) -> None:
    """What is written must be writable and must not overlap what is read: E0529, E0530.

    Elementwise ops may write exactly where they read (`in_place`, same memory and same strides).
    """
    written = dict(outputs)
    for tensor in header.tensors:
        argument = given.get(tensor.name)
        if tensor.role == "inout" and isinstance(argument, Array):
            if not argument.array.flags.writeable:
                raise error(
                    "E0529",
                    f"argument `{tensor.name}` is updated in place, but it is read-only",
                    help=f"pass {tensor.name}.copy()",
                )
            if any(step == 0 and extent > 1 for step, extent in zip(argument.array.strides, argument.shape)):
                raise error(
                    "E0529",
                    f"argument `{tensor.name}` is updated in place, but it is a broadcast view: several elements share one place",
                    help=f"pass {tensor.name}.copy()",
                )
            written[tensor.name] = argument
    if not written:
        return
    others = {name: argument for name, argument in given.items() if isinstance(argument, Array)} | written
    for name, target in written.items():
        for other, source in others.items():
            if other == name or not _overlap(target.array, source.array):
                continue
            if (other, name) in in_place and _same_place(target.array, source.array):
                continue
            words = f"out= for `{name}`" if name in outputs else f"argument `{name}`"
            raise error(
                "E0530",
                f"{words} overlaps `{other}` in memory, and {header.name}() reads one while it writes the other",
                help=f"use other memory, or pass {other}.copy()",
            )


def _overlap(a: NDArray[Any], b: NDArray[Any]) -> bool:
    if not np.may_share_memory(a, b):
        return False
    try:
        return np.shares_memory(a, b, max_work=OVERLAP_WORK)  # type: ignore[arg-type]  # NumPy's stub knows -1 and 0 only
    except np.exceptions.TooHardError:
        return True


def _same_place(a: NDArray[Any], b: NDArray[Any]) -> bool:
    return a.ctypes.data == b.ctypes.data and a.strides == b.strides and a.shape == b.shape
