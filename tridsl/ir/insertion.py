"""The k greatest so far, kept in order: one step of a top-k as statements, and what such statements say."""

from __future__ import annotations

from functools import partial

from tridsl.dtypes import BOOL, DType, compute_type
from tridsl.ir.expr import (
    Binary,
    Call,
    Cast,
    Const,
    Expr,
    Load,
    Select,
    Unary,
    Var,
    add,
    binary,
    index,
    minimum,
    mul,
    sub,
)
from tridsl.ir.loop import Alloc, Block, Buffer, For, If, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Insertion:
    """Element number `point` (from 0) of those that `stage` has seen, its value and its position, into the `k` slots at `values` and
    `indices` (whose last index is the slot): in front of the first slot that it beats, the rest shift by one. `dtypes`: of both tensors."""

    stage: str
    values: Ref
    indices: Ref
    dtypes: tuple[DType, DType]
    value: Expr
    position: Expr
    point: Expr
    k: Expr

    def body(self) -> Block:
        """The statements. Slots that hold nothing yet are not read."""
        carry, place, swap_value, swap_place = (
            Buffer(name=f"{self.stage}:{what}", dtype=dtype, shape=(), space="reg")
            for what, dtype in zip(("value", "position", "swap.value", "swap.position"), self.dtypes * 2)
        )
        moved = Buffer(name=f"{self.stage}:moved", dtype=BOOL, shape=(), space="reg")
        slot = Var(name=f"{self.stage}:slot")
        values, indices = (replace(r, index=(*r.index[:-1], slot)) for r in (self.values, self.indices))
        empty = binary("ge", slot, self.point)
        filled = Unary(op="not", a=empty, dtype=BOOL)
        beats = self.beats(_element(_scalar(carry), self.dtypes[0]), _element(values, self.dtypes[0]))
        takes = _either(Load(tensor=moved.name, index=(), dtype=BOOL), _either(empty, beats))
        kept_value, kept_place = (_element(r, d, mask=filled) for r, d in zip((values, indices), self.dtypes))
        shift: Block = (
            Store(target=_scalar(swap_value), value=kept_value),
            Store(target=_scalar(swap_place), value=kept_place),
            Store(target=values, value=_element(_scalar(carry), carry.dtype)),
            Store(target=indices, value=_element(_scalar(place), place.dtype)),
            Store(target=_scalar(carry), value=_element(_scalar(swap_value), carry.dtype)),
            Store(target=_scalar(place), value=_element(_scalar(swap_place), place.dtype)),
            Store(target=_scalar(moved), value=Const(value=True, dtype=BOOL)),
        )
        end = sub(self.k, index(1))
        last = substitute(_either(empty, beats), {slot.name: end})
        last = rewrite(last, {Load: partial(_masked, names=(values.tensor,), filled=binary("lt", end, self.point))})
        insert = For(var=slot.name, extent=self.k, body=(If(condition=takes, then=shift),), carried=True)
        return (
            *(Alloc(buffer=b) for b in (carry, place, moved, swap_value, swap_place)),
            Store(target=_scalar(carry), value=self.value),
            Store(target=_scalar(place), value=self.position),
            Store(target=_scalar(moved), value=Const(value=False, dtype=BOOL)),
            If(condition=last, then=(rewrite(insert, {Load: partial(_masked, names=(values.tensor,), filled=filled)}),)),
        )

    def in_lanes(self, lanes: int, strips: int) -> Block:
        """The same, `lanes` slots at a time from the last of `strips` on: every slot that the element moves takes what the one in front of it held.
        The list has room for all lanes of the last strip, and for one in front of the first to be read."""
        value, position = (Buffer(name=f"{self.stage}:{what}", dtype=d, shape=(), space="reg") for what, d in zip(("value", "position"), self.dtypes))
        wide = compute_type(self.dtypes[0])
        here, ahead, *moved = (
            Buffer(name=f"{self.stage}:{what}", dtype=d, shape=(index(lanes),), space="reg")
            for what, d in zip(("here", "ahead", "moved.value", "moved.position"), (wide, wide, wide, self.dtypes[1]))
        )
        strip, lane, again = (Var(name=f"{self.stage}:slot.{end}") for end in ("o", "i", "w"))
        first = mul(sub(index(strips - 1), strip), index(lanes))
        slot = add(first, lane)
        behind = binary("gt", slot, index(0))
        new = _element(_scalar(value), self.dtypes[0])

        def at(ref: Ref, place: Expr, dtype: DType, mask: Expr | None = None) -> Expr:
            return _element(replace(ref, index=(*ref.index[:-1], place)), dtype, mask)

        def takes(place: Expr, held: Buffer) -> Expr:
            return _either(binary("ge", place, filled), self.beats(new, lane_of(held)))

        def lane_of(held: Buffer) -> Expr:
            return _element(Ref(tensor=held.name, index=(lane,)), held.dtype)

        filled = self.point if self.k == index(lanes * strips) else minimum(self.k, self.point)  # nobody needs what is behind the last slot
        before = sub(slot, index(1))
        shifts = Binary(op="and", a=behind, b=takes(before, ahead), dtype=BOOL)
        made: list[Stmt] = [
            Store(target=Ref(tensor=here.name, index=(lane,)), value=at(self.values, slot, self.dtypes[0])),
            Store(target=Ref(tensor=ahead.name, index=(lane,)), value=at(self.values, before, self.dtypes[0], behind)),
        ]
        kept: list[Stmt] = []
        olds = (lane_of(here), lane_of(ahead)), (at(self.indices, slot, self.dtypes[1]), at(self.indices, before, self.dtypes[1], behind))
        for ref, own, buffer, (old, earlier) in zip((self.values, self.indices), (value, position), moved, olds):
            stays = Select(condition=takes(slot, here), a=_element(_scalar(own), own.dtype), b=old, dtype=buffer.dtype)
            made.append(Store(target=Ref(tensor=buffer.name, index=(lane,)), value=Select(condition=shifts, a=earlier, b=stays, dtype=buffer.dtype)))
            back = replace(ref, index=(*ref.index[:-1], add(first, again)))
            kept.append(Store(target=back, value=_element(Ref(tensor=buffer.name, index=(again,)), buffer.dtype)))
        inner: Block = (
            *(Alloc(buffer=b) for b in (here, ahead, *moved)),
            *(For(var=v.name, extent=index(lanes), bound=lanes, body=tuple(body), kind="vector") for v, body in ((lane, made), (again, kept))),
        )
        insert = For(var=strip.name, extent=index(strips), bound=strips, body=inner, carried=True)
        carry, place, _, guard = self.body()[5:]
        assert isinstance(guard, If)
        return (*(Alloc(buffer=b) for b in (value, position)), carry, place, replace(guard, then=(insert,)))

    def element(self, ref: Ref, dtype: DType) -> Expr:
        """What is at `ref`, in its compute type."""
        return _element(ref, dtype)

    def beats(self, new: Expr, old: Expr) -> Expr:
        """NaN is the greatest; of equals the earlier stays in front."""
        greater = binary("gt", new, old)
        if not compute_type(self.dtypes[0]).is_float:
            return greater
        new_nan, old_nan = (Call(function="isnan", args=(v,), dtype=BOOL) for v in (new, old))
        return _either(greater, Binary(op="and", a=new_nan, b=Unary(op="not", a=old_nan, dtype=BOOL), dtype=BOOL))


