"""`w.store(shared, type=f16)`: weights kept in the type of the values that they weigh."""

from __future__ import annotations

from tridsl.diagnostics import error
from tridsl.dtypes import compute_type
from tridsl.ir.expr import Binary, Cast, Expr, Load
from tridsl.ir.loop import Accumulate, Alloc, Buffer, For, Kernel, Ref, Store
from tridsl.ir.walk import rewrite, walk
from tridsl.schedule.pack import element
from tridsl.schedule.steps import StoreIn
from tridsl.structs import replace


def weights(kernel: Kernel, buffers: tuple[Buffer, ...], step: StoreIn) -> Kernel:
    """
    before:  alloc w: f32[64, 32];  w[t, q] = exp(…);  l[q] += w[t, q];  o[q, e] += w[t, q] * f32(V[t, e])         V: f16
    after:   alloc w: f16[64, 32];  w.now = exp(…);  w[t, q] = w.now;  l[q] += w.now;  o[q, e] += f32(w[t, q]) * f32(V[t, e])

    Weights are rounded to the type as factors; what adds them up where they are made adds them as they were. E0425 unless every reader
    multiplies by an element of that very type, whose products then are what an instruction for the type computes, or adds up the
    weights themselves.
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

    phases = rewrite(kernel.phases, {For: lambda loop: _kept(loop, buffer)})
    return replace(kernel, phases=rewrite(phases, {Alloc: allocated, Load: loaded}))


def _kept(loop: For, buffer: Buffer) -> For:
    """The loop's weight at hand for the sums that stand behind its store."""
    store = next((s for s in loop.body if isinstance(s, Store) and s.target.tensor == buffer.name and s.mask is None), None)
    if store is None:
        return loop
    now = Buffer(name=f"{buffer.name}:now", dtype=buffer.dtype, shape=(), space="reg")
    value = Load(tensor=now.name, index=(), dtype=now.dtype)
    position = loop.body.index(store)

    def read(load: Load) -> Load:
        return value if (load.tensor, load.index) == (buffer.name, store.target.index) else load

    behind = tuple(rewrite(s, {Load: read}) if isinstance(s, Accumulate) else s for s in loop.body[position + 1 :])
    if behind == loop.body[position + 1 :]:
        return loop
    made = (Alloc(buffer=now), replace(store, target=Ref(tensor=now.name, index=())), replace(store, value=value))
    return replace(loop, body=(*loop.body[:position], *made, *behind))
