"""`fragments`: what only matrix instructions work on lies where they want it.

    alloc acc: f32[4, 4, 16, 16] in l1                        alloc acc: f32[4, 4, 16, 16] in fragment
    for m < 16: for n < 16: acc[i, j, m, n] = 0
    mma coopmat_16x16x16 acc[i, j, m, n] += A.s[…] * B.s[…]
    for m < 16: for n < 16: C[…] = acc[i, j, m, n]

A fragment is spread over the lanes of a subgroup in an order that the device alone knows, so it is made, used and stored whole.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from tridsl.devices.intrinsics import INTRINSICS
from tridsl.devices.spec import DeviceSpec
from tridsl.ir.expr import Cast, Const, Expr, Load, Var
from tridsl.ir.loop import Alloc, Block, For, If, Kernel, Mma, Ref, Store
from tridsl.ir.walk import children, rewrite, variables, walk


def fragments(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Accumulators of matrix instructions that the device has, inside its subgroups."""
    phases = []
    for phase in kernel.phases:
        inside = [loop for loop in walk(phase.body) if isinstance(loop, For) and loop.kind == "subgroup"]
        used = {n.target.tensor for loop in inside for n in walk(loop) if isinstance(n, Mma) and _has(n, spec)}
        whole = {name for name in used if _is_whole(phase.body, name)}
        phases.append(replace(phase, body=rewrite(phase.body, {Alloc: partial(_moved, whole)})) if whole else phase)
    return replace(kernel, phases=tuple(phases))


def _moved(names: set[str], alloc: Alloc) -> Alloc:
    return replace(alloc, buffer=replace(alloc.buffer, space="fragment")) if alloc.buffer.name in names else alloc


def _has(mma: Mma, spec: DeviceSpec) -> bool:
    row = INTRINSICS[mma.intrinsic]
    return row.is_matrix and row.feature in spec.features


def _is_whole(block: Block, name: str) -> bool:
    """Whether every use of `name` is an instruction's, or one of `whole_use`."""
    for statement in block:
        match statement:
            case For():
                use = whole_use(statement)
                if use is not None and use.keeps(name):
                    continue
                if name in {n.tensor for n in walk(statement.extent) if isinstance(n, Load)} or not _is_whole(statement.body, name):
                    return False
            case If(condition=condition, then=then, otherwise=otherwise):
                if any(isinstance(n, Load) and n.tensor == name for n in walk(condition)):
                    return False
                if not (_is_whole(then, name) and _is_whole(otherwise, name)):
                    return False
            case Mma(a=a, b=b):
                if not all(isinstance(operand, Load) and operand.tensor != name for operand in (a, b)):
                    return False
            case _:
                if any(isinstance(n, Load | Ref) and n.tensor == name for n in walk(statement)):
                    return False
    return True


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


def whole_use(loop: For) -> WholeUse | None:
    """The use of a fragment that a nest of two loops is, if it is one."""
    inner = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(inner, For) or len(inner.body) != 1 or not isinstance(inner.body[0], Store):
        return None
    store, names = inner.body[0], {loop.var, inner.var}
    value = store.value.a if isinstance(store.value, Cast) and isinstance(store.value.a, Load) else store.value
    loads = [n for n in walk(value) if isinstance(n, Load)]
    if any(load.mask is not None for load in loads) or not _is_elementwise(value, names):
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
        index=store.target.index, value=value, vectors=tuple(dict.fromkeys(vectors)), mask=store.mask,
    )  # fmt: skip


def _is_elementwise(value: Expr, names: set[str]) -> bool:
    """Whether the loops' variables only say which elements are read: where in the matrix an element of a fragment is, no lane knows."""
    if isinstance(value, Load):
        return True
    if isinstance(value, Var):
        return value.name not in names
    return all(_is_elementwise(part, names) for part in children(value) if isinstance(part, Expr))
