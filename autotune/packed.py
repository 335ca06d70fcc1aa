"""Packed parameters while measuring: kernels get their bytes, the oracle their elements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from tridsl.buffer import LAYOUTS
from tridsl.diagnostics import error
from tridsl.dtypes import NUMPY_TYPES
from tridsl.ir.affine import evaluate_index
from tridsl.ir.op import Op, Tensor
from tridsl.ir.packings import bytes_of, is_packed
from tridsl.structs import replace


def layouts_of(op: Op) -> dict[str, str]:
    """Of the packed parameters, by name."""
    return {t.name: t.layout for t in op.tensors if is_packed(t)}


def laid_out(op: Op, layouts: Mapping[str, str]) -> Op:
    """`op` with these parameters packed. E0540: no such layout, or none for this parameter."""
    tensors = {t.name: t for t in op.tensors if t.role == "input"}
    for name, layout in layouts.items():
        codec, tensor = LAYOUTS.get(layout), tensors.get(name)
        if layout != "row" and (codec is None or tensor is None or tensor.dtype != codec.dtype or len(tensor.shape) != 2):
            raise error(
                "E0540", f"`{name}` of `{op.name}` cannot be packed as `{layout}`",
                help=f"layouts of a trit[M, K] parameter: {', '.join(LAYOUTS)}",
            )  # fmt: skip
    return replace(op, params=tuple(replace(p, layout=layouts[p.name]) if isinstance(p, Tensor) and p.name in layouts else p for p in op.params))


def of_elements(op: Op) -> Op:
    """`op` with all parameters as plain arrays of elements."""
    return laid_out(op, dict.fromkeys(layouts_of(op), "row"))


def as_stored(op: Op) -> Op:
    """`op` with packed parameters as their bytes."""
    return replace(op, params=tuple(bytes_of(p) if isinstance(p, Tensor) and is_packed(p) else p for p in op.params))


def stored(op: Op, name: str, elements: NDArray[Any]) -> NDArray[Any]:
    """What the memory of parameter `name` holds for these elements."""
    layout = layouts_of(op).get(name)
    return elements if layout is None else LAYOUTS[layout].encode(elements)


def elements(op: Op, sizes: Mapping[str, int], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """`arguments` with the bytes of packed parameters decoded."""
    found = dict(arguments)
    for tensor in op.tensors:
        array = found.get(tensor.name)
        if is_packed(tensor) and array is not None and array.dtype != NUMPY_TYPES[tensor.dtype]:
            found[tensor.name] = LAYOUTS[tensor.layout].decode(array, tuple(evaluate_index(n, sizes) for n in tensor.shape))
    return found
