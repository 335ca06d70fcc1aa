"""`y.sum.planes(4)`: a sum of products with packed trits, taken on the bytes that hold them."""

from __future__ import annotations

from typing import NamedTuple

from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError, error
from tridsl.dtypes import I8, I32, TRIT
from tridsl.ir.affine import equal, normal_form, simplify_index
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Var, add, binary, ceildiv, index, minimum, mul, sub
from tridsl.ir.loop import Accumulate, Block, Buffer, For, Kernel, Phase, Ref, Stmt, Store
from tridsl.ir.op import Tensor
from tridsl.ir.packings import BYTES, PACKINGS, ROWS, Packing, bytes_of, in_place, unpacked
from tridsl.ir.walk import substitute, variables, walk
from tridsl.schedule.nest import axis_of, stages, unknown_stage
from tridsl.schedule.steps import Planes
from tridsl.structs import replace

EXACT_TERMS = (1 << 31) // (128 * 128 // BYTES)
"""Terms up to which a partial sum stays within 32 bits: four products of codes (up to 2 * 64 times their value) and values of a byte."""


class _Sum(NamedTuple):
    """`target[others, m] = sum over k of W[m, first + k] * x[others, k]`: the loops, the accumulation and its two factors; `first` is the
    block column, which only other loops decide."""

    others: tuple[For, ...]
    rows: For
    depth: For
    accumulate: Accumulate
    weight: Load
    first: Expr
    value: Expr


def planes(kernel: Kernel, step: Planes, spec: DeviceSpec) -> Kernel:
    """
    before:  y.sum:         for m: for k < K: y.sum[m] += i32(W[m, k]) * i32(x[k])                          W: trit[M, K] as t16
    after:   y.sum.offset:  for k < K: y.sum.offset += i32(x[k])
             y.sum.planes:  for m.o < ceil(M/16): for k.p < 4: for m.i < 16: for k.o < ceil(K/16): for k.g < 1: for k.i < 4:
                              y.sum.planes[m.o, k.p, m.i] += i32(W[m.o, k.o, m.i, k.i] & 3 << 2*k.p) * i32(x[16*k.o + 4*k.p + k.i])
             y.sum:         for m.o: for m.i < 16: y.sum[16*m.o + m.i] = planes[m.o, 0, m.i] + (planes[m.o, 1, m.i] >> 2) + … - offset

    Codes are values + 1, so the sum of the other factor is taken off once for all rows. Codes that are fields of a byte may stay
    where they are, 4^p times their value, in a partial sum of their own for each of `parts` positions (the argument): unpacking is
    then one AND. E0401: no such stage. E0427: the stage is no such sum, its loops were reshaped before, the parts do not divide the
    layout's groups, or the partial sums might leave 32 bits.

    `planes(0)` multiplies the values themselves, codes - 1: one partial sum, from which nothing is taken off.
    """
    if step.stage not in stages(kernel):
        raise unknown_stage(kernel, step.stage, step.span)
    position = next((n for n, phase in enumerate(kernel.phases) if phase.name == step.stage), None)
    found = None if position is None else _sum_of(kernel, kernel.phases[position])
    if position is None or found is None:
        raise _misfit(step, "it is no sum of products of a packed matrix of trits and 8-bit integers with its loops as they were")
    tensor = next(p for p in kernel.params if isinstance(p, Tensor) and p.name == found.weight.tensor)
    packing = PACKINGS[tensor.layout]
    _check_parts(step, packing, found.depth.extent)
    made, last = _phases(step, found, packing)
    params = tuple(bytes_of(p) if p is tensor else p for p in kernel.params)
    phases = unpacked(kernel.phases, {tensor.name: tensor})
    return replace(
        kernel,
        params=params,
        phases=(*phases[:position], *(phase for phase, _ in made), last, *phases[position + 1 :]),
        scratch=(*kernel.scratch, *(buffer for _, buffer in made)),
    )


