"""Packed parameters: `W: trit[M, K]` in layout t16 becomes its bytes, and every read of an element its decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from tridsl.diagnostics import error
from tridsl.dtypes import I8, TRIT, U8
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, binary, ceildiv, index
from tridsl.ir.op import Op, Tensor
from tridsl.ir.walk import rewrite

BLOCK = 16
"""Rows and columns of a block of layout t16 (see `buffer.LAYOUTS`)."""


def decode_layouts(op: Op) -> Op:
    """`W[m, k]` -> `i8((W[m//16, k//16, m%16, k%4] >> 2*(k%16//4)) & 3) - 1`, for parameters in layout t16.

    Raises E0540 for a layout without a rule, and where a packed parameter is read with a boundary.
    """
    packed = {t.name: t for t in op.tensors if t.layout != "row"}
    if not packed:
        return op

    def read(load: Load) -> Expr:
        tensor = packed.get(load.tensor)
        if tensor is None:
            return load
        if load.boundary is not None:
            raise error(
                "E0540",
                f"`{load.tensor}` is packed as {tensor.layout} and read with a boundary",
                load.span,
                help="pass it unpacked: np.asarray(buffer)",
            )
        return DECODE[tensor.layout](load)

    stages = rewrite(op.stages, {Load: read})
    params = tuple(SHAPE[p.layout](p) if isinstance(p, Tensor) and p.name in packed else p for p in op.params)
    return replace(op, params=params, stages=stages)


def _t16_read(load: Load) -> Expr:
    m, k = load.index
    sixteen, four = index(BLOCK), index(4)
    place = (
        binary("floordiv", m, sixteen),
        binary("floordiv", k, sixteen),
        binary("mod", m, sixteen),
        binary("mod", k, four),
    )
    byte = Load(tensor=load.tensor, index=place, dtype=U8, span=load.span)
    shift = Cast(a=binary("mul", binary("floordiv", binary("mod", k, sixteen), four), index(2)), dtype=U8)
    code = Binary(op="and", a=Binary(op="shr", a=byte, b=shift, dtype=U8), b=Const(value=3, dtype=U8), dtype=U8)
    return Binary(op="sub", a=Cast(a=code, dtype=I8), b=Const(value=1, dtype=I8), dtype=I8)


def _t16_bytes(tensor: Tensor) -> Tensor:
    assert tensor.dtype == TRIT
    rows, columns = tensor.shape
    sixteen = index(BLOCK)
    return replace(
        tensor, dtype=U8, shape=(ceildiv(rows, sixteen), ceildiv(columns, sixteen), sixteen, index(4)), layout="row"
    )


DECODE: dict[str, Callable[[Load], Expr]] = {"t16": _t16_read}
SHAPE: dict[str, Callable[[Tensor], Tensor]] = {"t16": _t16_bytes}
