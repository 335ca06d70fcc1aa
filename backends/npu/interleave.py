"""Loops whose neighbours in memory come from two registers in turn: codes of packed bytes, of which each byte holds several.

    for r < 16: for h < 2: vector kk < 4: y[r, 4*h + kk] = code h of b[r, kk]

Both values are made for all of (r, kk), which lie side by side; then groups of four of the one and the other take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import numpy as np
from numpy.typing import NDArray

from tridsl.backends.npu.emit_places import Frame, Lanes, address, cannot, is_aligned, pointer
from tridsl.backends.npu.emit_values import stored, value
from tridsl.dtypes import BOOL, INDEX
from tridsl.ir.affine import Interval, fold_ranges, normal_form, simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, index
from tridsl.ir.loop import For, Store
from tridsl.ir.walk import rewrite, substitute, variables
from tridsl.schedule.nest import loop_ranges
from tridsl.structs import dataclass, replace

PAIR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Interleaved:
    """`around` and `inner` are the lanes of a register, `pair` decides which of two; `store` is what the loops do."""

    around: tuple[For, ...]
    pair: For
    inner: For
    store: Store

    @property
    def group(self) -> int:
        """Elements of the one before those of the other."""
        return _count(self.inner)

    @property
    def lanes(self) -> int:
        return prod(map(_count, (*self.around, self.inner)))


def _count(loop: For) -> int:
    assert isinstance(loop.extent, Const)
    return int(loop.extent.value)


def interleaved_in(loop: For) -> Interleaved | None:
    """The nest that begins with `loop`; None where it is no such nest."""
    nest = [loop]
    while len(nest[-1].body) == 1 and isinstance(nest[-1].body[0], For):
        nest.append(nest[-1].body[0])
    (store, *rest) = nest[-1].body
    if rest or len(nest) < 3 or not isinstance(store, Store) or store.mask is not None or nest[-1].kind != "vector":
        return None
    *around, pair, inner = nest
    if pair.extent != index(PAIR) or pair.var not in variables(store.value) or any(l.reduce or l.carried or not isinstance(l.extent, Const) for l in nest):
        return None
    return Interleaved(around=tuple(around), pair=pair, inner=inner, store=store)


def interleave(frame: Frame, loop: For) -> bool:
    """The nest in vectors, where it fills two; False where it is none or fills others."""
    found = interleaved_in(loop)
    if found is None or found.lanes != frame.lanes or frame.places[found.store.target.tensor].kind != "memory":
        return False
    place = frame.places[found.store.target.tensor]
    lanes = Lanes(variables=tuple((l.var, _count(l)) for l in (*found.around, found.inner)), active=frame.lanes)
    names = [f"of_{len(frame.lines)}_{n}" for n in range(PAIR)]
    for n, name in enumerate(names):
        own = _decided(substitute(found.store.value, {found.pair.var: index(n)}), loop_ranges((*found.around, found.inner)))
        frame.line(f"const auto {name} = {stored(frame, value(frame, own, lanes), place.dtype)};")
    zipped = f"zipped_{len(frame.lines)}"
    frame.line(f"const auto {zipped} = aie::interleave_zip({names[0]}, {names[1]}, {found.group});")
    target = simplify_index(address(place, found.store.target.index))
    apart = _addresses(target, found)
    first = substitute(target, {l.var: index(0) for l in (*found.around, found.pair, found.inner)})
    for half, name in zip(np.split(apart, PAIR), ("first", "second")):
        if not np.array_equal(half, half[0] + np.arange(half.size)):
            raise cannot("vectors whose elements do not lie side by side", found.store)
        at = simplify_index(Binary(op="add", a=first, b=index(int(half[0])), dtype=INDEX))
        function = "store_v" if is_aligned(frame, place, at) else "store_unaligned_v"
        frame.line(f"aie::{function}({pointer(place, at)}, {zipped}.{name});")
    return True


def _addresses(target: Expr, found: Interleaved) -> NDArray[np.int64]:
    """Of every point of the nest, in its order, from the first."""
    poly = normal_form(target)
    apart = np.zeros(1, np.int64)
    for loop in (*found.around, found.pair, found.inner):
        factor = poly.coefficient(loop.var)
        if factor is None:
            raise cannot("vectors whose elements do not lie side by side", found.store)
        apart = (apart[:, None] + np.arange(_count(loop)) * factor).reshape(-1)
    return apart


def _decided(expression: Expr, ranges: Mapping[str, Interval]) -> Expr:
    """With what constants decide decided: which bytes are read, by how much codes are shifted, and which of several they are."""

    def place(i: Expr) -> Expr:
        return simplify_index(fold_ranges(simplify_index(i), ranges))

    def number(cast: Cast) -> Expr:
        found = place(cast.a) if cast.a.dtype == INDEX else cast.a
        return Const(value=found.value, dtype=cast.dtype) if isinstance(found, Const) else replace(cast, a=found)

    def compared(node: Binary) -> Expr:
        if node.op != "eq" or node.a.dtype != INDEX:
            return node
        apart = normal_form(place(Binary(op="sub", a=node.a, b=node.b, dtype=INDEX)))
        return node if apart.terms else Const(value=apart.constant == 0, dtype=BOOL)

    def chosen(node: Select) -> Expr:
        return (node.a if node.condition.value else node.b) if isinstance(node.condition, Const) else node

    def read(load: Load) -> Load:
        return replace(load, index=tuple(map(place, load.index)))

    return rewrite(expression, {Load: read, Cast: number, Binary: compared, Select: chosen})
