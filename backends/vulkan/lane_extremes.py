"""How far the furthest lane goes: a bound that all lanes of a workgroup agree on.

    ceil((N - lane) / 256), lane < 256   ->   ceil((N - 0) / 256)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tridsl.backends.vulkan.ranges import Range
from tridsl.ir.expr import Binary, Const, Expr, Load, Var, index
from tridsl.ir.walk import walk

RISING = ("add", "min", "max")
"""Operations that grow with both operands."""
SCALING = ("mul", "floordiv")
"""Operations that grow with the first operand where the second is a positive constant."""


def furthest(expression: Expr, lanes: Mapping[str, Range], *, up: bool = True) -> Expr | None:
    """An index expression without the variables `lanes` that is at least (`up`), or at most, what `expression` is in any lane; None where how
    the lanes' values follow their variables cannot be told. `lanes`: the values of each."""
    if not any(isinstance(node, Load) or (isinstance(node, Var) and node.name in lanes) for node in walk(expression)):
        return expression
    match expression:
        case Var(name=name):
            return index(lanes[name].high if up else lanes[name].low)
        case Binary(op="sub", a=a, b=b):
            sides = furthest(a, lanes, up=up), furthest(b, lanes, up=not up)
        case Binary(op=op, a=a, b=b) if op in RISING:
            sides = furthest(a, lanes, up=up), furthest(b, lanes, up=up)
        case Binary(op=op, a=a, b=Const(value=value) as b) if op in SCALING and value > 0:
            sides = furthest(a, lanes, up=up), b
        case Binary(op="mul", a=Const(value=value) as a, b=b) if value > 0:
            sides = a, furthest(b, lanes, up=up)
        case _:
            return None
    left, right = sides
    return None if left is None or right is None else replace(expression, a=left, b=right)
