"""`s.pad(q, 16, kept=true)`: the points beyond the end are made and kept, for whoever reads whole tiles."""

from __future__ import annotations

from tridsl.diagnostics import error
from tridsl.dtypes import BOOL
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, binary, ceildiv, index, masked, mul
from tridsl.ir.loop import Alloc, Block, Buffer, Check, For, Kernel, Ref
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.schedule.nest import axis_of, find_loop, replace_loop, require_serial, written
from tridsl.schedule.steps import Pad
from tridsl.structs import replace


def pad_kept(kernel: Kernel, step: Pad) -> Kernel:
    """
    before:  alloc s: f32[8, N];  for q < 8: for t < N: for d: s[q, t] += Q[q, d] * K[t, d]
    after:   alloc s: f32[16, N]; for q < 16: for t < N: for d: s[q, t] += (Q[q, d] if q < 8 else 0) * K[t, d]

    Parameters (and what each point has made for itself) are read as 0 beyond the end, other stages as what they have there, so these are padded first. The stage's storage grows; those
    who read it ask for no more than before.
    E0450: the stage is a result, or goes over the axis to reduce it, or begins its results in another loop, or reads a
    stage that has nothing beyond the end.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "pad", step.span)
    phase = next((p for p in kernel.phases if p.name == step.stage), None)
    if phase is None or loop.reduce or loop.carried or any(loop.var in variables(n.extent) for n in walk(phase.body) if isinstance(n, For)):
        raise _refused(step, "it is no loop over points of a stage that is computed as a whole")
    if isinstance(loop.extent, Const) and int(loop.extent.value) % step.factor == 0:
        return kernel
    whole = simplify_index(mul(ceildiv(loop.extent, index(step.factor)), index(step.factor)))
    own = {n.buffer.name for n in walk(loop) if isinstance(n, Alloc)}
    made = written(loop) - own
    if any(_places(phase.body, name) != _places(loop, name) for name in made):
        raise _refused(step, "what it makes there begins in another loop")
    grown = {b.name: _grown(b, loop, whole, step) for b in kernel.scratch if b.name in made}
    if set(grown) != made:
        raise _refused(step, f"`{min(made - set(grown))}` is a result")
    buffers = {b.name: grown.get(b.name, b) for b in kernel.scratch}
    inside = binary("lt", Var(name=loop.var), loop.extent)

    def guarded(load: Load) -> Load:
        if loop.var not in variables(load.index):
            return load
        if load.tensor not in buffers:
            return masked(load, inside)
        if any(loop.var in variables(place) and not _holds(place, size, loop, whole) for place, size in zip(load.index, buffers[load.tensor].shape)):
            raise _refused(step, f"`{load.tensor}`, which it reads, has nothing beyond the end", f"write `{load.tensor}.pad({step.axis}, {step.factor}, kept=true)` before it")
        return load

    def checked(check: Check) -> Check:
        """What is beyond the end is nobody's mistake."""
        if loop.var not in variables(check.condition):
            return check
        beyond = binary("ge", Var(name=loop.var), loop.extent)
        return replace(check, condition=Binary(op="or", a=beyond, b=check.condition, dtype=BOOL))

    def padded(node: For) -> For:
        return replace(node, extent=whole, bound=None, body=rewrite(node.body, {Load: guarded, Check: checked}))

    kernel = replace(kernel, scratch=tuple(buffers[b.name] for b in kernel.scratch))
    return replace_loop(kernel, loop.var, padded)


def _places(part: For | Block, name: str) -> int:
    """How often it is said where something of the buffer goes."""
    return sum(isinstance(n, Ref) and n.tensor == name for n in walk(part))


def _grown(buffer: Buffer, loop: For, whole: Expr, step: Pad) -> Buffer:
    """The buffer with room for the points beyond the end."""
    places = {n.index for n in walk(loop) if isinstance(n, Ref) and n.tensor == buffer.name}
    along = {tuple(place == Var(name=loop.var) for place in at) for at in places}
    plain = all(sum(loop.var in variables(place) for place in at) == 1 for at in places)
    if len(along) != 1 or not plain or sum(min(along)) != 1:
        raise _refused(step, f"`{axis_of(loop.var)}` is no axis of `{buffer.name}`")
    return replace(buffer, shape=tuple(whole if found else size for found, size in zip(min(along), buffer.shape)))


def _holds(place: Expr, size: Expr, loop: For, whole: Expr) -> bool:
    """Whether an axis of that size has a place for every point."""
    return place == Var(name=loop.var) and (size == whole or (isinstance(size, Const) and isinstance(whole, Const) and int(size.value) >= int(whole.value)))


def _refused(step: Pad, why: str, help: str = "pad a stage that others read, before any other step on it") -> Exception:
    return error("E0450", f"`{step.axis}` of `{step.stage}` cannot be padded: {why}", step.span, help=help)
