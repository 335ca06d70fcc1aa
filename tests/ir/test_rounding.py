"""Loads, constants, signs and powers of two give exactly what is written; other arithmetic rounds."""

from __future__ import annotations

from tridsl.dtypes import F32, I64
from tridsl.ir.expr import Binary, Const, Expr, Load, Unary, Var
from tridsl.ir.rounding import rounds

X = Load(tensor="x", index=(Var(name="i", dtype=I64),), dtype=F32)
TWO, THREE = (Const(value=v, dtype=F32) for v in (2.0, 3.0))


def of(operation: str, a: Expr, b: Expr) -> Binary:
    return Binary(op=operation, a=a, b=b, dtype=F32)


def test_what_the_last_operation_rounds() -> None:
    exact = (X, TWO, Unary(op="neg", a=X, dtype=F32), of("mul", X, TWO), of("mul", TWO, X), of("div", X, TWO), of("max", X, THREE))
    rounded = (of("sub", X, THREE), of("mul", X, X), of("mul", THREE, X), of("div", TWO, X), Unary(op="neg", a=of("mul", X, X), dtype=F32), of("mul", of("add", X, X), TWO))
    assert not any(rounds(e) for e in exact) and all(rounds(e) for e in rounded)
    one = Const(value=1, dtype=I64)
    assert not rounds(Binary(op="add", a=one, b=one, dtype=I64))
