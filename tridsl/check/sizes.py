"""Sizes of a call: the declared shapes are equations that the shapes of the arguments solve."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, prod

from tridsl.diagnostics import error
from tridsl.ir.affine import normal_form
from tridsl.ir.expr import Binary, Cast, Const, Expr, Select, Unary, Var
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.ir.print_expressions import print_expr
from tridsl.ir.walk import variables

MOST_ELEMENTS = 1 << 62

Number = bool | int | float


def solve(op: Op, shapes: Mapping[str, Sequence[int]], scalars: Mapping[str, Number] | None = None) -> dict[str, int]:
    """The sizes of `op`, in the order of `op.sizes`, for the shapes of its input and inout tensors by name.

    `scalars` are the scalar arguments; missing ones take their defaults, and what needs one that has none is left to the
    caller (contracts, extents). Raises E0504 where two arguments disagree, E0505
    for a contract that does not hold, E0506 for a result of negative extent, E0601 where a tensor has more than 2**62 elements.
    """
    values: dict[str, Number] = {
        p.name: p.default.value for p in op.params if isinstance(p, Scalar) and p.default is not None
    }
    values.update(scalars or {})
    equations = _equations(op, shapes)
    origin: dict[str, str] = {}
    while True:
        progress = False
        for dimension, extent, place in equations:
            unknown = [n for n in sorted(variables(dimension)) if n not in values]
            if len(unknown) == 1 and unknown[0] in op.sizes:
                found = _solved(dimension, unknown[0], extent, values)
                if found is not None:
                    values[unknown[0]] = found
                    origin[unknown[0]] = place
                    progress = True
        if not progress:
            break
    for name in op.sizes:
        if name not in values:
            raise error(
                "E0504", f"{op.name}: the shapes of the arguments do not tell the size {name}", help=_declared(op)
            )
    for dimension, extent, place in equations:
        if not variables(dimension) <= values.keys():
            continue
        expected = int(evaluate(dimension, values))
        if expected != extent:
            raise _mismatch(op, dimension, expected, extent, place, origin)
    _check_contracts(op, values)
    sizes = {name: int(values[name]) for name in op.sizes}
    _check_extents(op, values)
    return sizes


def _equations(op: Op, shapes: Mapping[str, Sequence[int]]) -> list[tuple[Expr, int, str]]:
    """(declared extent, actual extent, place), plain names first so that they name sizes before expressions check them."""
    found = []
    for tensor in op.tensors:
        if tensor.role == "output":
            continue
        shape = shapes[tensor.name]
        if len(shape) != len(tensor.shape):
            raise error(
                "E0504",
                f"{op.name}: '{tensor.name}' has {len(shape)} axes, declared are {len(tensor.shape)}",
                help=_declared(op),
            )
        for axis, (dimension, extent) in enumerate(zip(tensor.shape, shape)):
            found.append((dimension, int(extent), f"'{tensor.name}' (axis {axis})"))
    return sorted(found, key=lambda equation: not isinstance(equation[0], Var))


def _solved(dimension: Expr, name: str, extent: int, values: Mapping[str, Number]) -> int | None:
    """The value of the one unknown of `dimension == extent`, when it is linear with a whole answer."""
    if isinstance(dimension, Var):
        return extent
    poly = normal_form(dimension)
    slope, rest = 0, poly.constant
    for monomial, factor in poly.terms:
        names = [a.name for a in monomial if isinstance(a, Var) and a.name == name]
        others = [a for a in monomial if not (isinstance(a, Var) and a.name == name)]
        if len(names) > 1 or any(name in variables(a) for a in others):
            return None
        term = factor * prod(int(evaluate(a, values)) for a in others)
        if names:
            slope += term
        else:
            rest += term
    if slope == 0 or (extent - rest) % slope:
        return None
    return (extent - rest) // slope


def _mismatch(op: Op, dimension: Expr, expected: int, extent: int, place: str, origin: Mapping[str, str]) -> Exception:
    text = print_expr(dimension)
    if isinstance(dimension, Var) and text in origin:
        message = f"{op.name}: the size {text} is {expected} in {origin[text]} and {extent} in {place}"
    else:
        message = f"{op.name}: {place} has {extent} elements, {text} = {expected} are needed"
    return error("E0504", message, help=_declared(op))


def _declared(op: Op) -> str:
    inputs = (
        f"{t.name}: {t.dtype}[{', '.join(print_expr(d) for d in t.shape)}]" for t in op.tensors if t.role != "output"
    )
    return f"declared are {', '.join(inputs)}"


def _check_contracts(op: Op, values: Mapping[str, Number]) -> None:
    for contract in op.contracts:
        if variables(contract.condition) <= values.keys() and not evaluate(contract.condition, values):
            facts = ", ".join(f"{n} = {values[n]}" for n in sorted(variables(contract.condition)))
            raise error("E0505", f"{op.name}: {contract.message}: this call has {facts}", contract.span,
                        help=f"the call must meet {print_expr(contract.condition)}")  # fmt: skip


def _check_extents(op: Op, values: Mapping[str, Number]) -> None:
    declared: tuple[Tensor, ...] = op.tensors + op.intermediates
    for tensor in declared:
        if not variables(tensor.shape) <= values.keys():
            continue
        shape = [int(evaluate(d, values)) for d in tensor.shape]
        if tensor.role == "output" and any(extent < 0 for extent in shape):
            raise error(
                "E0506",
                f"{op.name}: the result '{tensor.name}' would have the shape {shape}",
                help="the arguments are too small for this op",
            )
        if prod(max(0, extent) for extent in shape) > MOST_ELEMENTS:
            raise error(
                "E0601",
                f"{op.name}: '{tensor.name}' of shape {shape} has more than 2**62 elements",
                help="pass smaller arrays",
            )


def evaluate(expression: Expr, values: Mapping[str, Number]) -> Number:
    """The value of a condition or extent over sizes and scalars, with the total semantics of `ir.expr`."""
    match expression:
        case Const(value=value):
            return value
        case Var(name=name):
            return values[name]
        case Cast(a=a, dtype=dtype):
            inner = evaluate(a, values)
            return float(inner) if dtype.is_float else int(inner) if dtype.is_integer else bool(inner)
        case Unary(op=op, a=a):
            return _unary(op, evaluate(a, values))
        case Select(condition=condition, a=a, b=b):
            return evaluate(a if evaluate(condition, values) else b, values)
        case Binary(op=op, a=a, b=b):
            return _binary(op, evaluate(a, values), evaluate(b, values))
    raise TypeError(f"not an expression over sizes: {expression!r}")


def _unary(op: str, x: Number) -> Number:
    match op:
        case "neg":
            return -x
        case "not":
            return not x
        case "invert":
            return ~int(x)
    return abs(x)


def _binary(op: str, x: Number, y: Number) -> Number:
    match op:
        case "add":
            return x + y
        case "sub":
            return x - y
        case "mul":
            return x * y
        case "div":
            return x / y if y else float("nan") if x == 0 or isnan(x) else float("inf") if x > 0 else -float("inf")
        case "floordiv":
            return int(x) // int(y) if y else 0
        case "mod":
            return int(x) % int(y) if y else 0
        case "min":
            return min(x, y)
        case "max":
            return max(x, y)
        case "shl":
            return int(x) << int(y) if 0 <= y < 64 else 0
        case "shr":
            return int(x) >> int(y) if 0 <= y < 64 else -1 if x < 0 else 0
        case "and":
            return x and y if isinstance(x, bool) else int(x) & int(y)
        case "or":
            return x or y if isinstance(x, bool) else int(x) | int(y)
        case "xor":
            return int(x) ^ int(y)
    return {"eq": x == y, "ne": x != y, "lt": x < y, "le": x <= y, "gt": x > y, "ge": x >= y}[op]
