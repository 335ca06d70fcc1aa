"""Which values carry the error of a rounding of their own.

A function of such a value need not be more exact than its argument is: what e^x of a difference may be off by |x| 2^-24 or so already. Backends
take shorter forms there (`exp` as one power of two), the CPU's and the GPU's by the same rule.
"""

from __future__ import annotations

import math

from tridsl.ir.expr import Binary, Const, Expr, Unary


def rounds(node: Expr) -> bool:
    """Whether what `node` gives was rounded by its last operation, but for signs and powers of two."""
    match node:
        case Unary(op="neg" | "abs"):
            return rounds(node.a)
        case Binary(op="mul" | "div", a=a, b=Const(value=factor)) | Binary(op="mul", a=Const(value=factor), b=a) if _is_power_of_two(factor):
            return rounds(a)
        case Binary(op="add" | "sub" | "mul" | "div"):
            return node.dtype.is_float
    return False


def _is_power_of_two(factor: float) -> bool:
    return abs(math.frexp(factor)[0]) == 0.5
