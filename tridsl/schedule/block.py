"""`O.softmax_wsum.block(t, 64)`: a monoid merges a block of elements at a time."""

from __future__ import annotations

from itertools import pairwise

from tridsl.check.reducers import BUILTINS
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import BOOL
from tridsl.ir.expr import Binary, Call, Const, Expr, Load, Select, Var, add, binary, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Alloc, Block, Buffer, For, Kernel, Ref, Stmt, Store
from tridsl.ir.op import Reducer
from tridsl.ir.walk import substitute, variables, walk
from tridsl.schedule.hidden import HIDING, hidden_arms, visible_blocks
from tridsl.schedule.nest import (
    axis_of,
    enclosing,
    find_loop,
    replace_loop,
    require_serial,
    stage_of,
    trip_bound,
    written,
)
from tridsl.schedule.rescaled import Rescaled, Sum, rescaled
from tridsl.schedule.split import divide, require_shift
from tridsl.schedule.steps import BlockBy
from tridsl.structs import dataclass, replace

PARTS = ("key", "scale", "weight")
"""Stages of a block with storage of their own; each sum is one more, named like its tensor."""


def block(kernel: Kernel, step: BlockBy, spec: DeviceSpec) -> Kernel:
    """
    before:  for q:                                          after O.softmax_wsum.block(t, 64):
               m[q], l[q], o[q, e] = lowest, 0, 0            for q: m[q], l[q], o[q, e] = lowest, 0, 0
               for t < L:                                    for t.o < ceil(L / 64):
                 n = max(m[q], s[q, t])                        for q: for t.i: key[q] max= s[q, t]
                 l[q] = l[q]*exp(m[q] - n) + exp(s - n)        for q: scale[q] = exp(m[q] - max(m[q], key[q])); m[q] max= key[q]; l[q] *= scale[q]
                 for e: o[q, e] = … + exp(s - n)*v[t, e]       for q: for t.i: weight[q, t.i] = exp(s[q, t] - m[q]); l[q] += weight
                 m[q] = n                                      for q: for e: o[q, e] *= scale[q]
                                                               for q: for e: for t.i: o[q, e] += weight[q, t.i] * v[t, e]

    The parts are stages: `….start`, `….key`, `….scale`, `….weight`, and for each state with axes of its own `….o.start`, `….o.scale`
    and `….o`, whose loops other steps shape; `….o` is an ordinary contraction. Producers of `s` go into `t.o` with `.at(…, t.o)`.

    Legal for a monoid whose states are sums rescaled by a running extreme (`schedule.rescaled` says which), whose loop over
    elements is as the op wrote it, `at`s aside. `at` names a loop of the stage that stays around the blocks, where the states inside it
    begin anew in each iteration (the parts of `.parts`). `tail=shift`: the last block begins early enough to be whole, and the elements that the
    one before has merged are hidden in it. The elements are summed in another order, as the language allows inside reducers.
    E0495: no block is whole. E0403: the factor is not a positive integer. E0428: another kind of monoid or reduction. E0411: its loops were reshaped.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "block", step.span)
    if step.factor < 1:
        raise error("E0403", f"cannot take `{step.axis}` in blocks of {step.factor}", step.span, help="a block is a positive number of elements")
    around = _around(kernel, loop, step)
    home = _home(kernel, loop)
    before = home[: home.index(loop)]
    if step.tail is not None:
        require_shift(loop, step)
    merged = divide(loop, step.factor, shift=step.tail is not None)
    elements = merged.body[0]
    assert isinstance(elements, For)
    found = rescaled(step.stage, before, elements.body) if loop.carried else None
    if found is not None and step.tail is not None:
        found = _seen_once(found, loop, merged, elements, step.factor)
    if found is None:
        raise error(
            "E0428", f"`{step.stage}` cannot merge blocks of `{step.axis}`: its states are not sums rescaled by a running max or min", step.span,
            help="a state `m = max(a.m, b.m)`, the others `a.x * exp(a.m - m) + b.x * exp(b.m - m)`",
        )  # fmt: skip
    nested = all(outer.body == (inner,) for outer, inner in pairwise(around))
    if not nested or home[-1] is not loop or any(l.kind != "serial" for l in around):
        raise error(
            "E0411", f"the loops of `{step.stage}` were reshaped before `.block`", step.span,
            help="write `.block(…)` before the other verbs of the stage, behind its `.at(…)`",
        )  # fmt: skip
    deciding = next((l for l in around if l.var in variables(loop.extent)), None)
    if deciding is not None:
        raise error(
            "E0411", f"how many elements `{step.axis}` of `{step.stage}` has depends on `{axis_of(deciding.var)}`, which the blocks would be outside of",
            step.span, help=f"keep it around them: `.block({step.axis}, {step.factor}, at={axis_of(deciding.var)})`",
        )  # fmt: skip
    nest = _Nest(stage=step.stage, around=around, found=found, key=_key(kernel, loop, found, spec))
    extent = _visible(step, loop, before, around)
    blocks = replace(merged, extent=extent, body=nest.parts(elements))
    if not around:
        return replace_loop(kernel, loop.var, lambda _: blocks)
    return replace_loop(kernel, around[0].var, lambda _: (*nest.starts(before), blocks))


def _key(kernel: Kernel, loop: For, found: Rescaled, spec: DeviceSpec) -> Reducer:
    """What the key of a block is reduced by. A NaN among the bases makes every sum NaN, whatever the key is: where nothing else reads the key,
    it need not carry it on, which takes x86 a comparison and a blend for each element (as in `passes.partials`), and shaders a second comparison
    (attention of 2048 halves on an H100: 171 us, 163 without, *measured*)."""
    dtype = found.start.dtype
    plain = replace(BUILTINS[found.op].make(dtype), identity=(found.start,))
    reads = sum(1 for phase in kernel.phases for n in walk(phase) if isinstance(n, Load) and n.tensor == found.key.tensor)
    if not (spec.has_masks or spec.kind == "gpu") or not found.sums or reads != sum(1 for n in walk(loop) if isinstance(n, Load) and n.tensor == found.key.tensor):
        return plain
    (state,) = plain.states
    a, b = Var(name=f"a.{state}", dtype=dtype), Var(name=f"b.{state}", dtype=dtype)
    further = Binary(op="gt" if found.op == "max" else "lt", a=b, b=a, dtype=BOOL)
    return replace(plain, name=f"{plain.name}_number", merge=(Select(condition=further, a=b, b=a, dtype=dtype),), op=None)


def _around(kernel: Kernel, loop: For, step: BlockBy) -> tuple[For, ...]:
    """Loops of the stage around its elements that each part of a block gets for itself: those inside `at`."""
    own = tuple(l for l in enclosing(kernel, loop.var) if stage_of(l.var) == step.stage)
    if step.at is None:
        return own
    outer = find_loop(kernel, step.stage, step.at, step.span)
    if outer not in own:
        raise error(
            "E0411", f"`{step.at}` of `{step.stage}` is not around its loop `{step.axis}`", step.span, help="name a loop outside the elements"
        )  # fmt: skip
    return own[own.index(outer) + 1 :]


def _visible(step: BlockBy, loop: For, before: Block, around: tuple[For, ...]) -> Expr:
    """How many blocks are visited: of one that begins early, what it has again does not count."""
    blocks = divide(loop, step.factor)
    (elements,) = blocks.body
    assert isinstance(elements, For)
    found = rescaled(step.stage, before, elements.body)
    return blocks.extent if found is None else visible_blocks(found, blocks, elements, around)


def _seen_once(found: Rescaled, loop: For, blocks: For, elements: For, factor: int) -> Rescaled:
    """The last block without what the one before has merged."""
    if isinstance(loop.extent, Const) and int(loop.extent.value) % factor == 0:
        return found
    begins = mul(Var(name=blocks.var), index(factor))
    start = minimum(begins, sub(loop.extent, index(factor)))
    again = binary("lt", add(start, Var(name=elements.var)), begins)
    nothing = Const(value=HIDING[found.op], dtype=found.start.dtype)
    hidden = Select(condition=again, a=nothing, b=found.base, dtype=found.base.dtype)
    candidate = hidden if found.candidate == found.base else Select(condition=again, a=nothing, b=found.candidate, dtype=found.candidate.dtype)
    return replace(found, base=hidden, candidate=candidate)


def _home(kernel: Kernel, loop: For) -> Block:
    """The block that the loop stands in."""
    around = enclosing(kernel, loop.var)
    return around[-1].body if around else next(p.body for p in kernel.phases if loop in p.body)


def part_name(stage: str, tensor: str) -> str:
    """The part of `O.softmax_wsum` that sums into `O.o` is `O.softmax_wsum.o`; that of `O.softmax_wsum.part` for its own `….part.o` likewise."""
    return tensor.removeprefix(f"{stage}.").removeprefix(f"{stage.rpartition('.')[0]}.")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Nest:
    """The shared loops `around` the elements, which every part of a block gets for itself."""

    stage: str
    around: tuple[For, ...]
    found: Rescaled
    key: Reducer

    def parts(self, elements: For) -> Block:
        """One block: `elements` is the loop over its elements, with the one merge of `found` as its body."""
        found, dtype = self.found, self.found.start.dtype
        shared = tuple(Var(name=l.var) for l in self.around)
        key, scale, weight = (f"{self.stage}.{part}" for part in PARTS)
        old = Load(tensor=found.key.tensor, index=found.key.index, dtype=dtype)
        scaled, weighted = Load(tensor=scale, index=shared, dtype=dtype), Load(tensor=weight, index=(*shared, Var(name=elements.var)), dtype=dtype)
        (state,) = self.key.states
        new = substitute(self.key.merge[0], {f"a.{state}": old, f"b.{state}": Load(tensor=key, index=shared, dtype=dtype)})
        narrow = [s for s in found.sums if not s.own]
        rescale = [Store(target=Ref(tensor=scale, index=shared), value=self._factor(old, new)), Store(target=found.key, value=new)]
        rescale += [Store(target=s.place, value=_times(_read(s.place, dtype), scaled)) for s in narrow]
        weigh: list[Stmt] = [Store(target=Ref(tensor=weight, index=weighted.index), value=self._weight(found.base, old))]
        weigh += [self._sum(s, weighted) for s in narrow]
        extreme = Accumulate(targets=(Ref(tensor=key, index=shared),), reducer=self.key, values=(found.candidate,), init=True)
        blocks: list[Stmt] = [
            self._allocated(key, ()), self._allocated(scale, ()), self._allocated(weight, (elements,)),
            *self.over(".key", (extreme,), (_reduced(elements),)),
            *self.over(".scale", tuple(rescale), ()),
            *self.over(".weight", tuple(weigh), (_reduced(elements),)),
        ]  # fmt: skip
        for wide in (s for s in found.sums if s.own):
            name = part_name(self.stage, wide.place.tensor)
            blocks += self.over(f".{name}.scale", (Store(target=wide.place, value=_times(_read(wide.place, dtype), scaled)),), wide.own)
            blocks += self.over(f".{name}", (self._sum(wide, weighted),), (*wide.own, _reduced(elements)))
        return tuple(blocks)

    def starts(self, before: Block) -> Block:
        """The states' first values: those that share all loops together, each with axes of its own in a nest of its own."""
        narrow = tuple(s for s in before if not isinstance(s, For))
        wide = [(min(written(s)), s) for s in before if isinstance(s, For)]
        nests = [self.over(f".{part_name(self.stage, tensor)}.start", (nest,), ()) for tensor, nest in wide]
        return (*(self.over(".start", narrow, ()) if narrow else ()), *(s for nest in nests for s in nest))

    def over(self, suffix: str, body: Block, inner: tuple[For, ...]) -> Block:
        """`body` in loops of its own over what is shared and `inner`, as the stage with `suffix`."""
        stage = f"{self.stage}{suffix}"
        loops = (*self.around, *inner)
        names = {l.var: Var(name=f"{stage}:{axis_of(l.var)}") for l in loops}
        inside = {n.var: Var(name=f"{stage}:{axis_of(n.var)}") for s in body for n in walk(s) if isinstance(n, For)}
        block = tuple(_renamed(s, {**names, **inside}) for s in body)
        for loop in reversed(loops):
            block = (replace(loop, var=names[loop.var].name, extent=substitute(loop.extent, names), body=block),)
        return block

    def _weight(self, base: Expr, key: Expr) -> Expr:
        """f(base, key); of a hidden element, 0, whatever the arithmetic would say on its way there."""
        arms = hidden_arms(base, self.found.op)
        if not isinstance(base, Select) or not any(arms):
            return self._factor(base, key)
        nothing = Const(value=0.0, dtype=base.dtype)
        a, b = (nothing if hidden else self._factor(arm, key) for arm, hidden in zip((base.a, base.b), arms))
        return replace(base, a=a, b=b)

    def _factor(self, a: Expr, b: Expr) -> Expr:
        dtype = self.found.start.dtype
        return Call(function=self.found.function, args=(Binary(op="sub", a=a, b=b, dtype=dtype),), dtype=dtype)

    def _sum(self, one: Sum, weight: Expr) -> Accumulate:
        unit = one.factor is None or (isinstance(one.factor, Const) and one.factor.value == 1)
        value = weight if unit or one.factor is None else _times(weight, one.factor)
        return Accumulate(targets=(one.place,), reducer=BUILTINS["sum"].make(value.dtype), values=(value,))

    def _allocated(self, name: str, inner: tuple[For, ...]) -> Alloc:
        bounds = [(trip_bound(l), l.extent) for l in (*self.around, *inner)]
        shape = tuple(extent if bound is None else index(bound) for bound, extent in bounds)
        padded = tuple(bound is not None for bound, _ in bounds)
        return Alloc(buffer=Buffer(name=name, dtype=self.found.start.dtype, shape=shape, space="l1", padded=padded))


def _renamed(statement: Stmt, names: dict[str, Var]) -> Stmt:
    renamed = substitute(statement, names)
    return _loops_renamed(renamed, names)


def _loops_renamed(statement: Stmt, names: dict[str, Var]) -> Stmt:
    if isinstance(statement, For):
        body = tuple(_loops_renamed(s, names) for s in statement.body)
        return replace(statement, var=names[statement.var].name, body=body)
    return statement


def _reduced(loop: For) -> For:
    return replace(loop, reduce=True, carried=False)


def _read(place: Ref, dtype: object) -> Load:
    return Load(tensor=place.tensor, index=place.index, dtype=dtype)  # type: ignore[arg-type]


def _times(a: Expr, b: Expr) -> Expr:
    return Binary(op="mul", a=a, b=b, dtype=a.dtype)


