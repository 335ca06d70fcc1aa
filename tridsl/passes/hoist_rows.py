"""What a vector loop computes anew in every iteration of a loop around it is computed once, into a row.

    for i < 512: vector j < 512: y[i, j] = (x[i, j] - m[j]) / sqrt(v[j] + 1e-5)
    ->   alloc y.row: f32[512];  vector j.row < 512: y.row[j.row] = sqrt(v[j.row] + 1e-5)
         for i < 512: vector j < 512: y[i, j] = (x[i, j] - m[j]) / y.row[j]

A value for all lanes needs no row: compilers move it out of loops. Only what costs more than the load that replaces it moves: calls and
divisions.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import BOOL
from tridsl.ir.affine import constant
from tridsl.ir.expr import Binary, Call, Cast, Const, Expr, Load, Select, Unary, Var, index
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, If, Kernel, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.nest import stage_of, trip_bound, written
from tridsl.structs import replace

FEWEST = 4
"""Iterations from which a row pays for itself."""


def hoist_rows(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Hoists rows that fit half of the nearest cache of a device with vectors. Legal where nothing that the row is made of is written, and
    no variable that it mentions changes, in the loop that it leaves."""
    if not spec.vector_bits or spec.l1_bytes is None:
        return kernel
    hoisting = _Hoisting(kernel, spec.l1_bytes // 2)
    return replace(kernel, phases=tuple(replace(p, body=hoisting.block(p.body)) for p in kernel.phases))


class _Hoisting:
    """`names`: those of the kernel's buffers."""

    def __init__(self, kernel: Kernel, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        allocated = (n.buffer.name for p in kernel.phases for n in walk(p) if isinstance(n, Alloc))
        self.names = {*(p.name for p in kernel.params), *(b.name for b in kernel.scratch), *allocated}

    def block(self, block: Block) -> Block:
        out: list[Stmt] = []
        for statement in block:
            if isinstance(statement, If):
                out.append(replace(statement, then=self.block(statement.then), otherwise=self.block(statement.otherwise)))
            elif isinstance(statement, For) and statement.kind in ("serial", "parallel"):
                rows, loop = self._out_of(statement)
                out += (*rows, replace(loop, body=self.block(loop.body)))
            else:
                out.append(statement)
        return tuple(out)

    def _out_of(self, loop: For) -> tuple[Block, For]:
        """The rows that `loop` need not make again, and the loop without them."""
        trips = constant(loop.extent)
        rows: list[Stmt] = []
        if trips is not None and trips < FEWEST:
            return (), loop
        inside = {n.var for n in walk(loop) if isinstance(n, For)}
        changed = written(loop) | {n.buffer.name for n in walk(loop) if isinstance(n, Alloc)}
        for vector in _vectors(loop.body):
            size = trip_bound(vector)
            if size is None or variables(vector.extent) & inside:
                continue
            for value in dict.fromkeys(_costly(vector)):
                mentioned = variables(value)
                reads = {n.tensor for n in walk(value) if isinstance(n, Load)}
                bytes_ = size * value.dtype.storage_bytes
                if vector.var in mentioned and mentioned & inside == {vector.var} and not reads & changed and bytes_ <= self.most_bytes:
                    made, loop = self._row(loop, vector, value, size)
                    rows += made
        return tuple(rows), loop

    def _row(self, loop: For, vector: For, value: Expr, size: int) -> tuple[Block, For]:
        stage = stage_of(vector.var)
        name = next(n for k in count(1) if (n := f"{stage}.row{k if k > 1 else ''}") not in self.names)
        self.names.add(name)
        place = Var(name=f"{vector.var}.{name.rpartition('.')[2]}")
        buffer = Buffer(name=name, dtype=value.dtype, shape=(index(size),), space="l1", padded=(True,))
        store = Store(target=Ref(tensor=name, index=(place,)), value=substitute(value, {vector.var: place}))
        here = Load(tensor=name, index=(Var(name=vector.var),), dtype=value.dtype)

        def swapped(found: For) -> For:
            return _replaced(found, value, here) if found.var == vector.var else found

        fill = replace(vector, var=place.name, body=(store,), reduce=False, carried=False)
        return (Alloc(buffer=buffer), fill), rewrite(loop, {For: swapped})


def _vectors(block: Block) -> Iterator[For]:
    for statement in block:
        for node in walk(statement):
            if isinstance(node, For) and node.kind == "vector":
                yield node


def _costly(vector: For) -> Iterator[Expr]:
    """The largest parts of what is stored that make calls or divisions and mention the lane's own place."""
    for statement in vector.body:
        for value in (statement.value,) if isinstance(statement, Store) else statement.values if isinstance(statement, Accumulate) else ():
            yield from _parts(value, vector.var)


def _parts(value: Expr, variable: str) -> Iterator[Expr]:
    """From the whole to its parts, so that the largest that may move comes first."""
    if variable not in variables(value) or not _is_costly(value):
        return
    if value.dtype != BOOL:
        yield value
    for part in _operands(value):
        yield from _parts(part, variable)


def _is_costly(value: Expr) -> bool:
    called = isinstance(value, Call) and value.dtype != BOOL
    divided = isinstance(value, Binary) and value.op in ("div", "floordiv", "mod") and not isinstance(value.b, Const)
    return called or divided or any(_is_costly(part) for part in _operands(value))


def _operands(value: Expr) -> tuple[Expr, ...]:
    match value:
        case Binary(a=a, b=b):
            return a, b
        case Select(condition=condition, a=a, b=b):
            return condition, a, b
        case Unary(a=a) | Cast(a=a):
            return (a,)
        case Call(args=args):
            return args
    return ()


def _replaced(loop: For, value: Expr, other: Expr) -> For:
    return rewrite(loop, {type(value): lambda found: other if found == value else found})
