"""`gray.store(l1, type=i16)`: an integer stage kept in the type that its readers compute in, so that they need not widen it."""

from __future__ import annotations

from tridsl.diagnostics import error
from tridsl.dtypes import DType, compute_type
from tridsl.ir.expr import Cast, Expr, Load
from tridsl.ir.loop import Accumulate, Alloc, Append, Buffer, Copy, Kernel, Mma, Store
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.steps import StoreIn
from tridsl.structs import replace


def widen(kernel: Kernel, buffers: tuple[Buffer, ...], step: StoreIn) -> Kernel:
    """
    before:  alloc gray: u8[4, W]                              after:  alloc gray: i16[4, W]
             gray[r, x] = v;  … i16(gray[r, x]) …                      gray[r, x] = i16(v);  … gray[r, x] …

    E0425: the new type is no integer type that holds every value of the old one, or the stage is more than plain stores and loads.
    """
    dtype = step.type
    names = {b.name for b in buffers}
    old = buffers[0].dtype if buffers else None
    if dtype is None or old is None or not _holds(dtype, old) or any(_handled_whole(n, names) for p in kernel.phases for n in walk(p)):
        raise error(
            "E0425", f"`{step.stage}`{f' of {old}' if old else ''} cannot be kept as {step.type}", step.span,
            help="name an integer type that holds all values of the stage's type, for a stage that is computed point by point in its reader's loops",
        )  # fmt: skip

    def allocated(node: Alloc) -> Alloc:
        return replace(node, buffer=replace(node.buffer, dtype=dtype)) if node.buffer in buffers else node

    def stored(node: Store) -> Store:
        return replace(node, value=Cast(a=node.value, dtype=dtype)) if node.target.tensor in names else node

    def loaded(node: Load) -> Expr:
        if node.tensor not in names:
            return node
        other = None if node.other is None else Cast(a=node.other, dtype=dtype)
        return Cast(a=replace(node, dtype=dtype, other=other), dtype=old)

    def cast(node: Cast) -> Expr:
        """Every value has been one of the old type: narrowing to it and widening again changes nothing."""
        inner = node.a
        if isinstance(inner, Cast) and isinstance(inner.a, Load) and inner.a.tensor in names and _holds(node.dtype, old):
            return inner.a if inner.a.dtype == node.dtype else Cast(a=inner.a, dtype=node.dtype)
        return node

    return replace(kernel, phases=rewrite(kernel.phases, {Alloc: allocated, Store: stored, Load: loaded, Cast: cast}))


def _holds(wide: DType, narrow: DType) -> bool:
    """Whether both are integers of ordinary width and `wide` has every value of `narrow`."""
    if not (wide.is_integer and narrow.is_integer) or compute_type(wide) != wide or compute_type(narrow) != narrow:
        return False
    assert wide.low is not None and wide.high is not None and narrow.low is not None and narrow.high is not None
    return wide.low <= narrow.low and narrow.high <= wide.high


def _handled_whole(node: object, names: set[str]) -> bool:
    match node:
        case Accumulate(targets=targets):
            return any(t.tensor in names for t in targets)
        case Append(tensors=tensors):
            return bool(names & set(tensors))
        case Copy(target=target, source=source):
            return target.tensor in names or source.tensor in names
        case Mma(target=target, a=a, b=b):
            return bool(names & {target.tensor, *(n.tensor for n in (*walk(a), *walk(b)) if isinstance(n, Load))})
    return False
