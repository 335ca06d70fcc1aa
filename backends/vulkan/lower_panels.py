"""`panels`: what a workgroup stages in shared memory lies there as it lies in global memory.

    copy A[i.o*128 + i.c*64 + i.l*4 + i.v, k.o*16 + k] → A.s[i.l, k, i.c, i.v]               (alloc A.s: f32[16, 16, 2, 4])
→   copy A[i.o*128 + i, k.o*16 + k]                    → A.s[i, k]                           (alloc A.s: f32[128, 16])

Neighbours in global memory are then neighbours in the panel too: lanes copy 16 bytes at a time, and read so. Padding of the last
axis (`A.store(shared, at=k.o, pad=8)`) stays padding of the last axis. A panel that is to lie the other way round (`turned`), whose index is the
copy's axes backwards, gets the same axes, the last one first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any, TypeVar

from tridsl.backends.vulkan.contiguous import Strides, offset_of, plain_tensors
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import BOOL, INDEX, DType
from tridsl.ir.affine import normal_form, simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, add, binary, index, mul
from tridsl.ir.loop import Alloc, Copy, CopyAxis, Kernel, Phase, Ref
from tridsl.ir.walk import rewrite, substitute, variables, walk


def panels(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every shared buffer that one cooperative copy fills, in the order of its source."""
    tensors = plain_tensors(kernel)

    def turned(phase: Phase) -> Phase:
        fills: dict[str, list[Copy]] = {}
        for node in walk(phase.body):
            if isinstance(node, Copy) and node.cooperative:
                fills.setdefault(node.target.tensor, []).append(node)
        orders: dict[str, _Order] = {}
        shapes = {n.buffer.name: n.buffer.shape for n in walk(phase.body) if isinstance(n, Alloc)}
        for name, copies in fills.items():
            order = _order(copies[0], tensors, shapes[name]) if len(copies) == 1 and name in shapes else None
            if order is not None:
                orders[name] = order
        return replace(phase, body=rewrite(phase.body, _rules(orders))) if orders else phase

    return replace(kernel, phases=tuple(turned(phase) for phase in kernel.phases))


T = TypeVar("T")

OUTERMOST = 1 << 62
"""The step of an axis that has one point."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """Axes of the source, outermost first, each made of the old axes at `parts` (outer before inner); `extents` are of the old axes,
    without padding. `turned`: those of the panel are the same backwards."""

    parts: tuple[tuple[int, ...], ...]
    extents: tuple[int, ...]
    turned: bool = False

    def size(self, parts: Sequence[int]) -> int:
        return prod(self.extents[axis] for axis in parts)

    def place(self, items: Sequence[Expr]) -> tuple[Expr, ...]:
        """Where the point `items` of the old panel lies in the new one."""
        items = self.forth(items)
        out = []
        for parts in self.parts:
            position: Expr = index(0)
            for axis in parts:
                position = add(mul(position, index(self.extents[axis])), items[axis])
            out.append(position)
        return tuple(self.forth(out))

    def forth(self, axes: Sequence[T]) -> Sequence[T]:
        """Axes of the panel in the order of the source's, or those in the panel's."""
        return axes[::-1] if self.turned else axes


def is_turned(copy: Copy) -> bool:
    """Whether a panel lies the other way round than what it is filled from."""
    own = tuple(Var(name=a.var) for a in copy.axes)
    return copy.target.index == own[::-1] != own


def _order(copy: Copy, tensors: Mapping[str, tuple[DType, Strides]], shape: tuple[Expr, ...]) -> _Order | None:
    own = tuple(Var(name=a.var) for a in copy.axes)
    turned = is_turned(copy)
    if copy.source.tensor not in tensors or not (turned or copy.target.index == own) or not own:
        return None
    _, strides = tensors[copy.source.tensor]
    single = {a.var: index(0) for a in copy.axes if a.extent == index(1)}
    source = tuple(simplify_index(substitute(place, single)) for place in copy.source.index)
    polynomial = normal_form(offset_of(source, strides))
    steps = [OUTERMOST if axis.var in single else polynomial.coefficient(axis.var) or 0 for axis in copy.axes]
    extents = [int(a.extent.value) if isinstance(a.extent, Const) and a.bound in (None, a.extent.value) else 0 for a in copy.axes]
    if not all(steps) or not all(extents):
        return None
    rows = copy.axes[0 if turned else -1].extent != shape[-1]  # with room behind each, they stay rows
    places = [tuple(n for n, place in enumerate(copy.source.index) if a.var in variables(place)) for a in copy.axes]
    parts: list[tuple[int, ...]] = []
    for axis in sorted(range(len(steps)), key=lambda n: -steps[n]):
        neighbours = parts and steps[parts[-1][-1]] == steps[axis] * extents[axis]
        alone = parts and all(extents[part] == 1 for part in parts[-1])
        if alone or (neighbours and not (rows and places[parts[-1][-1]] != places[axis])):
            parts[-1] = (*parts[-1], axis)
        else:
            parts.append((axis,))
    return _Order(parts=tuple(parts), extents=tuple(extents), turned=turned)


def _rules(orders: Mapping[str, _Order]) -> dict[type, Callable[[Any], Any]]:
    def alloc(node: Alloc) -> Alloc:
        order = orders.get(node.buffer.name)
        if order is None:
            return node
        last = node.buffer.shape[-1]
        padding = int(last.value) - order.extents[0 if order.turned else -1] if isinstance(last, Const) else 0
        shape = [order.size(parts) for parts in order.forth(order.parts)]
        shape[-1] += padding
        sizes = tuple(index(size) for size in shape)
        return replace(node, buffer=replace(node.buffer, shape=sizes, padded=(False,) * len(sizes)))

    def access(node: Load | Ref) -> Load | Ref:
        order = orders.get(node.tensor)
        return replace(node, index=order.place(node.index)) if order is not None else node

    def copy(node: Copy) -> Copy:
        order = orders.get(node.target.tensor)
        return _recounted(node, order) if order is not None else node

    return {Alloc: alloc, Load: access, Ref: access, Copy: copy}


def _recounted(copy: Copy, order: _Order) -> Copy:
    """With one axis for every axis of the panel."""
    axes, places, values = [], [], {}
    for parts in order.parts:
        variable = ".".join(copy.axes[axis].var for axis in parts)
        axes.append(CopyAxis(var=variable, extent=index(order.size(parts))))
        left: Expr = Var(name=variable)
        places.append(left)
        for position in range(len(parts) - 1, -1, -1):
            axis, extent = parts[position], index(order.extents[parts[position]])
            values[copy.axes[axis].var] = binary("mod", left, extent) if position else left
            left = binary("floordiv", left, extent)
    mask = None if copy.source.mask is None else _restated(substitute(copy.source.mask, values))
    source = replace(copy.source, index=tuple(simplify_index(substitute(place, values)) for place in copy.source.index), mask=mask)
    return replace(copy, axes=tuple(axes), target=replace(copy.target, index=tuple(order.forth(places))), source=source)


def _restated(condition: Expr) -> Expr:
    """The condition with plain indices on both sides of its comparisons."""

    def side(node: Binary) -> Binary:
        return replace(node, a=simplify_index(node.a), b=simplify_index(node.b)) if node.a.dtype == INDEX and node.dtype == BOOL else node

    return rewrite(condition, {Binary: side})
