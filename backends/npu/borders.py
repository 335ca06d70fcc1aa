"""What a copy reads outside of its tensor, as the host lays it around the tensor."""

from __future__ import annotations

import ml_dtypes
import numpy as np

from tridsl.dtypes import BF16, NUMPY_TYPES
from tridsl.ir.expr import Cast, Const, Load
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """`around`: the copy reads outside of its tensor; there is the tensor's `edge`, or `filler` (raw bits)."""

    around: bool = False
    edge: bool = False
    filler: int = 0


def border_of(source: Load) -> Border:
    """ValueError where what lies outside is neither the edge nor a constant."""
    if source.mask is not None:
        raise ValueError("read on a condition")
    if source.boundary is None:
        return Border()
    if source.boundary.mode == "edge":
        return Border(around=True, edge=True)
    value = source.boundary.value
    while isinstance(value, Cast):
        value = value.a
    if source.boundary.mode != "value" or not isinstance(value, Const):
        raise ValueError("filled with something that is neither its edge nor a constant")
    kind = ml_dtypes.bfloat16 if source.dtype == BF16 else NUMPY_TYPES[source.dtype]
    return Border(around=True, filler=int.from_bytes(np.asarray(value.value, kind).tobytes(), "little"))
