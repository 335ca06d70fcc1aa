"""`gx.inline()`; Halide: compute_inline (its default)."""

from __future__ import annotations

from dataclasses import replace

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import COMPUTE, DType, compute_type
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Cast, Const, Expr, Load, Select, Var, both
from tridsl.ir.loop import For, Kernel, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.schedule.nest import stages, unknown_stage
from tridsl.schedule.steps import Inline


def inline(kernel: Kernel, step: Inline, spec: DeviceSpec) -> Kernel:
    """
    before:  for i: e[i] = exp(x[i])                 after e.inline():  for i: y[i] = exp(x[i]) * 2
             for i: y[i] = e[i] * 2

    Every read becomes the stage's value at that point (rounded to its dtype, as the store would). E0414: the stage is a
    result. E0415: it is not a plain map (a reduction or scan has no value to substitute), or its loops were already moved.
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
    store = body[0]
    name = store.target.tensor
    if any(isinstance(p, Tensor) and p.name == name for p in kernel.params):
        raise error("E0414", f"stage `{step.stage}` is a result of the op and must be stored", step.span, help="inline the stages it reads")
    axes = [place.name for place in store.target.index if isinstance(place, Var)]
    if sorted(axes) != sorted(loop.var for loop in loops) or len(axes) != len(store.target.index):
        raise error(
            "E0415", f"stage `{step.stage}` cannot be inlined: its loops were reshaped", step.span,
            help=f"leave out the other steps of `{step.stage}`: it has no loops of its own when it is inlined",
        )  # fmt: skip
    dtype = next(b.dtype for b in kernel.scratch if b.name == name)

    def read(load: Load) -> Expr:
        if load.tensor != name:
            return load
        return _value_at(store.value, dict(zip(axes, load.index)), load, dtype)

    phases = rewrite(tuple(p for p in kernel.phases if p.name != step.stage), {Load: read, Cast: _collapse})
    return replace(kernel, phases=phases, scratch=tuple(b for b in kernel.scratch if b.name != name))


def _value_at(value: Expr, place: dict[str, Expr], load: Load, dtype: DType) -> Expr:
    """The stage's value at the read's index, under the read's mask: nothing it loads is touched outside."""
    value = rewrite(substitute(value, place), {Load: lambda l: replace(l, index=tuple(simplify_index(i) for i in l.index))})
    if load.mask is not None:
        value = rewrite(value, {Load: lambda l: _masked(l, load.mask)})
    stored: Expr = value if dtype not in COMPUTE else Cast(a=value, dtype=dtype)
    if load.mask is None:
        return stored
    assert load.other is not None
    return Select(condition=load.mask, a=stored, b=load.other, dtype=dtype)


def _masked(load: Load, mask: Expr | None) -> Load:
    if not any(isinstance(n, Var) for i in load.index for n in walk(i)):
        return load
    other = load.other or Const(value=0.0 if load.dtype.is_float else 0, dtype=load.dtype)
    return replace(load, mask=both(mask, load.mask), other=other)


def _collapse(cast: Cast) -> Expr:
    """f32(f32 x) left over where a read was wrapped in its compute type and the value already has it."""
    return cast.a if cast.a.dtype == cast.dtype and cast.dtype == compute_type(cast.dtype) else cast