def _sum_of(kernel: Kernel, phase: Phase) -> _Sum | None:
    loops: list[For] = []
    block: Block = phase.body
    while len(block) == 1 and isinstance(block[0], For) and block[0].kind == "serial" and not block[0].carried:
        loops.append(block[0])
        block = block[0].body
    if len(block) != 1 or not isinstance(block[0], Accumulate) or not loops or [l.reduce for l in loops] != [False] * (len(loops) - 1) + [True]:
        return None
    accumulate = block[0]
    if accumulate.reducer.op != "add" or accumulate.reducer.dtypes != (I32,) or not accumulate.init or accumulate.mask is not None:
        return None
    factors = _factors(accumulate.values[0], kernel)
    if factors is None or variables(tuple(l.extent for l in loops)) & {l.var for l in loops}:
        return None
    weight, value = factors
    m, k = weight.index
    rows, depth = next((l for l in loops[:-1] if m == Var(name=l.var)), None), loops[-1]
    depth = replace(depth, extent=simplify_index(depth.extent))
    tensor = next(p for p in kernel.params if isinstance(p, Tensor) and p.name == weight.tensor)
    first = first_block(k, depth.var, PACKINGS[tensor.layout])
    used = variables(value) & {l.var for l in loops}
    if rows is None or first is None or depth.var not in used or rows.var in used | variables(first):
        return None
    others = tuple(l for l in loops[:-1] if l is not rows)
    return _Sum(others, rows, depth, accumulate, weight, first, value)


def first_block(column: Expr, depth: str, packing: Packing) -> Expr | None:
    """The block column where `column` starts, when it is the start of one plus the variable `depth`."""
    if normal_form(column).coefficient(depth) != 1:
        return None
    start = simplify_index(substitute(column, {depth: index(0)}))
    block = simplify_index(binary("floordiv", start, index(packing.columns)))
    return block if equal(mul(block, index(packing.columns)), start) and not any(isinstance(n, Load) for n in walk(block)) else None


def _factors(value: Expr, kernel: Kernel) -> tuple[Load, Expr] | None:
    """The packed element, and the other factor in i32."""
    if not isinstance(value, Binary) or value.op != "mul" or value.dtype != I32:
        return None
    packed = {p.name for p in kernel.params if isinstance(p, Tensor) and p.layout != "row" and p.dtype == TRIT and len(p.shape) == 2}
    for weight, other in ((value.a, value.b), (value.b, value.a)):
        element, read = (_element(e) for e in (weight, other))
        if element is None or read is None or element.tensor not in packed or read.tensor in packed:
            continue
        if element.mask is None and read.mask is None and read.dtype.storage_bits == 8 and read.dtype.kind == "int":
            return element, other
    return None


def _element(factor: Expr) -> Load | None:
    while isinstance(factor, Cast):
        factor = factor.a
    return factor if isinstance(factor, Load) else None


def _check_parts(step: Planes, packing: Packing, terms: Expr) -> None:
    possible = [n for n in (0, 1, 2, 4) if n < 2 or (packing.field_bits and n * packing.field_bits <= 8 and packing.groups % n == 0)]
    if step.parts not in possible:
        raise _misfit(step, f"layout {packing.name} gives {' or '.join(map(str, possible))} partial sums, not {step.parts}")
    if step.parts > 1 and not (isinstance(terms, Const) and int(terms.value) < EXACT_TERMS):
        raise _misfit(step, f"partial sums are exact up to {EXACT_TERMS - 1} terms")


