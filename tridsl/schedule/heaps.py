"""`y.parts(i, 64, into=heap)` of a compaction: each part is packed by itself, with its count in front; a second pass puts the parts together."""

from __future__ import annotations

from tridsl.dtypes import INDEX, DType, compute_type
from tridsl.ir.expr import Cast, Const, Expr, Load, Var, add, binary, both, index, masked, mul, sub
from tridsl.ir.loop import Alloc, Append, Block, Buffer, Copy, CopyAxis, For, Phase, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute
from tridsl.structs import replace

HEAP = "heap"
BASE = 128
"""A count is two digits of this base: every element type holds them."""
HEADER_BYTES = 64
"""In front of a packed part: its count, and what makes the elements begin where the widest access may."""
MOST = BASE * BASE - 1
"""Elements of a part whose count has two digits."""


def header(dtype: DType) -> int:
    """Elements in front of a packed part."""
    return HEADER_BYTES // dtype.storage_bytes


def heaps(stage: str, before: Block, loop: For, after: Block, append: Append, dtypes: tuple[DType, ...], factor: int) -> tuple[tuple[Buffer, ...], tuple[Phase, Phase]]:
    """
    before:  for i < N: append y[y.len++] = x[i] if keep
    after:   y.heap:  for p < ceil(N / 64): for i < 64: append pack[16 + n++] = x[p*64 + i] if p*64 + i < N and keep
                                            pack[0], pack[1] = n // 128, n % 128; copy pack -> heap[p]
             y:       for p: for i < heap[p, 0] * 128 + heap[p, 1]: append y[y.len++] = heap[p, 16 + i]

    The first pass has parts that know nothing of one another; the second one only moves. Several tensors of one compaction have a heap each.
    """
    assert isinstance(loop.extent, Const)
    parts = -(-int(loop.extent.value) // factor)
    name, axis = f"{stage}.{HEAP}", loop.var.partition(":")[2]
    part = Var(name=f"{name}:{axis}.o")
    heap: list[Buffer] = []
    made: list[Stmt] = []
    copies: list[Stmt] = []
    for n, (tensor, dtype, value) in enumerate(zip(append.tensors, dtypes, append.values)):
        own = name if len(append.tensors) == 1 else f"{name}.{tensor}"
        unit = header(dtype)
        length = unit + -(-(factor + 1) // unit) * unit  # a place more: whoever packs without a branch writes behind the last element
        pack = Buffer(name=f"{own}.pack", dtype=dtype, shape=(index(length),), space="l1", padded=(True,), span=append.span)
        heap.append(Buffer(name=own, dtype=dtype, shape=(index(parts), index(length)), space="global", padded=(True, True), span=append.span))
        inner = Var(name=f"{name}:{axis}.i{n or ''}")
        made += _packed(pack, f"{own}:count", loop, part, inner, append.keep, value, factor)
        axes = tuple(Var(name=f"{pack.name}.d{d}") for d in range(2))
        used = Load(tensor=f"{own}:count", index=(), dtype=INDEX)
        copies.append(
            Copy(
                axes=(CopyAxis(var=axes[0].name, extent=index(1)), CopyAxis(var=axes[1].name, extent=used, bound=length)), buffers=2, span=append.span,
                target=Ref(tensor=own, index=(add(part, axes[0]), axes[1])), source=Load(tensor=pack.name, index=(axes[1],), dtype=dtype),
            )
        )  # fmt: skip
    packed = Phase(name=name, body=(For(var=part.name, extent=index(parts), bound=parts, body=(*made, *copies), span=loop.span),))
    return tuple(heap), (packed, _together(stage, before, loop, after, append, tuple(heap), parts, factor))


def _packed(pack: Buffer, counter: str, loop: For, part: Var, inner: Var, keep: Expr, value: Expr, factor: int) -> Block:
    """One part of one tensor, with its count in front."""
    place = add(mul(part, index(factor)), inner)
    whole = isinstance(loop.extent, Const) and int(loop.extent.value) % factor == 0
    kept = substitute(keep, {loop.var: place})
    if not whole:
        inside = binary("lt", place, loop.extent)
        kept = both(inside, rewrite(kept, {Load: lambda load: masked(load, inside)})) or kept  # a condition keeps nobody from reading
    count = Buffer(name=counter, dtype=INDEX, shape=(), space="reg", span=loop.span)
    here = Ref(tensor=counter, index=())
    append = Append(tensors=(pack.name,), count=here, values=(substitute(value, {loop.var: place}),), keep=kept, span=loop.span)
    found = sub(Load(tensor=counter, index=(), dtype=INDEX), index(header(pack.dtype)))
    wide = compute_type(pack.dtype)
    clear = Var(name=f"{inner.name}.header")
    nothing = Const(value=0.0 if wide.is_float else 0, dtype=wide)
    digits = (binary("floordiv", found, index(BASE)), binary("mod", found, index(BASE)))
    return (
        Alloc(buffer=pack),
        Alloc(buffer=count),
        For(
            var=clear.name, extent=index(header(pack.dtype)), bound=header(pack.dtype), kind="vector", span=loop.span,
            body=(Store(target=Ref(tensor=pack.name, index=(clear,)), value=nothing),),
        ),
        Store(target=here, value=index(header(pack.dtype))),
        For(var=inner.name, extent=index(factor), bound=factor, carried=True, body=(append,), span=loop.span),
        *(Store(target=Ref(tensor=pack.name, index=(index(n),)), value=Cast(a=digit, dtype=wide)) for n, digit in enumerate(digits)),
    )


def _together(stage: str, before: Block, loop: For, after: Block, append: Append, heap: tuple[Buffer, ...], parts: int, factor: int) -> Phase:
    """The parts one after the other, in order."""
    outer, inner = (Var(name=f"{loop.var}.{end}") for end in "oi")
    first = heap[0]

    def digit(n: int) -> Expr:
        return Cast(a=_element(first, (outer, index(n))), dtype=INDEX)

    count = binary("min", add(mul(digit(0), index(BASE)), digit(1)), index(factor))
    values = tuple(_element(b, (outer, add(inner, index(header(b.dtype))))) for b in heap)
    again = replace(append, values=values, keep=Const(value=True, dtype=append.keep.dtype))
    body = For(var=inner.name, extent=count, bound=factor, carried=True, body=(again,), span=loop.span)
    whole = For(var=outer.name, extent=index(parts), bound=parts, carried=True, body=(body,), span=loop.span)
    return Phase(name=stage, body=(*before, whole, *after))


def _element(buffer: Buffer, place: tuple[Expr, ...]) -> Expr:
    load = Load(tensor=buffer.name, index=place, dtype=buffer.dtype)
    wide = compute_type(buffer.dtype)
    return load if wide == buffer.dtype else Cast(a=load, dtype=wide)
