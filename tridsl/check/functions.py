"""The functions of expressions: what operands they take and the primitives they expand to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tridsl.dtypes import BOOL
from tridsl.ir.expr import FUNCTIONS, ArithmeticOp, Binary, Call, Const, Expr, Select, Unary, binary
from tridsl.structs import dataclass

Operands = Literal["float", "number"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """`build` gets operands of one compute type. `arity` is (least, most); most None: any number. `predicate`: bool result."""

    arity: tuple[int, int | None]
    operands: Operands
    build: Callable[[list[Expr]], Expr]
    predicate: bool = False


def _primitive(name: str, predicate: bool) -> Function:
    def build(args: list[Expr]) -> Expr:
        return Call(function=name, args=tuple(args), dtype=BOOL if predicate else args[0].dtype)

    return Function(arity=(FUNCTIONS[name], FUNCTIONS[name]), operands="float", build=build, predicate=predicate)


def _fold(op: ArithmeticOp) -> Callable[[list[Expr]], Expr]:
    def build(args: list[Expr]) -> Expr:
        result = args[0]
        for arg in args[1:]:
            result = binary(op, result, arg)
        return result

    return build


def _abs(args: list[Expr]) -> Expr:
    return Unary(op="abs", a=args[0], dtype=args[0].dtype)


def _sqr(args: list[Expr]) -> Expr:
    return binary("mul", args[0], args[0])


def _relu(args: list[Expr]) -> Expr:
    return binary("max", args[0], _number(0, args[0]))


def _clamp(args: list[Expr]) -> Expr:
    return binary("min", binary("max", args[0], args[1]), args[2])


def _sigmoid(args: list[Expr]) -> Expr:
    """1/(1 + exp(-x)) for x >= 0, exp(x)/(1 + exp(x)) below: exp never overflows, small results keep their digits."""
    x = args[0]
    e = Call(
        function="exp", args=(Unary(op="neg", a=Unary(op="abs", a=x, dtype=x.dtype), dtype=x.dtype),), dtype=x.dtype
    )
    top = Select(condition=Binary(op="ge", a=x, b=_number(0, x), dtype=BOOL), a=_number(1, x), b=e, dtype=x.dtype)
    return binary("div", top, binary("add", _number(1, x), e))


def _number(value: int, like: Expr) -> Const:
    return Const(value=float(value) if like.dtype.is_float else value, dtype=like.dtype)


TABLE: dict[str, Function] = {
    **{name: _primitive(name, name in ("isnan", "isinf")) for name in FUNCTIONS},
    "abs": Function(arity=(1, 1), operands="number", build=_abs),
    "min": Function(arity=(2, None), operands="number", build=_fold("min")),
    "max": Function(arity=(2, None), operands="number", build=_fold("max")),
    "sqr": Function(arity=(1, 1), operands="number", build=_sqr),
    "relu": Function(arity=(1, 1), operands="number", build=_relu),
    "clamp": Function(arity=(3, 3), operands="number", build=_clamp),
    "sigmoid": Function(arity=(1, 1), operands="float", build=_sigmoid),
}

WIDENED = frozenset({"abs", "min", "max", "sqr", "relu", "clamp", "fma"})
"""Functions that `acc=T` reaches through to their operands, as it does through + - *."""
