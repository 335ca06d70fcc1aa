"""Vector mathematics for generated CPU code: every function of `ir.expr.FUNCTIONS` as straight-line instructions.

No tables in memory, no external calls, no branches but one, in an internal function that huge angles enter: any lane count, any
target with fused multiply-add. At most 2 ulp (f64: the tests hold it to the same). Accuracy, special values and sources
stand with each formula; tests/backends/cpu/test_functions.py holds them to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tridsl.backends.cpu.functions import exponential, logarithm, power, rounding, trigonometric
from tridsl.backends.cpu.functions.arithmetic import Kind, Value
from tridsl.backends.cpu.functions.llvm import LLVMTarget, ir

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


OF_ROUNDED: dict[str, Callable[..., Value]] = {"exp": exponential.exp_of_rounded}
"""Functions that are shorter where their argument carries the error of a rounding of its own."""


def emit_function(builder: Any, name: str, args: Sequence[Any], features: frozenset[str] = frozenset(), *, rounded: bool = False) -> Any:
    """Instructions for `name(*args)` of `ir.expr.FUNCTIONS` at the place of `builder`, a `llvmlite.ir.IRBuilder`.

    `args`: `llvmlite.ir` floats or doubles, or vectors of them, all of one type. The result has that type; for isnan and
    isinf it is i1 or a vector of i1. `features` are `DeviceSpec.features`: with `avx512dq`, `avx512f` and `avx512vl` the code is
    shorter, without them portable; the results are the same bits, but for f32 tanh and erf, which are made by pieces where registers are
    looked up. `rounded`: the arguments are results of operations that round. The builder stays in its block.
    """
    of = args[0].type
    lanes = of.count if isinstance(of, ir.VectorType) else None
    element = of.element if lanes else of
    kinds: dict[type, Kind] = {ir.FloatType: "f32", ir.DoubleType: "f64"}
    if type(element) not in kinds:
        raise TypeError(f"{name} of {of}: only float and double have vector functions")
    target = LLVMTarget(builder=builder, lanes=lanes, features=features)
    emitter = (rounded and OF_ROUNDED.get(name)) or EMITTERS[name]
    result = emitter(*(Value(target=target, kind=kinds[type(element)], raw=arg) for arg in args))
    return result.raw
