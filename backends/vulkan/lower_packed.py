"""`packed`: unrolled products of words are written out, and what they read comes 16 bytes at a time.

                                                                       alloc W.16: u8[16] in reg;  copy W[b, k, r0 + e // 4, e % 4] → W.16[e], e < 16
    unroll g < 4: unroll r < 4:                                   →    alloc x.16: i8[16] in reg;  copy x[k*16 + e] → x.16[e], e < 16
      mma dot4 acc[r] += (W[b, k, r0 + r, kk] >> 2*g & 3)              mma dot4 acc[0] += (W.16[0 + kk] & 3) * x.16[0 + kk]
                         * x[k*16 + 4*g + kk]   for kk < 4             mma dot4 acc[1] += (W.16[4 + kk] & 3) * x.16[0 + kk]   … 16 of them

What is the same in all factors (a value is a code less 1) is taken off once for all rows: dot(u - 1, x) = dot(u, x) - dot(1, x). With every shift a constant, a codec is a few operations on whole words (`emit_packed`). All loads of a nest stand before its products, so
that they are under way together.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from tridsl.backends.vulkan.contiguous import MAX_BYTES, WORD_BYTES, Strides, offset_of, plain_tensors
from tridsl.backends.vulkan.emit_packed import is_packed_product, is_written_out, unshifted
from tridsl.devices.spec import DeviceSpec
from tridsl.dtypes import I32, U8, DType
from tridsl.ir.affine import normal_form, simplify_index
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, add, binary, index, sub
from tridsl.ir.loop import Alloc, Block, Buffer, Copy, CopyAxis, For, If, Kernel, Mma, Ref, Stmt, Store
from tridsl.ir.walk import rewrite, substitute, walk
from tridsl.passes.simplify import simplify

MOST = 512
"""Products that are written out for one nest."""


def packed(kernel: Kernel, spec: DeviceSpec) -> Kernel:
    """Every nest of unrolled loops around one product of words."""
    if not any(isinstance(n, Mma) and is_packed_product(n) for p in kernel.phases for n in walk(p)):
        return kernel
    kernel = simplify(replace(kernel, phases=tuple(replace(p, body=_written_out(p.body)) for p in kernel.phases)))
    tensors = plain_tensors(kernel)
    shapes = {p.name: p.shape for p in (*kernel.params, *kernel.scratch) if hasattr(p, "shape")}
    return replace(kernel, phases=tuple(replace(p, body=_fetched(p.body, tensors, shapes)) for p in kernel.phases))


def _nest(loop: For) -> tuple[list[For], Stmt]:
    """Unrolled loops of constant extent that hold nothing else, and what is in them."""
    loops: list[For] = []
    current: Stmt = loop
    while isinstance(current, For) and current.kind == "unroll" and isinstance(current.extent, Const) and len(current.body) == 1:
        loops.append(current)
        current = current.body[0]
    return loops, current


def _written_out(block: Block) -> Block:
    out: list[Stmt] = []
    for statement in block:
        match statement:
            case For():
                loops, inner = _nest(statement)
                extents = [range(int(l.extent.value)) for l in loops if isinstance(l.extent, Const)]
                points = list(product(*extents)) if isinstance(inner, Mma) and is_packed_product(inner) else []
                if loops and 0 < len(points) <= MOST:
                    out += (substitute(inner, {l.var: index(n) for l, n in zip(loops, point)}) for point in points)
                else:
                    out.append(replace(statement, body=_written_out(statement.body)))
            case If(then=then, otherwise=otherwise):
                out.append(replace(statement, then=_written_out(then), otherwise=_written_out(otherwise)))
            case _:
                out.append(statement)
    return tuple(out)


def _fetched(block: Block, tensors: Mapping[str, tuple[DType, Strides]], shapes: Mapping[str, tuple[Expr, ...]]) -> Block:
    """Runs of products read registers, which are filled before the run."""
    out: list[Stmt] = []
    rest = list(block)
    while rest:
        run: list[Stmt] = []
        while rest and isinstance(rest[0], Mma) and is_packed_product(rest[0]) and is_written_out(rest[0]):
            run.append(rest.pop(0))
        if run:
            fetch = _Fetch(tensors=tensors, shapes=shapes, stage=next(v for s in run if isinstance(s, Mma) for v, _ in s.axes))
            products = [fetch.product(s) for s in run if isinstance(s, Mma)]
            out += (*fetch.allocs, *fetch.copies, *_without_shifts(products))
            continue
        statement = rest.pop(0)
        match statement:
            case For():
                out.append(replace(statement, body=_fetched(statement.body, tensors, shapes)))
            case If(then=then, otherwise=otherwise):
                out.append(replace(statement, then=_fetched(then, tensors, shapes), otherwise=_fetched(otherwise, tensors, shapes)))
            case _:
                out.append(statement)
    return tuple(out)


def _without_shifts(products: Sequence[Mma]) -> Iterator[Stmt]:
    """Products of what the factors are before a constant is taken off, and then what that makes of each sum."""
    shifted: dict[Ref, list[tuple[int, Mma]]] = {}
    for mma in products:
        plain, amount = unshifted(mma.a)
        if amount:
            shifted.setdefault(mma.target, []).append((amount, mma))
        yield replace(mma, a=plain)
    ones: dict[tuple[tuple[int, Expr], ...], str] = {}
    for target, parts in shifted.items():
        key = tuple((amount, mma.b) for amount, mma in parts)
        if key not in ones:
            name = ones[key] = f"ones@{parts[0][1].axes[0][0]}.{len(ones)}"
            here = Ref(tensor=name, index=())
            yield Alloc(buffer=Buffer(name=name, dtype=I32, shape=(), space="reg"))
            yield Store(target=here, value=Const(value=0, dtype=I32))
            yield from (replace(mma, target=here, a=Const(value=amount, dtype=U8)) for amount, mma in parts)
        sums = [Load(tensor=tensor, index=at, dtype=I32) for tensor, at in ((target.tensor, target.index), (ones[key], ()))]
        yield Store(target=target, value=Binary(op="sub", a=sums[0], b=sums[1], dtype=I32))


@dataclass(slots=True, kw_only=True)
class _Fetch:
    """Registers of one run of products, by the tensor and the place where their 16 bytes begin."""

    tensors: Mapping[str, tuple[DType, Strides]]
    shapes: Mapping[str, tuple[Expr, ...]]
    stage: str
    made: dict[tuple[str, object], str] = field(default_factory=dict)
    allocs: list[Stmt] = field(default_factory=list)
    copies: list[Stmt] = field(default_factory=list)

    def product(self, mma: Mma) -> Mma:
        ((k, _),) = mma.axes
        return replace(mma, **{side: rewrite(getattr(mma, side), {Load: lambda load: self._load(load, k)}) for side in ("a", "b")})

    def _load(self, load: Load, k: str) -> Load:
        """The word that `load` walks with `k`, in registers; as it was where that is no word of 16 aligned bytes."""
        if load.tensor not in self.tensors or load.mask is not None or load.dtype.storage_bytes != 1:
            return load
        dtype, strides = self.tensors[load.tensor]
        place = normal_form(offset_of(load.index, strides))
        rest = place.without([k])
        shift = rest.constant % MAX_BYTES
        if place.coefficient(k) != 1 or shift % WORD_BYTES or any(factor % MAX_BYTES for _, factor in rest.terms):
            return load
        key = (load.tensor, replace(rest, constant=rest.constant - shift))
        if key not in self.made:
            name = self.made[key] = f"{load.tensor}.{MAX_BYTES}@{self.stage}.{len(self.made)}"
            element = Var(name=f"{name}.e")
            start = tuple(substitute(i, {k: index(0)}) for i in load.index)
            source = replace(load, index=_run(start, shift, element, self.shapes[load.tensor]))
            self.allocs.append(Alloc(buffer=Buffer(name=name, dtype=dtype, shape=(index(MAX_BYTES),), space="reg")))
            self.copies.append(
                Copy(axes=(CopyAxis(var=element.name, extent=index(MAX_BYTES)),), target=Ref(tensor=name, index=(element,)), source=source)
            )
        return replace(load, tensor=self.made[key], index=(add(index(shift), Var(name=k)),))


def _run(start: tuple[Expr, ...], shift: int, element: Expr, shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """The place of each of 16 elements, of which the one at `shift` is `start`: along as many axes as they fill."""
    left, first, out = element, shift, list(start)
    width = MAX_BYTES
    for axis in range(len(start) - 1, -1, -1):
        size = shape[axis]
        inside = int(size.value) if isinstance(size, Const) else width
        if inside >= width or width % inside:
            out[axis] = simplify_index(add(sub(start[axis], index(first)), left))
            return tuple(out)
        out[axis] = simplify_index(add(sub(start[axis], index(first % inside)), binary("mod", left, index(inside))))
        left, first, width = binary("floordiv", left, index(inside)), first // inside, width // inside
    return tuple(out)