def insertion_of(stage: str, loop: For) -> Insertion | None:
    """What a loop does that inserts each of its elements, None for any other."""
    buffers = {s.buffer.name.removeprefix(f"{stage}:"): s.buffer for s in loop.body if isinstance(s, Alloc)}
    if not loop.carried or loop.reduce or set(buffers) != {"value", "position", "moved", "swap.value", "swap.position"} or len(loop.body) != 9:
        return None
    carry, place, _, guard = loop.body[5:]
    insert = guard.then[0] if isinstance(guard, If) and len(guard.then) == 1 else None
    if not isinstance(carry, Store) or not isinstance(place, Store) or not isinstance(insert, For) or len(insert.body) != 1:
        return None
    (takes,) = insert.body
    if not isinstance(takes, If) or len(takes.then) != 7:
        return None
    empty = next((n for n in walk(takes.condition) if isinstance(n, Binary) and n.op == "ge" and n.a == Var(name=insert.var)), None)
    values, indices = (s.target if isinstance(s, Store) else None for s in takes.then[2:4])
    if empty is None or values is None or indices is None:
        return None
    found = Insertion(
        stage=stage, values=values, indices=indices, dtypes=(buffers["value"].dtype, buffers["position"].dtype),
        value=carry.value, position=place.value, point=empty.b, k=insert.extent,
    )  # fmt: skip
    return found if found.body() == loop.body else None


def _scalar(buffer: Buffer) -> Ref:
    return Ref(tensor=buffer.name, index=())


def _element(ref: Ref, dtype: DType, mask: Expr | None = None) -> Expr:
    """The element in its compute type."""
    load = Load(tensor=ref.tensor, index=ref.index, dtype=dtype, mask=mask, other=None if mask is None else _zero(dtype))
    wide = compute_type(dtype)
    return load if wide == dtype else Cast(a=load, dtype=wide)


def _either(a: Expr, b: Expr) -> Expr:
    return Binary(op="or", a=a, b=b, dtype=BOOL)


def _zero(dtype: DType) -> Const:
    return Const(value=0.0 if dtype.is_float else 0, dtype=dtype)


def _masked(load: Load, names: tuple[str, ...], filled: Expr) -> Load:
    if load.tensor not in names or load.mask is not None:
        return load
    return replace(load, mask=filled, other=_zero(load.dtype))
