"""`w.store(shared, type=f16)`: weights kept in the type of the values that they weigh."""

from __future__ import annotations

from tridsl.diagnostics import error
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Binary, Cast, Expr, Load
from tridsl.ir.loop import Accumulate, Alloc, Buffer, Kernel
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.pack import element
from tridsl.schedule.steps import StoreIn
from tridsl.structs import replace


def weights(kernel: Kernel, buffers: tuple[Buffer, ...], step: StoreIn) -> Kernel:
    """
    before:  alloc w: f32[64, 32];  w[t, q] = exp(…);  l[q] += w[t, q];  o[q, e] += w[t, q] * f32(V[t, e])         V: f16
    after:   alloc w: f16[64, 32];  w[t, q] = exp(…);  l[q] += f32(w[t, q]);  o[q, e] += f32(w[t, q]) * f32(V[t, e])

    Every weight is rounded to the type, once, for all its readers. E0425 unless each of them multiplies it by an element of that very
    type, whose products then are what an instruction for the type computes, or adds up the weights themselves.
    """
    dtype, (buffer,) = step.type, buffers
    loads = [n for p in kernel.phases for n in walk(p) if isinstance(n, Load) and n.tensor == buffer.name]
    nodes = [n for p in kernel.phases for n in walk(p)]
    factors = [(element(n.a), element(n.b)) for n in nodes if isinstance(n, Binary) and n.op == "mul"]
    weighing = sum(a in loads and b is not None and b.dtype == dtype for pair in factors for a, b in (pair, pair[::-1]))
    adding = sum(n.reducer.op == "add" and element(n.values[0]) in loads for n in nodes if isinstance(n, Accumulate))
    if dtype is None or not dtype.is_float or compute_type(dtype) != buffer.dtype or weighing + adding < len(loads) or not weighing:
        raise error(
            "E0425", f"`{step.stage}` of {buffer.dtype} cannot be kept as {dtype}", step.span,
            help="name the type of the elements that it is multiplied by, and nothing else than added up",
        )  # fmt: skip

    def allocated(node: Alloc) -> Alloc:
        return replace(node, buffer=replace(node.buffer, dtype=dtype)) if node.buffer.name == buffer.name else node

    def loaded(node: Load) -> Expr:
        return Cast(a=replace(node, dtype=dtype), dtype=buffer.dtype) if node.tensor == buffer.name else node

    return replace(kernel, phases=rewrite(kernel.phases, {Alloc: allocated, Load: loaded}))
