"""Boundary modes become index maps and masks.

    x[i - 1; pad=edge]      ->  x[max(0, min(i - 1, N - 1))]
    x[i - 1; pad=0]         ->  x[i - 1] if 0 <= i - 1 and i - 1 < N else 0
    T[ids[n], d] (raise)    ->  check 0 <= ids[n] and ids[n] < V; T[ids[n], d] if … else 0

Later `partition_loops` and `simplify` take the maps away again wherever the loops' ranges prove the index inside.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tridsl.dtypes import DType
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Boundary, Cast, Const, Expr, Load, Select, binary, both, index, mul, sub
from tridsl.ir.loop import Accumulate, Append, Check, Copy, If, Kernel, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, walk
from tridsl.structs import replace

Shape = tuple[Expr, ...]


def boundaries(kernel: Kernel) -> Kernel:
    """Removes every `Load.boundary`. Messages of `raise` boundaries are appended to `Kernel.messages`."""
    if not any(isinstance(n, Boundary) for phase in kernel.phases for n in walk(phase)):
        return kernel
    shapes: dict[str, Shape] = {p.name: p.shape for p in kernel.params if isinstance(p, Tensor)}
    shapes |= {b.name: b.shape for b in kernel.scratch}
    messages = list(kernel.messages)

    def number(message: str) -> int:
        if message not in messages:
            messages.append(message)
        return messages.index(message)

    def statement(node: Store | Accumulate | Append | Copy | If) -> Any:
        checks: list[Check] = []

        def load(access: Load) -> Expr:
            if access.boundary is None:
                return access
            shape = shapes[access.tensor]
            if access.boundary.extent is not None:
                shape = (access.boundary.extent, *shape[1:])
            if access.boundary.mode == "raise":
                inside = _inside(access, shape)
                text = f"an index into `{access.tensor}` lies outside its shape"
                if inside is not None:
                    checks.append(Check(condition=inside, number=number(text), span=access.span))
                return replace(access, boundary=None, mask=inside, other=_zero(access.dtype))
            return _MODES[access.boundary.mode](access, shape)

        new = rewrite(node, {Load: load})
        return (*checks, new) if checks else new

    def condition(node: If) -> Any:
        new = statement(If(condition=node.condition, then=()))
        checks, test = (new[:-1], new[-1]) if isinstance(new, tuple) else ((), new)
        return (*checks, replace(node, condition=test.condition)) if test.condition is not node.condition else node

    phases = rewrite(kernel.phases, {Store: statement, Accumulate: statement, Append: statement, Copy: statement, If: condition})
    return replace(kernel, phases=phases, messages=tuple(messages))


def _zero(dtype: DType) -> Const:
    return Const(value=0.0 if dtype.is_float else (False if dtype.kind == "bool" else 0), dtype=dtype)


def _inside(access: Load, shape: Shape) -> Expr | None:
    condition: Expr | None = None
    for position, extent in zip(access.index, shape):
        condition = both(condition, binary("ge", position, index(0)))
        condition = both(condition, binary("lt", position, extent))
    return condition


def _value(access: Load, shape: Shape) -> Expr:
    assert access.boundary is not None
    other = access.boundary.value
    mask = _inside(access, shape)
    if other is None or other.dtype == access.dtype:
        return replace(access, boundary=None, mask=mask, other=other or _zero(access.dtype))
    narrow = Cast(a=other, dtype=access.dtype)
    return replace(access, boundary=None, mask=mask, other=narrow)


def _mapped(map_axis: Callable[[Expr, Expr], Expr]) -> Callable[[Load, Shape], Expr]:
    def apply(access: Load, shape: Shape) -> Expr:
        mapped = tuple(simplify_index(map_axis(i, n)) for i, n in zip(access.index, shape))
        if access.boundary is None or access.boundary.extent is None:
            return replace(access, boundary=None, index=mapped)
        some = binary("ge", access.boundary.extent, index(1))  # a check of the op reports the length 0
        return replace(access, boundary=None, index=mapped, mask=some, other=_zero(access.dtype))

    return apply


def _edge(i: Expr, n: Expr) -> Expr:
    return binary("max", binary("min", i, sub(n, index(1))), index(0))


def _reflect(i: Expr, n: Expr) -> Expr:
    """NumPy's `reflect`: the edge is not repeated; period 2(n-1). A single element answers for every index."""
    period = mul(index(2), sub(n, index(1)))
    folded = binary("mod", i, period)
    return _select(binary("lt", folded, n), folded, sub(period, folded))


def _symmetric(i: Expr, n: Expr) -> Expr:
    """NumPy's `symmetric`: the edge is repeated; period 2n."""
    folded = binary("mod", i, mul(index(2), n))
    return _select(binary("lt", folded, n), folded, sub(sub(mul(index(2), n), index(1)), folded))


def _wrap(i: Expr, n: Expr) -> Expr:
    return binary("mod", i, n)


def _select(condition: Expr, a: Expr, b: Expr) -> Expr:
    if isinstance(condition, Const):
        return a if condition.value else b
    return Select(condition=condition, a=a, b=b, dtype=a.dtype)


_MODES: dict[str, Callable[[Load, Shape], Expr]] = {
    "value": _value,
    "edge": _mapped(_edge),
    "reflect": _mapped(_reflect),
    "symmetric": _mapped(_symmetric),
    "wrap": _mapped(_wrap),
}
