"""`gx.inline()`; Halide: compute_inline (its default)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import COMPUTE, DType, compute_type
from tridsl.ir.affine import equal, normal_form, simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Var, add, binary, index, masked, mul
from tridsl.ir.loop import Block, Buffer, For, Kernel, Phase, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, variables, walk
from tridsl.schedule.nest import stages, unknown_stage
from tridsl.schedule.steps import Inline
from tridsl.schedule.updates import behind_the_update, updated_reads, updates
from tridsl.structs import replace


def inline(kernel: Kernel, step: Inline, spec: DeviceSpec) -> Kernel:
    """
    before:  for i: e[i] = exp(x[i])                 after e.inline():  for i: y[i] = exp(x[i]) * 2
             for i: y[i] = e[i] * 2

    Every read becomes the stage's value at that point (rounded to its dtype, as the store would). Two loops over
    whole blocks count as one: element n is that of iterations n // 16 and n % 16. E0414: the stage is a
    result. E0410: it reads a parameter that is updated before one of its readers. E0415: it is not a plain map (a reduction or scan has no value to substitute), or its loops were already moved.
    """
    if step.stage not in stages(kernel):
        raise unknown_stage(kernel, step.stage, step.span)
    phase = next((p for p in kernel.phases if p.name == step.stage), None)
    loops, body = [], phase.body if phase else ()
    while len(body) == 1 and isinstance(body[0], For):
        loops.append(body[0])
        body = body[0].body
    if len(body) != 1 or not isinstance(body[0], Store) or any(loop.kind != "serial" for loop in loops):
        raise error(
            "E0415", f"stage `{step.stage}` cannot be inlined: it is not a plain map in its own loops", step.span,
            help=f"use `{step.stage}.at(…)` to compute it where it is read",
        )  # fmt: skip
    assert phase is not None
    store = body[0]
    name = store.target.tensor
    if any(isinstance(p, Tensor) and p.name == name for p in kernel.params):
        raise error("E0414", f"stage `{step.stage}` is a result of the op and must be stored", step.span, help="inline the stages it reads")
    stored = next(b for b in kernel.scratch if b.name == name)
    shapes = {p.name: p.shape for p in kernel.params if isinstance(p, Tensor)} | {b.name: b.shape for b in kernel.scratch}
    iteration = _iteration(store, tuple(loops), stored)
    if iteration is None:
        raise error(
            "E0415", f"stage `{step.stage}` cannot be inlined: its loops were reshaped", step.span,
            help=f"leave out the other steps of `{step.stage}`: it has no loops of its own when it is inlined",
        )  # fmt: skip
    _check_updates(kernel, step, phase, name, store, iteration)

    def read(load: Load) -> Expr:
        if load.tensor != name:
            return load
        return _value_at(store.value, iteration(load.index), load, stored.dtype, shapes)

    phases = rewrite(tuple(p for p in kernel.phases if p.name != step.stage), {Load: read, Cast: _collapse})
    return replace(kernel, phases=phases, scratch=tuple(b for b in kernel.scratch if b.name != name))


Iteration = Callable[[tuple[Expr, ...]], dict[str, Expr]]
"""The values of the stage's loop variables for an element of its tensor."""


