"""`Buffer`: an array with a layout, a residency hint and an owner, which devices can share.

`layout` is `row` (the array holds one element per item) or the name of a codec in `LAYOUTS`, whose bytes the array holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from tridsl.codecs import CODECS
from tridsl.diagnostics import error
from tridsl.dtypes import NUMPY_TYPES, TRIT, DType
from tridsl.structs import dataclass

if TYPE_CHECKING:
    from numpy.typing import NDArray  # 5 ms of start-up time

Hint = Literal["prefer_cpu", "prefer_gpu", "prefer_npu", "balanced"]
HINTS: tuple[Hint, ...] = ("prefer_cpu", "prefer_gpu", "prefer_npu", "balanced")


@dataclass(frozen=True, slots=True, kw_only=True)
class Owned:
    """`device` may read and write; nobody else may touch it."""

    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedRead:
    """Every device may read, nobody may write."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InFlight:
    """`device` has work queued on it that is not known to be finished."""

    device: str


Ownership: TypeAlias = Owned | SharedRead | InFlight


@dataclass(slots=True, kw_only=True, eq=False)
class Buffer:
    """`shape` elements of `dtype`, stored in `array` according to `layout`.

    `array` is ordinary NumPy memory: the very elements for layout `row`, the codec's bytes (u8) otherwise. `hint` says
    where a shared allocation should live; it never changes a result. `owner` is who may use it at this moment.
    """

    dtype: DType
    shape: tuple[int, ...]
    array: NDArray[Any] = field(repr=False)
    layout: str = "row"
    hint: Hint = "balanced"
    owner: Ownership = field(default_factory=SharedRead)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """The elements: a view for layout `row`, decoded anew otherwise. Raises ValueError when `copy=False` cannot be met."""
        if self.layout == "row":
            return np.array(self.array, dtype=dtype, copy=copy)
        if copy is False:
            raise ValueError(f"a buffer of layout {self.layout} cannot be viewed as elements without a copy")
        return np.asarray(LAYOUTS[self.layout].decode(self.array, self.shape), dtype=dtype)

    def __dlpack__(self, **options: Any) -> Any:
        return self._elements().__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._elements().__dlpack_device__()

    def __len__(self) -> int:
        return self.shape[0]

    def _elements(self) -> NDArray[Any]:
        if self.layout != "row":
            raise BufferError(f"a buffer of layout {self.layout} has no DLPack form; np.asarray(buffer) decodes it")
        return self.array


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """A codec of whole tensors: `encode` elements to bytes, `decode` bytes and shape back to elements."""

    name: str
    dtype: DType
    encode: Callable[[NDArray[Any]], NDArray[np.uint8]]
    decode: Callable[[NDArray[np.uint8], tuple[int, ...]], NDArray[Any]]


LAYOUTS: dict[str, Layout] = {c.name: Layout(name=c.name, dtype=TRIT, encode=c.encode, decode=c.decode) for c in CODECS.values()}
"""Layouts of bytes by name; `ir.packings` has the table of what each is."""


def pack(elements: Any, layout: str) -> Buffer:
    """`elements` (int8 of -1, 0, 1; shape (M, K)) packed once in `layout`, for any op whose parameter is `trit[M, K]`.

    Errors: E0540 unknown layout, E0522 wrong dtype, E0523 wrong rank, E0531 a value outside -1, 0, 1.
    """
    codec = LAYOUTS.get(layout)
    if codec is None:
        raise error("E0540", f"there is no layout `{layout}`", help=f"layouts: {', '.join(LAYOUTS)}")
    array = np.asarray(elements)
    if array.dtype != NUMPY_TYPES[codec.dtype]:
        raise error(
            "E0522",
            f"layout {layout} packs {codec.dtype} values held in int8, got an array of {array.dtype}",
            help="write W.astype(np.int8) once its values are -1, 0 and 1",
        )
    if array.ndim != 2:
        raise error(
            "E0523",
            f"layout {layout} packs matrices (M, K), got {array.ndim} axes: {array.shape}",
            help="pack one matrix at a time",
        )
    check_trits(array, "W")
    return Buffer(dtype=codec.dtype, shape=array.shape, array=codec.encode(array), layout=codec.name)


def check_trits(array: NDArray[Any], name: str) -> None:
    """Raise E0531 unless every element of the int8 `array` is -1, 0 or 1; the message names the first that is not."""
    if array.size and (array.max() > 1 or array.min() < -1):
        where = tuple(int(i) for i in np.argwhere((array > 1) | (array < -1))[0])
        raise error(
            "E0531",
            f"argument `{name}` has the value {array[where]} at index {list(where)}, but a trit is -1, 0 or 1",
            help="quantise first, for example np.clip(np.rint(w / scale), -1, 1).astype(np.int8)",
        )
