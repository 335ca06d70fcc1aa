"""Is this the right answer? Results against the reference interpreter, before anything is timed or believed.

Floats are compared with the op computed in f64 from the same inputs; an element may be off by the tolerance of its type, relative to
its own size or to the size of the result (root mean square), whichever is larger, so that a sum that cancels is judged by its terms.
Integers must be equal; those that an op makes from floats (a quantised value, an index) may differ by one where a rounding or a tie
fell the other way, at one element in a thousand. A peer's integers may differ by anything at one element in a thousand: OpenCV's grey
rounds at another bit than BT.601 in 14 bits does, which moves a pixel across a threshold now and then.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tridsl.dtypes import BF16, F16, F32, F64, DType
from tridsl.ir.op import Op, Scan, Tensor
from tridsl.structs import dataclass

TOLERANCE: dict[DType, float] = {F64: 1e-12, F32: 1e-5, F16: 2e-3, BF16: 1.6e-2}
"""Largest error by element type: torch.testing's defaults for 16 bits; for f32 its absolute one, which a sum of some thousand terms keeps."""

TERMS = 1000
"""Terms that the tolerances are for. A running sum carries the roundings of all elements before it, which grow as the root of their
number: in f32, NumPy's own running sum of ten million is off by 5e-5 of the result's size (measured)."""

FLIPS = 1e-3
"""The share of rounding decisions that may fall the other way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """How far results are from the reference. `worst` is the largest error in the sense of this module, `limit` what is allowed;
    `reason` says what is wrong, empty when nothing is."""

    worst: float
    limit: float
    reason: str = ""

    @property
    def right(self) -> bool:
        return not self.reason


def compare(op: Op, found: Mapping[str, NDArray[Any]], exact: Mapping[str, NDArray[Any]], *, peer: bool = False) -> Agreement:
    """Results and `inout` parameters of `op` against `evaluate_op(…, exact=True)`; `..N` results up to their length. `peer`: the
    results are another library's."""
    step = np.inf if peer else 1 if any(p.dtype.is_float for p in op.params) else 0
    worst, limit = 0.0, 0.0
    for tensor in op.tensors:
        if tensor.role == "input":
            continue
        got, want = found[tensor.name], exact[tensor.name]
        if tensor.length:
            length = int(exact[tensor.length])
            if tensor.length in found and int(found[tensor.length]) != length:
                return Agreement(worst=np.inf, limit=0, reason=f"`{tensor.name}` has {int(found[tensor.length])} elements in place of {length}")
            got, want = got[:length], want[:length]
        one = _tensor(tensor, got, want, step, _carried(op, want.shape))
        if not one.right:
            return one
        worst, limit = max(worst, one.worst), max(limit, one.limit)
    return Agreement(worst=worst, limit=limit)


def _carried(op: Op, shape: tuple[int, ...]) -> float:
    """By how much more than a sum of `TERMS` a result of this shape may be off."""
    return max(1.0, float(np.sqrt(max(shape, default=0) / TERMS))) if any(isinstance(s, Scan) for s in op.stages) else 1.0


def _tensor(tensor: Tensor, got: NDArray[Any], want: NDArray[Any], step: float, carried: float) -> Agreement:
    if got.shape != want.shape:
        return Agreement(worst=np.inf, limit=0, reason=f"`{tensor.name}` has the shape {got.shape} in place of {want.shape}")
    if not want.size:
        return Agreement(worst=0, limit=0)
    if not tensor.dtype.is_float:
        return _integers(tensor.name, got, want, step)
    limit = TOLERANCE[tensor.dtype] * carried
    x, y = got.astype(np.float64), want.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.isfinite(y)
        scale = np.sqrt(np.mean(y[finite] ** 2)) if finite.any() else 0.0
        error = np.abs(x - y) / np.maximum(np.abs(y), max(scale, np.finfo(np.float32).tiny))
        error = np.where((x == y) | (np.isnan(x) & np.isnan(y)), 0.0, np.where(np.isnan(error), np.inf, error))
    place = np.unravel_index(int(np.argmax(error)), error.shape)
    worst = float(error[place])
    if worst <= limit:
        return Agreement(worst=worst, limit=limit)
    where = f"`{tensor.name}`{list(map(int, place))}" if place else f"`{tensor.name}`"
    return Agreement(worst=worst, limit=limit, reason=f"{where} is {x[place]:.9g} in place of {y[place]:.9g}")


def _integers(name: str, got: NDArray[Any], want: NDArray[Any], step: float) -> Agreement:
    """Equal, or at few elements not further apart than `step`."""
    difference = np.abs(got.astype(np.int64) - want.astype(np.int64))
    worst, count = float(difference.max()), int(np.count_nonzero(difference))
    if count == 0 or (worst <= step and count <= max(1, FLIPS * want.size)):
        return Agreement(worst=worst, limit=step)
    place = np.unravel_index(int(np.argmax(difference)), want.shape)
    where = f"`{name}`{list(map(int, place))}" if place else f"`{name}`"
    return Agreement(worst=float(difference.max()), limit=0, reason=f"{where} is {got[place]} in place of {want[place]}; {count} of {want.size} differ")
