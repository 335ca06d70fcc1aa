"""`tridsl.buffer`: memory that devices share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tridsl.api.arguments import as_dtype
from tridsl.buffer import HINTS, Buffer, Hint
from tridsl.diagnostics import error
from tridsl.runtime.memory import allocate


def buffer(shape: int | Sequence[int], dtype: Any, *, hint: Hint = "balanced") -> Buffer:
    """A buffer of zeros: `tridsl.buffer((4096, 4096), "f32", hint="prefer_gpu")`. `np.asarray(buffer)` is a view of it.

    `dtype` is a name (`"f32"`, `"bf16"`) or a NumPy type. Raises E0533 for another type, E0540 for an unknown hint, E0601 and
    E0602 for sizes that cannot be had.
    """
    element = as_dtype(dtype)
    if element is None:
        raise error("E0533", f"{dtype!r} is not an element type", help='write a name such as "f32" or a NumPy type')
    if hint not in HINTS:
        raise error("E0540", f"there is no hint {hint!r}", help=f"hints: {', '.join(HINTS)}")
    extents = (shape,) if isinstance(shape, int) else tuple(int(extent) for extent in shape)
    memory = allocate("buffer", extents, element, whole_pages=True)
    memory.fill(0)
    return Buffer(dtype=element, shape=extents, array=memory, hint=hint)