def _phases(step: Planes, s: _Sum, packing: Packing) -> tuple[list[tuple[Phase, Buffer]], Phase]:
    """What is made first, each with its storage, and what puts the result together."""
    stage, parts = step.stage, max(1, step.parts)
    m, k = axis_of(s.rows.var), axis_of(s.depth.var)
    blocks, block_columns = ceildiv(s.rows.extent, index(ROWS)), ceildiv(s.depth.extent, index(packing.columns))
    outer = tuple(Var(name=l.var) for l in s.others)

    def renamed(name: str) -> dict[str, Expr]:
        return {l.var: Var(name=f"{name}:{axis_of(l.var)}") for l in (*s.others, s.depth)}

    def around(name: str, body: Block) -> Block:
        """The loops that are not over rows or terms."""
        for loop in reversed(s.others):
            body = (replace(loop, var=f"{name}:{axis_of(loop.var)}", body=body),)
        return body

    def buffer(name: str, *shape: Expr) -> Buffer:
        return Buffer(name=name, dtype=I32, shape=(*(l.extent for l in s.others), *shape), space="global", span=step.span)

    def sums(name: str, place: tuple[Expr, ...], value: Expr) -> Accumulate:
        return replace(s.accumulate, targets=(Ref(tensor=name, index=place),), values=(value,), span=step.span)

    offset, partial = f"{stage}.offset", f"{stage}.planes"
    names = renamed(offset)
    here = substitute(outer, names)
    total = replace(s.depth, var=f"{offset}:{k}", body=(sums(offset, here, substitute(s.value, names)),))
    first = Phase(name=offset, body=around(offset, (total,)), span=step.span)

    def loop(stage: str, axis: str, extent: Expr, body: Block, *, reduce: bool = False, bound: int | None = None) -> For:
        return For(var=f"{stage}:{axis}", extent=extent, bound=bound, body=body, reduce=reduce, span=step.span)

    names = renamed(partial)
    row, lane, part = (Var(name=f"{partial}:{axis}") for axis in (f"{m}.o", f"{m}.i", f"{k}.p"))
    block, group, kk = (Var(name=f"{partial}:{axis}") for axis in (f"{k}.o", f"{k}.g", f"{k}.i"))
    stretch = packing.byte(s.weight.tensor, (row, lane), add(block, substitute(s.first, names)), kk)
    number = add(mul(group, index(parts)), part)
    code = packing.code(stretch, group) if parts == 1 else in_place(stretch, packing.field_bits, mul(group, index(parts * packing.field_bits)), part)
    if not step.parts:
        code = Binary(op="sub", a=Cast(a=code, dtype=I8), b=Const(value=1, dtype=I8), dtype=I8)
    start = add(mul(block, index(packing.columns)), mul(number if parts > 1 else group, index(BYTES)))
    term = substitute(s.value, {**names, s.depth.var: add(start, kk)})
    here = (*substitute(outer, names), row, part, lane)
    product = Binary(op="mul", a=Cast(a=code, dtype=I32), b=term, dtype=I32)
    inside = binary("max", index(0), minimum(index(BYTES), sub(s.depth.extent, start)))
    body: Block = (sums(partial, here, product),)
    body = (loop(partial, f"{k}.i", inside, body, reduce=True, bound=BYTES),)
    body = (loop(partial, f"{k}.g", index(packing.groups // parts), body, reduce=True),)
    body = (loop(partial, f"{k}.o", block_columns, body, reduce=True),)
    body = (loop(partial, f"{m}.i", index(ROWS), body),)
    body = (loop(partial, f"{k}.p", index(parts), body),)
    body = (loop(partial, f"{m}.o", blocks, body),)
    middle = Phase(name=partial, body=around(partial, body), span=step.span)

    row, lane = Var(name=f"{stage}:{m}.o"), Var(name=f"{stage}:{m}.i")
    whole = add(mul(row, index(ROWS)), lane)
    value: Expr = Load(tensor=partial, index=(*outer, row, index(0), lane), dtype=I32)
    for p in range(1, parts):
        more: Expr = Load(tensor=partial, index=(*outer, row, index(p), lane), dtype=I32)
        more = Binary(op="shr", a=more, b=Const(value=p * packing.field_bits, dtype=I32), dtype=I32)
        value = Binary(op="add", a=value, b=more, dtype=I32)
    if step.parts:
        value = Binary(op="sub", a=value, b=Load(tensor=offset, index=outer, dtype=I32), dtype=I32)
    target = substitute(s.accumulate.targets[0], {s.rows.var: whole})
    store: Stmt = Store(target=target, value=value, mask=binary("lt", whole, s.rows.extent), span=step.span)
    store = loop(stage, f"{m}.o", blocks, (loop(stage, f"{m}.i", index(ROWS), (store,)),))
    last = Phase(name=stage, body=around(stage, (store,)), span=step.span)
    made = [(middle, buffer(partial, blocks, index(parts), index(ROWS)))]
    return ([(first, buffer(offset)), *made] if step.parts else made), last


def _misfit(step: Planes, why: str) -> TriError:
    return error(
        "E0427", f"`{step.stage}` cannot be summed by planes: {why}", step.span,
        help="pass the matrix packed, and write `.planes(…)` before the other verbs of the stage",
    )  # fmt: skip
