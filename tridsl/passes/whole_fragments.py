"""What happens to a matrix instruction's fragment as a whole: filled, stored, computed from others.

Where in a fragment an element is, the device alone knows (lanes of a subgroup, the tiles of AMX), so a nest of loops over its elements is
one operation, or is done in memory.
"""

from __future__ import annotations

from tridsl.ir.expr import Cast, Const, Expr, Load, Var
from tridsl.ir.loop import Accumulate, For, Ref, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import children, variables, walk
from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeUse:
    """`for m: for n: tensor[index] = value` over the last two axes of what it writes or of something it reads: a fragment filled
    (`value` is a constant), stored (`value` loads it), or computed from others, element by element, and from vectors (`vectors`) that
    have one element for each row or column. `mask`: only some of its elements are stored."""

    rows: str
    columns: str
    extents: tuple[int, int]
    tensor: str
    index: tuple[Expr, ...]
    value: Expr
    vectors: tuple[Load, ...] = ()
    mask: Expr | None = None
    placed: bool = False

    @property
    def matrices(self) -> tuple[Load, ...]:
        """What is read at the point of the loops."""
        names = {self.rows, self.columns}
        return tuple(n for n in walk(self.value) if isinstance(n, Load) and names <= variables(n))

    def keeps(self, name: str) -> bool:
        """Whether the nest reads or writes `name` as whole fragments."""
        written = self.index[-2:] == (Var(name=self.rows), Var(name=self.columns)) and self.mask is None if name == self.tensor else True
        used = {self.tensor, *(load.tensor for load in self.matrices)}
        return name in used and written and name not in {load.tensor for load in self.vectors}


def whole_use(loop: For, *, places: bool = False) -> WholeUse | None:
    """The use of a fragment that a nest of two loops is, if it is one. `places`: the device can be asked where an element is."""
    inner = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(inner, For) or len(inner.body) != 1 or not isinstance(inner.body[0], Store):
        return None
    store, names = inner.body[0], {loop.var, inner.var}
    value = store.value.a if isinstance(store.value, Cast) and isinstance(store.value.a, Load) else store.value
    loads = [n for n in walk(value) if isinstance(n, Load)]
    placed = not _is_elementwise(value, names)
    if any(load.mask is not None for load in loads) or (placed and not places):
        return None
    own = (Var(name=loop.var), Var(name=inner.var))

    def at_point(place: tuple[Expr, ...]) -> bool:
        return place[-2:] == own and not any(names & variables(p) for p in place[:-2])

    matrices, vectors = [], []
    for load in loads:
        mentioned = names & variables(load)
        if len(mentioned) == 2:
            matrices.append(load)
        elif mentioned:
            vectors.append(load)
    if not all(at_point(load.index) for load in matrices) or not (matrices or at_point(store.target.index)):
        return None
    if not isinstance(loop.extent, Const) or not isinstance(inner.extent, Const):
        return None
    return WholeUse(
        rows=loop.var, columns=inner.var, extents=(int(loop.extent.value), int(inner.extent.value)), tensor=store.target.tensor,
        index=store.target.index, value=value, vectors=tuple(dict.fromkeys(vectors)), mask=store.mask, placed=placed,
    )  # fmt: skip


def whole_load(loop: For) -> WholeUse | None:
    """`for m: for n: tensor[…, m, n] = memory[…]`: a fragment that is loaded."""
    inner = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(inner, For) or len(inner.body) != 1 or not isinstance(inner.body[0], Store):
        return None
    store, own = inner.body[0], (Var(name=loop.var), Var(name=inner.var))
    plain = isinstance(store.value, Load) and store.value.mask is None and store.mask is None and store.target.index[-2:] == own
    if not plain or not isinstance(loop.extent, Const) or not isinstance(inner.extent, Const):
        return None
    return WholeUse(
        rows=loop.var, columns=inner.var, extents=(int(loop.extent.value), int(inner.extent.value)), tensor=store.target.tensor,
        index=store.target.index, value=store.value,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class ReducedRows:
    """`for m: for n: for k: target[…, m, n] op= columns[…, m, k]`: what the columns of a fragment come to, in all columns of another."""

    target: Ref
    columns: Load
    extents: tuple[int, int]
    reducer: Reducer


def reduced_rows(loop: For) -> ReducedRows | None:
    """The reduction of a fragment's columns that a nest of three loops is, if it is one."""
    nest: list[For] = [loop]
    while len(nest[-1].body) == 1 and isinstance(inner := nest[-1].body[0], For):
        nest.append(inner)
    statement = nest[-1].body[0] if len(nest[-1].body) == 1 else None
    if len(nest) != 3 or not isinstance(statement, Accumulate) or len(statement.targets) != 1 or statement.mask is not None or statement.init:
        return None
    (target,), (value,), (m, n, k) = statement.targets, statement.values, (Var(name=l.var) for l in nest)
    extents = [int(l.extent.value) for l in nest if isinstance(l.extent, Const)]
    if not isinstance(value, Load) or len(extents) < 3 or extents[1] != extents[2] or value.index[-2:] != (m, k) or target.index[-2:] != (m, n):
        return None
    return ReducedRows(target=target, columns=value, extents=(extents[0], extents[1]), reducer=statement.reducer)


def _is_elementwise(value: Expr, names: set[str]) -> bool:
    """Whether the loops' variables only say which elements are read: where in the matrix an element of a fragment is, no lane knows."""
    if isinstance(value, Load):
        return True
    if isinstance(value, Var):
        return value.name not in names
    return all(_is_elementwise(part, names) for part in children(value) if isinstance(part, Expr))
