"""Integer expressions over sizes and scalars as text, so that a binary can carry them: group counts, scratch sizes.

Postfix, tokens separated by blanks: integers, `$name`, and the names of IR operators. `$M 63 add 64 floordiv` is
`(M + 63) // 64`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping

from tridsl.ir.expr import Binary, Cast, Const, Expr, Select, Unary, Var


def _floordiv(a: int, b: int) -> int:
    return a // b if b else 0


def _mod(a: int, b: int) -> int:
    return a % b if b else 0


_BINARY: dict[str, Callable[[int, int], int]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "floordiv": _floordiv, "mod": _mod, "min": min, "max": max,
    "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "and": operator.and_, "or": operator.or_, "xor": operator.xor,
}  # fmt: skip


def encode_extent(expression: Expr) -> str:
    """`expression` as postfix text. RuntimeError for nodes that are no index arithmetic."""
    match expression:
        case Const(value=value):
            return str(int(value))
        case Var(name=name):
            return f"${name}"
        case Binary(op=op, a=a, b=b) if op in _BINARY:
            return f"{encode_extent(a)} {encode_extent(b)} {op}"
        case Unary(op="neg", a=a):
            return f"0 {encode_extent(a)} sub"
        case Cast(a=a):
            return encode_extent(a)
        case Select(condition=condition, a=a, b=b):
            return f"{encode_extent(condition)} {encode_extent(a)} {encode_extent(b)} select"
    raise RuntimeError(f"not an extent: {expression}")


def evaluate_extent(text: str, values: Mapping[str, int]) -> int:
    """The value of postfix `text` where `$name` is `values[name]`."""
    stack: list[int] = []
    for token in text.split():
        if token in _BINARY:
            right, left = stack.pop(), stack.pop()
            stack.append(int(_BINARY[token](left, right)))
        elif token == "select":
            otherwise, then, condition = stack.pop(), stack.pop(), stack.pop()
            stack.append(then if condition else otherwise)
        else:
            stack.append(int(values[token[1:]]) if token[0] == "$" else int(token))
    return stack.pop()
