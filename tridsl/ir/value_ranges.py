"""What values an integer expression can have, from the types of what it reads: proves that narrower arithmetic is exact."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import product

from tridsl.dtypes import DType
from tridsl.ir.expr import Binary, Cast, Const, Expr, Load, Select, Unary

Range = tuple[int, int]
"""Inclusive."""
MOST_OPERANDS = 6
"""Operands of a sum of products whose corners are looked at: 64 of them."""


@lru_cache(maxsize=1024)  # of a sum, each part is asked for again and again
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
    if node.a.dtype.kind == "bool":
        return 0, 1
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
    if found is None:
        return _type_range(node.dtype)
    return _at_corners(node) or found if node.op in _RING else found


def _at_corners(node: Binary) -> Range | None:
    """The range of sums and products in which some operand occurs several times: of `a*w + b*(255 - w)` it is that of a single product.
    What is linear in each operand is greatest and least where each has its greatest or least value. None where that says no more."""
    degrees = _degrees(node)
    operands = list(degrees)
    repeated = len(operands) < sum(1 for _ in _operands(node))
    if not repeated or len(operands) > MOST_OPERANDS or any(n > 1 for n in degrees.values()):
        return None
    values = [_value(node, dict(zip(operands, corner))) for corner in product(*(value_range(o) for o in operands))]
    return min(values), max(values)


def _operands(node: Expr) -> Iterator[Expr]:
    """What is no constant below the sums and products that do not wrap, once for each time it occurs."""
    if isinstance(node, Binary) and node.op in _RING and _exact(node):
        yield from _operands(node.a)
        yield from _operands(node.b)
    elif not isinstance(node, Const):
        yield node


def _degrees(node: Expr) -> dict[Expr, int]:
    """In which power each of them occurs at most."""
    if not (isinstance(node, Binary) and node.op in _RING and _exact(node)):
        return {} if isinstance(node, Const) else {node: 1}
    a, b = _degrees(node.a), _degrees(node.b)
    return {o: a.get(o, 0) + b.get(o, 0) if node.op == "mul" else max(a.get(o, 0), b.get(o, 0)) for o in {**a, **b}}


def _value(node: Expr, operands: Mapping[Expr, int]) -> int:
    if node in operands:
        return operands[node]
    if isinstance(node, Const):
        return int(node.value)
    assert isinstance(node, Binary)
    return _RING[node.op](_value(node.a, operands), _value(node.b, operands))


def _exact(node: Binary) -> bool:
    """Whether no value leaves the type, so that none wraps."""
    low, high = _ARITHMETIC[node.op](value_range(node.a), value_range(node.b)) or (0, -1)
    least, most = _type_range(node.dtype)
    return least <= low <= high <= most


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


def _quotient(a: Range, b: Range) -> Range | None:
    return (a[0] // b[0], a[1] // b[0]) if b[0] == b[1] > 0 else None


def _remainder(a: Range, b: Range) -> Range | None:
    return (0, b[1] - 1) if b[0] > 0 else None


def _masked(a: Range, b: Range) -> Range | None:
    """A bit mask that is not negative leaves no more than itself."""
    masks = [r[1] for r in (a, b) if r[0] >= 0]
    return (0, min(masks)) if masks else None


_RING: dict[str, Callable[[int, int], int]] = {"add": operator.add, "sub": operator.sub, "mul": operator.mul}

_ARITHMETIC: dict[str, Callable[[Range, Range], Range | None]] = {
    "add": lambda a, b: (a[0] + b[0], a[1] + b[1]),
    "sub": lambda a, b: (a[0] - b[1], a[1] - b[0]),
    "mul": _product,
    "min": lambda a, b: (min(a[0], b[0]), min(a[1], b[1])),
    "max": lambda a, b: (max(a[0], b[0]), max(a[1], b[1])),
    "shr": _shifted_right,
    "shl": _shifted_left,
    "and": _masked,
    "floordiv": _quotient,
    "mod": _remainder,
}

_RULES: dict[type, Callable[..., Range]] = {
    Const: lambda node: (int(node.value), int(node.value)),
    Load: lambda node: _type_range(node.dtype),
    Cast: _cast,
    Unary: _unary,
    Binary: _binary,
    Select: _select,
}
