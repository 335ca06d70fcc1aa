"""Results of a length that is known when the cores are done: each tile brings its elements packed, with their count in front, and the host puts
them together (`schedule.heaps`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.design import ArrayDesign, Gather
from tridsl.dtypes import BF16, DTYPES, NUMPY_TYPES
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Cast, Const, Expr, Load
from tridsl.ir.loop import Append, Kernel, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import walk
from tridsl.schedule.heaps import BASE


def gathers_of(kernel: Kernel) -> tuple[Gather, ...] | None:
    """What the kernel's second phase puts together; None where it does anything else."""
    if len(kernel.phases) != 2:
        return None
    heaps = {b.name for b in kernel.scratch}
    lengths = {p.name: p.length for p in kernel.params if isinstance(p, Tensor) and p.length}
    appends = [n for n in walk(kernel.phases[1]) if isinstance(n, Append)]
    stores = [n for n in walk(kernel.phases[1]) if isinstance(n, Store)]
    if len(appends) != 1 or any(s.target.tensor not in lengths.values() for s in stores):
        return None
    (append,) = appends
    if not isinstance(append.keep, Const) or not append.keep.value or append.limit is not None:
        return None
    found = []
    for name, value in zip(append.tensors, append.values):
        load = _plain(value)
        length = lengths.get(name)
        if load is None or load.tensor not in heaps or len(load.index) != 2 or length is None:
            return None
        found.append(Gather(result=name, packed=load.tensor, dtype=str(load.dtype), header=normal_form(load.index[1]).constant, length=length))
    return tuple(found)


def _plain(value: Expr) -> Load | None:
    while isinstance(value, Cast):
        value = value.a
    return value if isinstance(value, Load) else None


def gathered(design: ArrayDesign, laid: Mapping[str, NDArray[Any]]) -> Iterator[tuple[Gather, NDArray[Any]]]:
    """The elements of each such result, in order. `laid`: what the array wrote."""
    tensors = {t.name: t for t in design.tensors}
    for gather in design.gathers:
        tensor = tensors[gather.packed]
        parts = laid[gather.packed].reshape(tensor.shape)[: tensor.given[0], : tensor.given[1]]
        kind = ml_dtypes.bfloat16 if DTYPES[gather.dtype] == BF16 else NUMPY_TYPES[DTYPES[gather.dtype]]
        values = parts.view(kind)
        counts = values[:, 0].astype(np.int64) * BASE + values[:, 1].astype(np.int64)
        payload = values[:, gather.header :]
        yield gather, payload[np.arange(payload.shape[1]) < counts[:, None]]
