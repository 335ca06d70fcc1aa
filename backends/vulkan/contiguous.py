"""Accesses that are `count` neighbours in memory, aligned as a whole: one wide load or store instead of `count`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import gcd

from tridsl.dtypes import DType
from tridsl.ir.affine import Polynomial, normal_form, to_expression
from tridsl.ir.expr import Binary, Expr, add, index, mul
from tridsl.ir.loop import Kernel
from tridsl.ir.op import Tensor

WORD_BYTES = 4
MAX_BYTES = 16
"""The widest access of a lane (`uvec4`)."""

Strides = tuple[Expr, ...]


def row_major(shape: Sequence[Expr]) -> Strides:
    """Strides in elements."""
    out: list[Expr] = []
    step: Expr = index(1)
    for size in reversed(shape):
        out.append(step)
        step = mul(step, size)
    return tuple(reversed(out))


def plain_tensors(kernel: Kernel) -> Mapping[str, tuple[DType, Strides]]:
    """Types and strides of the global tensors whose first element is aligned to `MAX_BYTES`: all that have no strides of their
    own (`memory.ALIGNMENT`; arrays with gaps are copied at the alignment of their elements)."""
    tensors: dict[str, tuple[DType, Strides]] = {
        p.name: (p.dtype, row_major(p.shape)) for p in kernel.params if isinstance(p, Tensor) and p.strides is None and p.layout == "row"
    }
    return tensors | {b.name: (b.dtype, row_major(b.shape)) for b in kernel.scratch}


def offset_of(at: Sequence[Expr], strides: Strides) -> Expr:
    """The element's distance from the first, in elements."""
    offset: Expr = index(0)
    for position, stride in zip(at, strides, strict=True):
        offset = add(offset, mul(position, stride))
    return offset


def run_start(at: Sequence[Expr], strides: Strides, variable: str, count: int) -> Expr | None:
    """The offset at `variable` = 0 of an access that walks `count` neighbours with `variable` and starts at a multiple of `count`
    elements; None for any other."""
    polynomial = normal_form(offset_of(at, strides))
    if polynomial.coefficient(variable) != 1:
        return None
    rest = polynomial.without([variable])
    return to_expression(rest) if is_multiple(rest, count) else None


def is_multiple(form: Polynomial, count: int) -> bool:
    """Whether the factors say that every value is a multiple of `count`; the lesser or greater of two multiples (a tile that begins early) is one."""
    return form.constant % count == 0 and all(_is_multiple(monomial, count // gcd(factor, count)) for monomial, factor in form.terms)


def _is_multiple(monomial: Sequence[Expr], count: int) -> bool:
    clamps = (atom for atom in monomial if isinstance(atom, Binary) and atom.op in ("min", "max"))
    return count == 1 or any(all(is_multiple(normal_form(side), count) for side in (atom.a, atom.b)) for atom in clamps)


def fits_words(dtype: DType, count: int) -> bool:
    """Whether `count` elements of `dtype` are whole words that lanes can move at once."""
    size = count * dtype.storage_bytes
    return count > 1 and size % WORD_BYTES == 0 and (size <= MAX_BYTES and size & (size - 1) == 0 or size % MAX_BYTES == 0)
