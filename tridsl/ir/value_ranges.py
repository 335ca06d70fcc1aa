"""What values an integer expression can have, from the types of what it reads: proves that narrower arithmetic is exact."""

from __future__ import annotations

from collections.abc import Callable

from tridsl.dtypes import DType
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Unary

Range = tuple[int, int]
"""Inclusive."""


def value_range(expression: Expr) -> Range:
    """The least and greatest value of an integer expression, as far as its operands' types tell; at most those of its type."""
    whole = _type_range(expression.dtype)
    found = _RULES[type(expression)](expression) if type(expression) in _RULES else whole
    inside = whole[0] <= found[0] and found[1] <= whole[1]
    return found if inside else whole  # a value outside its type wraps to anywhere


def fits(expression: Expr, dtype: DType) -> bool:
    """Whether every value of an integer expression is one of the integer type `dtype`."""
    low, high = value_range(expression)
    least, most = _type_range(dtype)
    return least <= low and high <= most


def _type_range(dtype: DType) -> Range:
    assert dtype.low is not None and dtype.high is not None, f"{dtype} is no integer type"
    return dtype.low, dtype.high


def _cast(node: Cast) -> Range:
    if not node.a.dtype.is_integer:
        return _type_range(node.dtype)
    return value_range(node.a)


def _unary(node: Unary) -> Range:
    if node.op not in ("neg", "abs") or not node.a.dtype.is_integer:
        return _type_range(node.dtype)
    low, high = value_range(node.a)
    if node.op == "neg":
        return -high, -low
    return (0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _binary(node: Binary) -> Range:
    rule = _ARITHMETIC.get(node.op)
    if rule is None or not node.a.dtype.is_integer:
        return _type_range(node.dtype)
    found = rule(value_range(node.a), value_range(node.b))
    return _type_range(node.dtype) if found is None else found


def _select(node: Select) -> Range:
    a, b = value_range(node.a), value_range(node.b)
    return min(a[0], b[0]), max(a[1], b[1])


def _product(a: Range, b: Range) -> Range:
    corners = [x * y for x in a for y in b]
    return min(corners), max(corners)


def _shifted_right(a: Range, b: Range) -> Range | None:
    return (a[0] >> b[0], a[1] >> b[0]) if b[0] == b[1] and 0 <= b[0] < 64 else None


def _shifted_left(a: Range, b: Range) -> Range | None:
    return (a[0] << b[0], a[1] << b[0]) if b[0] == b[1] and 0 <= b[0] < 64 else None


def _masked(a: Range, b: Range) -> Range | None:
    """A bit mask that is not negative leaves no more than itself."""
    masks = [r[1] for r in (a, b) if r[0] >= 0]
    return (0, min(masks)) if masks else None


_ARITHMETIC: dict[str, Callable[[Range, Range], Range | None]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _product,
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "shr": _shifted_right,
    "shl": _shifted_left,
    "and": _masked,
}

_RULES: dict[type, Callable[..., Range]] = {
    Const: lambda node: (int(node.value), int(node.value)),
    Load: lambda node: _type_range(node.dtype),
    Cast: _cast,
    Unary: _unary,
    Binary: _binary,
    Select: _select,
}
