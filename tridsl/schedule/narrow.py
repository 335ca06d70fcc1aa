"""`C.sum.store(l1, type=i8)`: sums kept between two rounds of a reduction in the type that their readers convert them to."""

from __future__ import annotations

from tridsl.diagnostics import error
from tridsl.dtypes import DType
from tridsl.ir.expr import Cast, Expr, Load
from tridsl.ir.loop import Accumulate, Alloc, Buffer, Kernel, Ref, Store
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.steps import StoreIn
from tridsl.structs import replace


def narrow(kernel: Kernel, buffers: tuple[Buffer, ...], step: StoreIn) -> Kernel:
    """
    before:  alloc sum: i32[64, 64]                              after:  alloc sum: i8[64, 64]
             sum[i, j] += i32(A[i, k]) * i32(B[k, j])  by mmul           the same, modulo 256
             C[i, j] = i8(sum[i, j])                                     C[i, j] = i8(i32(sum[i, j]))

    Sums of integers wrap, so what is cut off early is what would be cut off late: the result is the same. Sums of floats are rounded to the type
    each time that a tile of them goes back to memory, which a schedule may ask for and the automatic ones do not by themselves.

    E0467: the stage is no sum by a matrix instruction, or somebody reads more of it than the type holds.
    """
    dtype = step.type
    names = {b.name for b in buffers}
    old = buffers[0].dtype if buffers else None
    sums = [n for p in kernel.phases for n in walk(p) if isinstance(n, Accumulate) and any(t.tensor in names for t in n.targets)]
    written = [n for p in kernel.phases for n in walk(p) if isinstance(n, Ref) and n.tensor in names]
    instructed = bool(sums) and len(written) == len(sums) and all(s.intrinsic and s.reducer.op == "add" for s in sums)
    if dtype is None or old is None or not instructed or not _converted(kernel, names, dtype, old):
        raise error(
            "E0467", f"`{step.stage}`{f' of {old}' if old else ''} cannot be kept as {step.type}", step.span,
            help="name the type that the stage's only reader converts it to, behind `.intrin(…)` of a sum of products",
        )  # fmt: skip

    def allocated(node: Alloc) -> Alloc:
        return replace(node, buffer=replace(node.buffer, dtype=dtype)) if node.buffer in buffers else node

    def loaded(node: Load) -> Expr:
        return Cast(a=replace(node, dtype=dtype), dtype=old) if node.tensor in names else node

    return replace(kernel, phases=rewrite(kernel.phases, {Alloc: allocated, Load: loaded}))


def _converted(kernel: Kernel, names: set[str], dtype: DType, old: DType) -> bool:
    """Whether every read becomes, by a conversion or by being stored, an element of a type that `dtype` has all values of."""
    if dtype.is_float != old.is_float or dtype.storage_bytes >= old.storage_bytes:
        return False
    types = {b.name: b.dtype for b in kernel.scratch} | {p.name: p.dtype for p in kernel.params}
    types |= {n.buffer.name: n.buffer.dtype for p in kernel.phases for n in walk(p) if isinstance(n, Alloc)}
    nodes = [n for p in kernel.phases for n in walk(p)]
    loads = [n for n in nodes if isinstance(n, Load) and n.tensor in names]
    converted = sum(isinstance(n, Cast) and _is(n.a, names) and _within(n.dtype, dtype) for n in nodes)
    converted += sum(isinstance(n, Store) and _is(n.value, names) and _within(types[n.target.tensor], dtype) for n in nodes)
    return bool(loads) and len(loads) == converted and all(n.mask is None for n in loads)


def _is(value: Expr, names: set[str]) -> bool:
    return isinstance(value, Load) and value.tensor in names


def _within(dtype: DType, kept: DType) -> bool:
    return dtype.is_float == kept.is_float and dtype.storage_bytes <= kept.storage_bytes
