"""`O.softmax_wsum.parts(t, 1024)`: independent parts of a monoid whose states have different axes; Dao et al. 2023: flash-decoding, split-KV."""

from __future__ import annotations

from tridsl.diagnostics import Span
from tridsl.ir.expr import Binary, Call, Expr, Load, Var
from tridsl.ir.loop import Alloc, Block, Buffer, For, Ref, Stmt, Store
from tridsl.ir.walk import rewrite
from tridsl.schedule.rescaled import Rescaled, Sum, rescaled
from tridsl.schedule.split import divide
from tridsl.schedule.steps import Parts
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class PartedMonoid:
    """`buffers`: the states of every part; `part`: the loop over parts, each from its own first values; `whole`: the loop that merges them."""

    buffers: tuple[Buffer, ...]
    part: For
    whole: For


def parted_monoid(path: tuple[For, ...], before: Block, loop: For, step: Parts) -> PartedMonoid | None:
    """
    before:  for q: m[q], l[q], o[q, e] = lowest, 0, 0                  after:  for q: for p < ceil(L / 1024):
               for t < L: merge w[q, t], v[t, e] into m[q], l[q], o[q, e]         part.m[q, p], part.l[q, p], part.o[q, p, e] = lowest, 0, 0
                                                                                  for t.i: merge w[q, p*1024 + t.i], … into part.m[q, p], …
                                                                                for q: m[q], l[q], o[q, e] = lowest, 0, 0
                                                                                  for p: n = max(m[q], part.m[q, p])
                                                                                    l[q] = l[q]*exp(m[q] - n) + part.l[q, p]*exp(part.m[q, p] - n)
                                                                                    for e: o[q, e] = …
                                                                                    m[q] = n

    The parts are merged in their order, whoever made them. None for states that are not sums rescaled by a running extreme.
    """
    found = rescaled(step.stage, before, loop.body) if loop.carried else None
    point = tuple(Var(name=l.var) for l in path)
    if found is None or any(place.index[: len(path)] != point for place in (found.key, *(s.place for s in found.sums))):
        return None
    outer = divide(loop, step.factor)
    (inside,) = outer.body
    assert isinstance(inside, For)
    work = PartStates(found=found, stage=step.stage, depth=len(path), part=Var(name=outer.var))
    buffers = work.buffers((*(l.extent for l in path), outer.extent), step.span)
    rules = {Load: work.moved, Ref: work.moved}
    part = replace(outer, body=(*rewrite(before, rules), replace(inside, body=rewrite(inside.body, rules))), carried=False)
    return PartedMonoid(buffers=buffers, part=part, whole=replace(outer, body=work.merged(), carried=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class PartStates:
    """The states of every part, in memory, and their merge one after the other. `depth`: axes in front of the part's number."""

    found: Rescaled
    stage: str
    depth: int
    part: Var

    def buffers(self, shape: tuple[Expr, ...], span: Span | None) -> tuple[Buffer, ...]:
        """Memory for the states, the key's first; `shape` is that of the axes up to the part's number."""
        found = self.found
        states = ((found.key, ()), *((s.place, s.own) for s in found.sums))
        return tuple(
            Buffer(name=self.name(place), dtype=found.start.dtype, shape=(*shape, *(l.extent for l in own)), space="global", span=span)
            for place, own in states
        )

    def name(self, place: Ref | Load) -> str:
        return f"{self.stage}.part.{place.tensor.rpartition('.')[2]}"

    def moved(self, place: Ref | Load) -> Ref | Load:
        """The part's own state."""
        if place.tensor not in {self.found.key.tensor, *(s.place.tensor for s in self.found.sums)}:
            return place
        return replace(place, tensor=self.name(place), index=(*place.index[: self.depth], self.part, *place.index[self.depth :]))

    def merged(self) -> Block:
        found, dtype = self.found, self.found.start.dtype
        old = Load(tensor=found.key.tensor, index=found.key.index, dtype=dtype)
        own = self.moved(old)
        assert isinstance(own, Load)
        new, kept, added = (Load(tensor=f"{self.stage}:{what}", index=(), dtype=dtype) for what in ("key", "kept", "added"))
        made: list[Stmt] = []
        for place, value in (
            (new, Binary(op=found.op, a=old, b=own, dtype=dtype)),  # type: ignore[arg-type]  # `rescaled` finds max and min only
            (kept, self._factor(old, new)), (added, self._factor(own, new)),
        ):  # fmt: skip
            made += [Alloc(buffer=Buffer(name=place.tensor, dtype=dtype, shape=(), space="reg")), Store(target=Ref(tensor=place.tensor, index=()), value=value)]
        sums = tuple(self._sum(one, kept, added) for one in found.sums)
        return (*made, *sums, Store(target=found.key, value=new))

    def _sum(self, one: Sum, kept: Expr, added: Expr) -> Stmt:
        before = Load(tensor=one.place.tensor, index=one.place.index, dtype=self.found.start.dtype)
        here = self.moved(before)
        assert isinstance(here, Load)
        sides = (Binary(op="mul", a=a, b=b, dtype=before.dtype) for a, b in ((before, kept), (here, added)))
        statement: Stmt = Store(target=one.place, value=Binary(op="add", a=next(sides), b=next(sides), dtype=before.dtype))
        for loop in reversed(one.own):
            statement = replace(loop, body=(statement,))
        return statement

    def _factor(self, a: Expr, b: Expr) -> Expr:
        dtype = self.found.start.dtype
        return Call(function=self.found.function, args=(Binary(op="sub", a=a, b=b, dtype=dtype),), dtype=dtype)
