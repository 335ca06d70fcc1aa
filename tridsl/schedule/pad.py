"""`C.pad(i, 128)`; TVM: pad_einsum, Triton: masks of the loads and the store of a tile."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import DType
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var, binary, both, ceildiv, index, masked, mul
from tridsl.ir.loop import Accumulate, For, Kernel
from tridsl.ir.walk import rewrite, variables, walk
from tridsl.schedule.nest import axis_of, enclosing, find_loop, replace_loop, require_serial
from tridsl.schedule.pad_kept import pad_kept
from tridsl.schedule.steps import Pad
from tridsl.structs import replace


def pad(kernel: Kernel, step: Pad, spec: DeviceSpec) -> Kernel:
    """
    before:  for i < M: for k < K: C[i] += A[i, k] * B[k]
    after:   for i < ceil(M / 128)*128: for k < K: C[i] += (A[i, k] if i < M else 0) * B[k] if i < M

    The loop runs over whole multiples of the factor, so that what is split off it later has no tail. What lies beyond is read as 0 and
    written nowhere: panels copied from the parameters (`A.store(shared, at=k.o)`) hold zeros there, and the question is asked once for
    each element that is copied, not in the innermost loop. Legal for the loops of a sum, before any other step on them; over a loop that
    is reduced, where the sum is one of products of which every factor reads that axis (a product of zeros adds nothing) and gives 0 outside
    of its tensor. `kept`: what lies beyond is written, too, to storage that grows for it (`schedule.pad_kept`).
    E0403: the factor is not a positive integer. E0404: the loop is no longer serial. E0450: not such a loop.
    """
    loop = find_loop(kernel, step.stage, step.axis, step.span)
    require_serial(loop, "pad", step.span)
    if step.factor < 1:
        raise error("E0403", f"cannot pad `{step.axis}` to a multiple of {step.factor}", step.span, help="a factor is a positive integer")
    if step.kept:
        return pad_kept(kernel, step)
    phase = next((p for p in kernel.phases if p.name == step.stage), None)
    nest = [n for n in walk(loop) if isinstance(n, For)]
    found = [n for n in walk(loop) if isinstance(n, Accumulate)]
    plain = all(len(l.body) == 1 for l in nest) and all(loop.var not in variables(l.extent) for l in nest)
    if phase is None or not plain or len(found) != 1 or not found[0].init or any(len(l.body) != 1 for l in enclosing(kernel, loop.var)):
        raise _refused(step, "the stage is no single sum in plain loops")
    (sum_,) = found
    if sum_.intrinsic is not None or sum_.reducer.op != "add" or loop.carried:
        raise _refused(step, f"`{axis_of(loop.var)}` belongs to no plain sum")
    if sum_.mask is not None and variables(sum_.mask) & {l.var for l in (*enclosing(kernel, loop.var), *nest) if l.reduce}:
        raise _refused(step, "its terms are chosen one by one")
    if loop.reduce and not all(_reads(factor, loop.var) for factor in _factors(sum_.values[0])):
        raise _refused(step, "a factor does not read that axis, and might be infinite where the others are 0")
    if isinstance(loop.extent, Const) and int(loop.extent.value) % step.factor == 0:
        return kernel
    reads = [n for n in walk(sum_.values) if isinstance(n, Load) and loop.var in variables(n.index)]
    if loop.reduce and any(load.other is not None and load.other != _zero(load.dtype) for load in reads):
        raise _refused(step, "what it reads outside of a tensor is given, and is not 0")
    inside = binary("lt", Var(name=loop.var), loop.extent)

    def guarded(load: Load) -> Load:
        return masked(load, inside) if loop.var in variables(load.index) else load

    values = tuple(rewrite(value, {Load: guarded}) for value in sum_.values)
    mask = sum_.mask if loop.reduce else both(sum_.mask, inside)
    whole = simplify_index(mul(ceildiv(loop.extent, index(step.factor)), index(step.factor)))

    def padded(node: For) -> For:
        body = rewrite(node.body, {Accumulate: lambda a: replace(a, values=values, mask=mask)})
        return replace(node, extent=whole, bound=None, body=body)

    return replace_loop(kernel, loop.var, padded)


def _factors(value: Expr) -> tuple[Expr, ...]:
    """The factors of a product; a value that is none is its only one."""
    if isinstance(value, Cast):
        return _factors(value.a)
    return (*_factors(value.a), *_factors(value.b)) if isinstance(value, Binary) and value.op == "mul" else (value,)


def _reads(factor: Expr, variable: str) -> bool:
    """Whether the factor is an element along the axis."""
    inner = factor.a if isinstance(factor, Cast) else factor
    return isinstance(inner, Load) and variable in variables(inner.index)


def _zero(dtype: DType) -> Const:
    return Const(value=0.0 if dtype.is_float else 0, dtype=dtype)


def _refused(step: Pad, why: str) -> Exception:
    return error(
        "E0450", f"`{step.axis}` of `{step.stage}` cannot be padded: {why}", step.span,
        help="pad the loops of a sum of products before any other step on them",
    )  # fmt: skip
