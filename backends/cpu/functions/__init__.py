"""Vector mathematics for generated CPU code: every function of `ir.expr.FUNCTIONS` as straight-line instructions.

No branches, no tables, no calls: any lane count, any target with fused multiply-add. Accuracy, special values and sources
stand with each formula; tests/backends/cpu/test_functions.py holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from llvmlite import ir

from tridsl.backends.cpu.functions import exponential, logarithm, power, rounding, trigonometric
from tridsl.backends.cpu.functions.arithmetic import Kind, Value
from tridsl.backends.cpu.functions.llvm import LLVMTarget

EMITTERS: dict[str, Callable[..., Value]] = {
    function.__name__: function
    for function in (
        exponential.exp, exponential.exp2, exponential.expm1, logarithm.log, logarithm.log2, logarithm.log10, logarithm.log1p,
        rounding.sqrt, rounding.rsqrt,
        exponential.sinh, exponential.cosh, exponential.tanh, exponential.erf,
        trigonometric.sin, trigonometric.cos, trigonometric.tan, trigonometric.asin, trigonometric.acos, trigonometric.atan,
        trigonometric.atan2, power.pow,
        rounding.fma, rounding.floor, rounding.ceil, rounding.trunc, rounding.round_even, rounding.round_away,
        rounding.isnan, rounding.isinf,
    )
}  # fmt: skip


def emit_function(builder: ir.IRBuilder, name: str, args: Sequence[ir.Value], features: frozenset[str] = frozenset()) -> ir.Value:
    """Instructions for `name(*args)` of `ir.expr.FUNCTIONS` at the builder's place.

    `args`: floats or doubles, or vectors of them, all of one type. The result has that type; for isnan and isinf it is i1 (a vector of
    i1). `features` are `DeviceSpec.features`; with `avx512f` and `avx512vl` shorter code is made. Without them the code is portable.
    """
    of = args[0].type
    lanes = of.count if isinstance(of, ir.VectorType) else None
    element = of.element if lanes else of
    kind: Kind = "f64" if isinstance(element, ir.DoubleType) else "f32"
    if not isinstance(element, ir.DoubleType | ir.FloatType):
        raise TypeError(f"{name} of {of}: only float and double have vector functions")
    target = LLVMTarget(builder=builder, lanes=lanes, features=features)
    result = EMITTERS[name](*(Value(target=target, kind=kind, raw=arg) for arg in args))
    raw: ir.Value = result.raw
    return raw
