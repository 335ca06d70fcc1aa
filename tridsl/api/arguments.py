"""What a caller may pass: any array (NumPy, `tridsl.Buffer`, DLPack, buffer protocol) becomes a view, never a copy.

Errors: E0522 element type, E0525 memory layout, E0526 memory of another device, E0531 a value that does not fit, E0532 not
an array.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tridsl.buffer import Buffer
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import BF16, DTYPES, I4, NUMPY_TYPES, U4, DType, element_type

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

DLPACK_CPU = 1
DLPACK_PINNED = 3  # CUDA host memory: ordinary pages for us
NUMBER_TYPES = (bool, int, float)


class Array(NamedTuple):
    """An array argument seen as NumPy memory. `shape` is the logical one; `array` holds bytes when `layout` is a codec."""

    array: NDArray[Any]
    dtype: DType
    shape: tuple[int, ...]
    layout: str = "row"

    @property
    def strides(self) -> tuple[int, ...] | None:
        """Strides in elements, None for row-major contiguous memory (axes of extent 1 do not count)."""
        if self.layout != "row" or self.array.flags.c_contiguous:
            return None
        return tuple(stride // self.array.itemsize for stride in self.array.strides)


def as_array(name: str, value: Any) -> Array:
    """The argument `name` as memory, zero copy. Raises E0522, E0525, E0526, E0532."""
    if type(value) is Buffer:
        return Array(array=value.array, dtype=value.dtype, shape=value.shape, layout=value.layout)
    array = value if isinstance(value, np.ndarray) else _foreign(name, value)
    if type(array) is not np.ndarray and hasattr(array, "mask"):
        raise error(
            "E0532",
            f"argument `{name}` is a masked array, and ops know no masks",
            help=f"fill it first: {name}.filled(0), or pass {name}.data",
        )
    dtype = element_type(array.dtype)
    if dtype is None:
        raise _element_type(name, array)
    if array.size and not array.flags.aligned or any(stride % array.itemsize for stride in array.strides):
        raise error(
            "E0525",
            f"argument `{name}` is not aligned to its {array.itemsize}-byte elements (strides {array.strides} bytes)",
            help=f"copy it once: {name} = np.array({name})",
        )
    return Array(array=array, dtype=dtype, shape=array.shape)


def _element_type(name: str, array: NDArray[Any]) -> TriError:
    if not array.dtype.isnative and element_type(array.dtype.newbyteorder("=")) is not None:
        native = array.dtype.newbyteorder("=").name
        return error(
            "E0525",
            f"argument `{name}` has its bytes swapped (dtype {array.dtype.str!r})",
            help=f"convert it once: {name} = {name}.astype(np.{native})",
        )
    known = ", ".join(sorted({str(dtype) for dtype in NUMPY_TYPES.values()}))
    return error(
        "E0522",
        f"argument `{name}` has elements of type {array.dtype}, which no op takes",
        help=f"element types: {known}",
    )


def _foreign(name: str, value: Any) -> NDArray[Any]:
    if hasattr(value, "__dlpack__"):
        return _from_dlpack(name, value)
    try:
        view = memoryview(value)
    except TypeError:
        kind = type(value).__name__
        hint = (
            f"np.asarray({name}, dtype=np.float32)"
            if isinstance(value, (list, tuple, *NUMBER_TYPES, np.generic))
            else "an array"
        )
        raise error("E0532", f"argument `{name}` must be an array, got {kind}", help=f"pass {hint}") from None
    return np.asarray(view)


def _from_dlpack(name: str, value: Any) -> NDArray[Any]:
    try:
        device = int(value.__dlpack_device__()[0])
    except (BufferError, RuntimeError, TypeError, ValueError) as problem:  # torch's meta tensors
        raise error(
            "E0526",
            f"argument `{name}` ({type(value).__name__}) is in no memory that can be shared: {problem}",
            help="pass an array in the memory of the host",
        ) from None
    if device not in (DLPACK_CPU, DLPACK_PINNED):
        raise error(
            "E0526",
            f"argument `{name}` lives in the memory of another device (DLPack device type {device})",
            help=f"bring it to the host first, for example {name}.cpu()",
        )
    try:
        if _is_torch_bfloat16(value):  # NumPy's DLPack reader knows no bf16: pass the bits
            return np.from_dlpack(value.view(sys.modules["torch"].int16)).view(NUMPY_TYPES[BF16])
        return np.from_dlpack(value)
    except (BufferError, RuntimeError, TypeError, ValueError) as problem:
        raise error(
            "E0532",
            f"argument `{name}` ({type(value).__name__}) cannot be shared: {problem}",
            help=f"detach it from its framework first, for example {name}.detach()",
        ) from None


def _is_torch_bfloat16(value: Any) -> bool:
    return str(getattr(value, "dtype", "")) == "torch.bfloat16"


def _torch(array: NDArray[Any]) -> Any:
    torch = sys.modules["torch"]
    if element_type(array.dtype) == BF16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _buffer(array: NDArray[Any]) -> Buffer:
    dtype = element_type(array.dtype)
    assert dtype is not None, "results are of element types"
    return Buffer(dtype=dtype, shape=array.shape, array=array)


def identity(array: NDArray[Any]) -> NDArray[Any]:
    return array


def wrapper_like(value: Any) -> Callable[[NDArray[Any]], Any]:
    """A function that gives a result array the type of `value` (the first array argument), zero copy.

    Arrays of frameworks come back through `from_dlpack` of their own module; anything else gets NumPy arrays.
    """
    if isinstance(value, np.ndarray):
        return identity
    if isinstance(value, Buffer):
        return _buffer
    module = type(value).__module__.partition(".")[0]
    if module == "torch":
        return _torch
    importer = getattr(sys.modules.get(module), "from_dlpack", None)
    return importer if hasattr(value, "__dlpack__") and importer is not None else identity


def is_number(value: Any) -> bool:
    """Whether `value` serves a scalar parameter: a Python number, a NumPy scalar or a 0-d array."""
    return isinstance(value, (*NUMBER_TYPES, np.generic)) or (isinstance(value, np.ndarray) and value.ndim == 0)


def is_array(value: Any) -> bool:
    """Whether `value` offers memory: NumPy, `tridsl.Buffer`, DLPack."""
    return isinstance(value, (np.ndarray, Buffer)) or hasattr(value, "__dlpack__")


def as_scalar(name: str, value: Any, dtype: DType) -> bool | int | float:
    """`value` as the scalar parameter `name: dtype`. A Python number becomes the parameter's type; a NumPy scalar must have it.

    Raises E0522 (a typed scalar of another type, a float for an integer, a number for a bool), E0531 (out of range), E0532.
    """
    if isinstance(value, (np.generic, np.ndarray)) and not isinstance(value, float):
        if getattr(value, "ndim", 0) != 0:
            raise error(
                "E0523",
                f"argument `{name}` is a scalar {dtype}, got an array of shape {value.shape}",
                help="pass a number",
            )
        if value.dtype != NUMPY_TYPES[dtype]:
            raise error(
                "E0522",
                f"argument `{name}` is {dtype}, got a NumPy scalar of type {value.dtype}",
                help=f"pass {name}.item()",
            )
        value = value.item()
    if not isinstance(value, NUMBER_TYPES):
        raise error("E0532", f"argument `{name}` is a scalar {dtype}, got {type(value).__name__}", help="pass a number")
    if dtype.kind == "bool":
        if not isinstance(value, bool):
            raise error("E0522", f"argument `{name}` is a bool, got {value!r}", help="pass True or False")
        return value
    if isinstance(value, bool):
        raise error("E0522", f"argument `{name}` is {dtype}, got {value}", help=f"pass {int(value)}")
    if dtype.is_float:
        return _float(name, value, dtype)
    if isinstance(value, float):
        raise error(
            "E0522",
            f"argument `{name}` is {dtype}, got the float {value!r}",
            help="pass an int, for example int(round(x))",
        )
    if dtype.low is not None and dtype.high is not None and not dtype.low <= value <= dtype.high:
        raise error("E0531", f"argument `{name}` is {_shown(value)}, but {dtype} holds {dtype.low} to {dtype.high}")
    return int(value)


def _shown(value: float) -> str:
    """A number for a message; Python refuses to print integers of thousands of digits."""
    return (
        f"{value}"
        if isinstance(value, float) or value.bit_length() <= 128
        else f"a number of {value.bit_length()} bits"
    )


def _float(name: str, value: float, dtype: DType) -> float:
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    with np.errstate(over="ignore"):
        rounded = float(np.asarray(number, NUMPY_TYPES[dtype]))
    if math.isinf(rounded) and not (isinstance(value, float) and math.isinf(value)):
        raise error(
            "E0531",
            f"argument `{name}` is {_shown(value)}, which is too large for {dtype}",
            help="pass float('inf') if infinity is meant",
        )
    return rounded


def as_dtype(value: Any) -> DType | None:
    """The element type that `value` names: `"f32"`, a NumPy dtype or scalar type, a `DType`; None if it names none."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in DTYPES:
        return DTYPES[value]
    try:
        return element_type(np.dtype(value))
    except TypeError:  # or a name that NumPy learns from ml_dtypes, once that is here
        return next((t for t in (BF16, I4, U4) if str(NUMPY_TYPES[t]) == value), None) if isinstance(value, str) else None