def _iteration(store: Store, loops: tuple[For, ...], buffer: Buffer) -> Iteration | None:
    """None unless every loop decides one axis of the tensor, alone or as one of two (over blocks, and inside each), and nothing is left out."""
    extents = {loop.var: loop.extent for loop in loops}
    halves: list[tuple[str, str | None, int]] = []
    for place in store.target.index:
        if isinstance(place, Var):
            halves.append((place.name, None, 1))
            continue
        steps = {v: normal_form(place).coefficient(v) or 0 for v in variables(place)}
        inner, outer = next((v for v in steps if steps[v] == 1), ""), next((v for v in steps if steps[v] > 1), "")
        whole = add(mul(Var(name=outer), index(steps.get(outer, 0))), Var(name=inner))
        if len(steps) != 2 or extents.get(inner) != index(steps.get(outer, 0)) or not equal(place, whole):
            return None
        halves.append((outer, inner, steps[outer]))
    used = [v for outer, inner, _ in halves for v in (outer, inner) if v is not None]
    if sorted(used) != sorted(extents) or not _only_past_the_end(store, buffer):
        return None

    def iteration(at: tuple[Expr, ...]) -> dict[str, Expr]:
        values: dict[str, Expr] = {}
        for (outer, inner, factor), place in zip(halves, at):
            values[outer] = place if inner is None else binary("floordiv", place, index(factor))
            if inner is not None:
                values[inner] = binary("mod", place, index(factor))
        return values

    return iteration


def _only_past_the_end(store: Store, buffer: Buffer) -> bool:
    """Whether the store's mask leaves out only what is not in the tensor."""
    mask = store.mask
    if mask is None:
        return True
    inside = isinstance(mask, Binary) and mask.op == "lt"
    return inside and any(mask.a == place and equal(mask.b, size) for place, size in zip(store.target.index, buffer.shape))  # type: ignore[union-attr]


def _check_updates(kernel: Kernel, step: Inline, home: Phase, name: str, store: Store, iteration: Iteration) -> None:
    """E0410 where a reader would read a parameter behind or during its update, which the stage reads before it."""
    reads = updated_reads(kernel, (store,))
    if not reads:
        return
    start = kernel.phases.index(home)
    for number, phase in enumerate(kernel.phases[start + 1 :], start + 1):
        loads = [n for n in walk(phase) if isinstance(n, Load) and n.tensor == name]
        for read in reads if loads else ():
            passed = any(updates(p.body, read.tensor) for p in kernel.phases[start + 1 : number])
            here = updates(phase.body, read.tensor)
            moved = [tuple(simplify_index(substitute(i, iteration(load.index))) for i in read.index) for load in loads]
            # an element that is read where it is written, by the very statement that writes it
            own = len(here) == 1 and all(place == here[0].index for place in moved) and _only_nest(phase.body)
            if passed or (here and not own):
                raise behind_the_update(step.stage, read.tensor, step.span)


def _only_nest(body: Block) -> bool:
    """Whether `body` is a nest around one statement."""
    while len(body) == 1 and isinstance(body[0], For):
        body = body[0].body
    return len(body) == 1 and isinstance(body[0], Store)


Shapes = Mapping[str, tuple[Expr, ...]]


def _value_at(value: Expr, place: dict[str, Expr], load: Load, dtype: DType, shapes: Shapes) -> Expr:
    """The stage's value at the read's index, under the read's mask: nothing it loads is touched outside."""
    value = rewrite(substitute(value, place), {Load: lambda l: replace(l, index=tuple(simplify_index(i) for i in l.index))})
    if load.mask is not None:
        value = rewrite(value, {Load: lambda l: l if _always_inside(l, shapes[l.tensor]) else masked(l, load.mask)})
    stored: Expr = value if dtype not in COMPUTE else Cast(a=value, dtype=dtype)
    if load.mask is None:
        return stored
    assert load.other is not None
    return Select(condition=load.mask, a=stored, b=load.other, dtype=dtype)


def _always_inside(load: Load, shape: tuple[Expr, ...]) -> bool:
    """Whether the element is there whatever the sizes are. Otherwise only the stage's iterations prove it, `x[0]` as well: an empty stage has none."""
    return all(isinstance(i, Const) and isinstance(n, Const) and 0 <= i.value < n.value for i, n in zip(load.index, shape))


def _collapse(cast: Cast) -> Expr:
    """f32(f32 x) left over where a read was wrapped in its compute type and the value already has it."""
    return cast.a if cast.a.dtype == cast.dtype and cast.dtype == compute_type(cast.dtype) else cast
