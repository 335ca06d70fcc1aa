"""`x.store(reg)` of a parameter: a stage that is a copy of it; TVM: cache_read."""

from __future__ import annotations

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import error
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Cast, Expr, Load, Var
from tridsl.ir.loop import Block, Buffer, For, Kernel, Phase, Ref, Store
from tridsl.ir.op import Tensor
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.steps import StoreIn
from tridsl.structs import replace


def cache(kernel: Kernel, step: StoreIn, spec: DeviceSpec) -> Kernel:
    """
    before:  phase y: for r: for n: y[r, n] = x[r, n] / m[r]           x.store(reg)
    after:   phase x.reg: for d0: for d1: x.reg[d0, d1] = x[d0, d1]
             phase y: for r: for n: y[r, n] = x.reg[r, n] / m[r]

    Every read of the parameter goes to the copy (which has the compute type, so that nothing is converted twice), which `.at(…)` then brings to where it is kept: `x.reg.at(y, r)` keeps a row, read
    once however many stages use it. (`x.store(shared, at=k.o)` is for panels whose layout follows the loops that read them.)
    E0417: the parameter is written by the op, or read under a mask.
    """
    tensor = next(p for p in kernel.params if isinstance(p, Tensor) and p.name == step.stage)
    loads = [n for p in kernel.phases for n in walk(p) if isinstance(n, Load) and n.tensor == tensor.name]
    if tensor.role != "input" or any(load.mask is not None for load in loads):
        raise error(
            "E0417", f"parameter `{tensor.name}` cannot be kept: the op writes it, or reads it under a mask", step.span,
            help="leave the step out",
        )  # fmt: skip
    name = f"{tensor.name}.{step.space}"
    place = tuple(Var(name=f"{name}:d{axis}") for axis in range(len(tensor.shape)))
    value: Expr = Load(tensor=tensor.name, index=place, dtype=tensor.dtype)
    wide = compute_type(tensor.dtype)
    body: Block = (Store(target=Ref(tensor=name, index=place), value=value if wide == tensor.dtype else Cast(a=value, dtype=wide)),)
    for variable, extent in zip(reversed(place), reversed(tensor.shape)):
        body = (For(var=variable.name, extent=extent, body=body),)
    phases = rewrite(kernel.phases, {
        Load: lambda load: replace(load, tensor=name, dtype=wide) if load.tensor == tensor.name else load,
        Cast: lambda cast: cast.a if cast.a.dtype == cast.dtype else cast,
    })  # fmt: skip
    buffer = Buffer(name=name, dtype=wide, shape=tensor.shape, space="global", span=step.span)
    return replace(kernel, phases=(Phase(name=name, body=body, span=step.span), *phases), scratch=(*kernel.scratch, buffer))
