"""The axes of a tensor as they lie in memory: row-major ones in their own order, a transposed view's the other way round."""

from __future__ import annotations

from tridsl.ir.affine import constant
from tridsl.ir.op import Tensor


def memory_order(tensor: Tensor) -> tuple[int, ...]:
    """Axis numbers, the longest step first. Axes along which nothing moves (a broadcast view's) come before all others; where a step is
    not known the axes keep their order."""
    steps = [None if s is None else constant(s) for s in tensor.strides or ()]
    if not steps or None in steps:
        return tuple(range(len(tensor.shape)))
    known = [abs(s) for s in steps if s is not None]
    return tuple(sorted(range(len(known)), key=lambda axis: (known[axis] != 0, -known[axis])))


def contiguous_axis(tensor: Tensor) -> int | None:
    """The axis along which elements lie side by side."""
    if tensor.strides is None:
        return len(tensor.shape) - 1 if tensor.shape else None
    steps = [constant(s) for s in tensor.strides]
    return next((axis for axis in reversed(range(len(steps))) if steps[axis] == 1), None)
