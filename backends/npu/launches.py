"""A kernel of several phases as several: one design each, launched one after the other, with the scratch of the kernel as tensors between."""

from __future__ import annotations

from dataclasses import replace

from tridsl.backends.npu.gather import gathers_of
from tridsl.backends.npu.lower_program import identifier, refuse
from tridsl.ir.expr import Load, Var
from tridsl.ir.loop import Accumulate, Kernel, Phase, Ref
from tridsl.ir.op import Param, Tensor
from tridsl.ir.walk import rewrite, walk


def launches(kernel: Kernel) -> tuple[Kernel, ...]:
    """E0770: a phase goes on with what is in a tensor, or scratch has no known size. (What the host puts together is no launch.)"""
    if (len(kernel.phases) == 1 and not kernel.scratch) or gathers_of(kernel) is not None:
        return (kernel,)
    between = scratch_of(kernel)
    names = {b.name: t.name for b, t in zip(kernel.scratch, between)}
    found = []
    for number, phase in enumerate(kernel.phases):
        renamed = rewrite(phase, {
            Load: lambda n: replace(n, tensor=names.get(n.tensor, n.tensor)),
            Ref: lambda n: replace(n, tensor=names.get(n.tensor, n.tensor)),
        })  # fmt: skip
        found.append(replace(kernel, name=f"{kernel.name}_{number}", params=_params(kernel, renamed, between), phases=(renamed,), scratch=()))
    return tuple(found)


def scratch_of(kernel: Kernel) -> tuple[Tensor, ...]:
    """The tensors between the phases, with names of C++ that no parameter has."""
    taken = {p.name for p in kernel.params}
    found = []
    for buffer in kernel.scratch:
        name = identifier(buffer.name)
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(Tensor(name=name, dtype=buffer.dtype, shape=buffer.shape, role="output"))
    return tuple(found)


def _params(kernel: Kernel, phase: Phase, between: tuple[Tensor, ...]) -> tuple[Param, ...]:
    """What the phase reads and writes."""
    nodes = list(walk(phase))
    read = {n.tensor for n in nodes if isinstance(n, Load)}
    written = {n.tensor for n in nodes if isinstance(n, Ref)}
    added = {t.tensor for n in nodes if isinstance(n, Accumulate) for t in n.targets}
    scalars = {n.name for n in nodes if isinstance(n, Var)}
    found: list[Param] = []
    for param in (*kernel.params, *between):
        if not isinstance(param, Tensor):
            found += [param] if param.name in scalars else []
            continue
        if param.name in read & written or param.name in added:
            raise refuse(kernel, f"`{param.name}` is read and written by one of its phases")
        if param.name in read | written:
            found.append(replace(param, role="input" if param.name in read else "output"))
    return tuple(found)
