"""The table of element types. A backend's spelling of a type lives in the backend; NumPy's lives here.

Imports nothing of tridsl but `diagnostics`' neighbours below it: every layer may use it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import numpy as np

from tridsl.structs import dataclass

Kind = Literal["bool", "int", "uint", "float"]


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class DType:
    """One element type.

    `bits` is the logical width; `storage_bits` what one element takes in an ordinary (unpacked) array; `low` and
    `high` the closed range of an integer type (None for floats).
    """

    name: str
    kind: Kind
    bits: int
    storage_bits: int
    low: int | None = None
    high: int | None = None

    def __str__(self) -> str:
        return self.name

    __repr__ = __str__

    @property
    def is_float(self) -> bool:
        return self.kind == "float"

    @property
    def is_integer(self) -> bool:
        return self.kind in ("int", "uint")

    @property
    def storage_bytes(self) -> int:
        return self.storage_bits // 8


def _signed(name: str, bits: int, storage_bits: int | None = None) -> DType:
    return DType(name=name, kind="int", bits=bits, storage_bits=storage_bits or bits, low=-(1 << bits - 1), high=(1 << bits - 1) - 1)


def _unsigned(name: str, bits: int, storage_bits: int | None = None) -> DType:
    return DType(name=name, kind="uint", bits=bits, storage_bits=storage_bits or bits, low=0, high=(1 << bits) - 1)


def _float(name: str, bits: int) -> DType:
    return DType(name=name, kind="float", bits=bits, storage_bits=bits)


BOOL = DType(name="bool", kind="bool", bits=1, storage_bits=8, low=0, high=1)
I8, I16, I32, I64 = (_signed(f"i{bits}", bits) for bits in (8, 16, 32, 64))
U8, U16, U32 = (_unsigned(f"u{bits}", bits) for bits in (8, 16, 32))
F16, BF16, F32, F64 = _float("f16", 16), _float("bf16", 16), _float("f32", 32), _float("f64", 64)
TRIT = DType(name="trit", kind="int", bits=2, storage_bits=8, low=-1, high=1)
I4, U4 = _signed("i4", 4, 8), _unsigned("u4", 4, 8)

INDEX = I64
"""Loop variables, sizes and positions are i64 everywhere in the IR."""

DTYPES: dict[str, DType] = {
    t.name: t for t in (BOOL, I8, U8, I16, U16, I32, U32, I64, F16, BF16, F32, F64, TRIT, I4, U4)
}



class _NumpyTypes(Mapping[DType, "np.dtype[Any]"]):
    """By element type. Those that NumPy lacks are of ml_dtypes, which is imported when one of them is first asked for: it takes 4 ms
    of start-up time, and few programs have arrays of them."""

    def __init__(self, own: dict[DType, np.dtype[Any]]) -> None:
        self._known = own

    def __getitem__(self, dtype: DType) -> np.dtype[Any]:
        found = self._known.get(dtype)
        if found is None:
            import ml_dtypes  # start-up time

            self._known |= {
                BF16: np.dtype(ml_dtypes.bfloat16),
                I4: np.dtype(ml_dtypes.int4),
                U4: np.dtype(ml_dtypes.uint4),
            }
            found = self._known[dtype]
        return found

    def __iter__(self) -> Iterator[DType]:
        return iter(DTYPES.values())

    def __len__(self) -> int:
        return len(DTYPES)


NUMPY_TYPES: Mapping[DType, np.dtype[Any]] = _NumpyTypes({
    BOOL: np.dtype(np.bool_),
    I8: np.dtype(np.int8),
    U8: np.dtype(np.uint8),
    I16: np.dtype(np.int16),
    U16: np.dtype(np.uint16),
    I32: np.dtype(np.int32),
    U32: np.dtype(np.uint32),
    I64: np.dtype(np.int64),
    F16: np.dtype(np.float16),
    F32: np.dtype(np.float32),
    F64: np.dtype(np.float64),
    TRIT: np.dtype(np.int8),
})  # fmt: skip
"""What a NumPy array of each type holds. `trit` is int8 with values -1, 0, 1, checked at the call."""


def element_type(kind: np.dtype[Any]) -> DType | None:
    """The element type of a NumPy array's; int8 is `i8`, and serves a `trit` parameter too. None where there is none."""
    found = _ELEMENT_TYPES.get(kind)
    if found is None and "ml_dtypes" in sys.modules:  # else there is no such array
        _ELEMENT_TYPES.update((NUMPY_TYPES[dtype], dtype) for dtype in (BF16, I4, U4))
        found = _ELEMENT_TYPES.get(kind)
    return found


_ELEMENT_TYPES: dict[np.dtype[Any], DType] = {
    NUMPY_TYPES[dtype]: dtype for dtype in (BOOL, I8, U8, I16, U16, I32, U32, I64, F16, F32, F64)
}

COMPUTE: dict[DType, DType] = {F16: F32, BF16: F32, TRIT: I8, I4: I8, U4: U8}
"""The type arithmetic is carried out in, where it is not the element type itself (language.md, Floating point)."""


FLIPPED: dict[DType, DType] = {I8: U8, I16: U16, I32: U32}
"""What a signed integer becomes when its sign bit is flipped: the unsigned number that is greater by half the range."""


def compute_type(dtype: DType) -> DType:
    return COMPUTE.get(dtype, dtype)


def wide(dtype: DType) -> DType:
    """`wide(T)` of the language: f64 for f64, f32 for the other floats; integers have none (they must say `acc=`)."""
    return F64 if dtype == F64 else F32
