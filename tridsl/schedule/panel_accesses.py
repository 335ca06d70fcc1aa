"""What the loops of a schedule that is staged touch, and what that says about the panels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tridsl.ir.affine import Interval, fold_ranges, interval, normal_form, simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Var, binary, both, index
from tridsl.ir.loop import Accumulate, Alloc, Append, Block, Copy, For, If, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.frames import conjuncts, is_inside
from tridsl.schedule.nest import trip_bound
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True)
class Access:
    place: tuple[Expr, ...]
    around: tuple[For, ...]
    writes: bool
    statement: Stmt


def accesses_of(block: Block, around: tuple[For, ...] = ()) -> Iterator[tuple[str, Access]]:
    for statement in block:
        if isinstance(statement, For):
            yield from accesses_of(statement.body, (*around, statement))
            continue
        if isinstance(statement, Copy):  # staged already, by `lines`
            continue
        if isinstance(statement, If):
            yield from accesses_of((*statement.then, *statement.otherwise), around)
        searched = statement.condition if isinstance(statement, If) else statement
        for node in walk(searched):
            if isinstance(node, Load):
                yield node.tensor, Access(node.index, around, False, statement)
            elif isinstance(node, Ref):
                yield node.tensor, Access(node.index, around, True, statement)


def is_fused(access: Access) -> bool:
    """Whether a vector walks the rows of a tensor as one: `y[n // 16, n % 16]`."""
    lanes = {loop.var for loop in access.around if loop.kind == "vector"}
    parts = [{(n.op, n.a, n.b) for n in walk(i) if isinstance(n, Binary) and lanes & variables(n.a)} for i in access.place]
    return any(("mod", a, b) in column for row, column in pairwise(parts) for op, a, b in row if op == "floordiv")


def is_chosen(place: Expr) -> bool:
    """Whether an element of a tensor says where the place is."""
    return any(isinstance(n, Load) and n.index for n in walk(place))


def unfilled(load: Load, shape: tuple[int, ...]) -> Expr | None:
    """What is left of the condition of an access to a panel, which is 0 outside of its tensor as the access is there. (Where an element chooses the
    place, there is nothing outside.)"""
    if load.mask is None or len(shape) != len(load.index):
        return load.mask
    value = load.other
    while isinstance(value, Cast):
        value = value.a
    nothing = value is None or (isinstance(value, Const) and not value.value)
    if not nothing or not all(is_inside(c, load, shape) for c in conjuncts(load.mask)):
        return load.mask
    left: Expr | None = None
    for condition in conjuncts(load.mask):
        left = both(left, condition) if is_chosen(condition) else left
    return left


def vectors_last(accesses: Sequence[Access]) -> tuple[int, ...]:
    """The order of a tensor's axes in which the one that a vector loop walks comes last; nothing where that is so, or it walks several."""
    along: set[int] = set()
    for access in accesses:
        lanes = [loop.var for loop in access.around if loop.kind == "vector"]
        along |= {d for d, i in enumerate(access.place) for v in lanes if normal_form(i).coefficient(v) != 0}
    rank = len(accesses[0].place)
    if len(along) != 1 or rank - 1 in along:
        return ()
    (last,) = along
    return (*(d for d in range(rank) if d != last), last)


def overrun(accesses: Sequence[Access], ends: Sequence[int], axis: int, unit: int) -> int:
    """Elements behind the last that is needed (`ends`: by each access), up to which whole vectors reach, of at most `unit` lanes: those that begin
    inside a row, and those of every second or fourth element."""
    most = max(ends)
    for access, end in zip(accesses, ends):
        for loop in access.around:
            step = normal_form(access.place[axis]).coefficient(loop.var) or 0
            count = trip_bound(loop)
            if loop.kind == "vector" and step > 0 and count:
                most = max(most, end + (-(-count // unit) * unit - count) * step + step - 1)
    return most - max(ends)


def goes_on(loop: For) -> bool:
    """Whether more iterations would change what earlier ones made (those that only keep rows for the next ones do not)."""
    own = {n.buffer.name for n in walk(loop.body) if isinstance(n, Alloc)}
    targets = [t.tensor for n in walk(loop.body) if isinstance(n, Accumulate) for t in n.targets if loop.var not in variables(t.index)]
    targets += [t for n in walk(loop.body) if isinstance(n, Append) for t in n.tensors]
    targets += [n.target.tensor for n in walk(loop.body) if isinstance(n, Store) and loop.var not in variables(n.target.index)]
    return loop.carried and not own.issuperset(targets)


def adds_zeros(loop: For) -> bool:
    """All that the loop reduces are sums of elements, or of products of two, which are 0 outside their tensors."""
    sums = [n for n in walk(loop.body) if isinstance(n, Accumulate)]
    return bool(sums) and all(s.reducer.op == "add" and _is_zero_outside(s.values[0]) for s in sums)


def nothing_beyond(loop: For) -> Block:
    """The body of a reduction in which iterations from the loop's extent on store zeros and add nothing."""
    inside = binary("lt", Var(name=loop.var), loop.extent)
    made = {n.target.tensor for n in walk(loop.body) if isinstance(n, Store)}

    def reduced(node: Accumulate) -> Accumulate:
        known = node.reducer.op == "add" and (made & {n.tensor for v in node.values for n in walk(v) if isinstance(n, Load)} or _is_zero_outside(node.values[0]))
        values = tuple(Select(condition=inside, a=v, b=i, dtype=v.dtype) for v, i in zip(node.values, node.reducer.identity))
        return node if known else replace(node, values=values)

    def stored(node: Store) -> Store:
        nothing = Const(value=0.0 if node.value.dtype.is_float else 0, dtype=node.value.dtype)
        return replace(node, value=Select(condition=inside, a=node.value, b=nothing, dtype=node.value.dtype))

    return rewrite(loop.body, {Store: stored, Accumulate: reduced})


def _is_zero_outside(value: Expr) -> bool:
    while isinstance(value, Cast):
        value = value.a
    return isinstance(value, Load) or (isinstance(value, Binary) and value.op == "mul" and _two_loads(value))


def _two_loads(product: Binary) -> bool:
    for side in (product.a, product.b):
        while isinstance(side, Cast):
            side = side.a
        if not isinstance(side, Load):
            return False
    return True


def one_place(block: Block) -> Block:
    """Neighbours that read one place between them (the heads that share a key) do so whatever their number."""
    ranges: dict[str, Interval] = {}
    for loop in (n for s in block for n in walk(s) if isinstance(n, For)):
        known = [n for n in (loop.bound, interval(loop.extent, ranges)[1]) if n is not None]
        ranges[loop.var] = (0, max(0, min(known) - 1) if known else None)

    still: dict[str, Expr] = {name: index(0) for name, (_, high) in ranges.items() if high == 0}  # rounded up, they would lead to the next place

    def settled(place: Expr) -> Expr:
        divided = any(isinstance(n, Binary) and n.op in ("floordiv", "mod") for n in walk(place))
        return simplify_index(fold_ranges(simplify_index(substitute(place, still)), ranges)) if divided else place

    def decided(node: Load | Ref) -> Load | Ref:
        return replace(node, index=tuple(map(settled, node.index)))

    return rewrite(block, {Load: decided, Ref: decided})
