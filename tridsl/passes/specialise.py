"""Known sizes, strides and `const` parameters become constants; what stays symbolic is an argument of the kernel.

    for i < M: …  where M = 1024        ->        for i < 1024: …
"""

from __future__ import annotations

from collections.abc import Mapping

from tridsl.dtypes import INDEX
from tridsl.ir.affine import simplify_index
from tridsl.ir.expr import Const, Expr, Var, index
from tridsl.ir.loop import Buffer, Kernel
from tridsl.ir.op import Param, Scalar
from tridsl.ir.walk import rewrite, substitute
from tridsl.structs import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Specialisation:
    """What a call fixed: `sizes` by name (a size that is absent stays an argument), `constants` for `const` parameters, and
    per tensor its `strides` in elements where it is not row-major contiguous."""

    sizes: tuple[tuple[str, int], ...] = ()
    constants: tuple[tuple[str, bool | int | float], ...] = ()
    strides: tuple[tuple[str, tuple[int, ...]], ...] = ()


def specialise(kernel: Kernel, facts: Specialisation) -> Kernel:
    """Substitutes the facts everywhere. `const` scalars leave the parameter list: their value is in the code."""
    constants = dict(facts.constants)
    values: dict[str, Expr] = {name: index(value) for name, value in facts.sizes}
    for param in kernel.params:
        if isinstance(param, Scalar) and param.const and param.name in constants:
            values[param.name] = Const(value=constants[param.name], dtype=param.dtype)
    strides = dict(facts.strides)

    def parameter(param: Param) -> Param:
        if isinstance(param, Scalar):
            return param
        shape = tuple(simplify_index(substitute(n, _as_index(values))) for n in param.shape)
        known = strides.get(param.name)
        laid = tuple(index(s) for s in known) if known is not None else param.strides
        return replace(param, shape=shape, strides=laid)

    def scratch(buffer: Buffer) -> Buffer:
        return replace(buffer, shape=tuple(simplify_index(substitute(n, _as_index(values))) for n in buffer.shape))

    params = tuple(
        parameter(p) for p in kernel.params if not (isinstance(p, Scalar) and p.const and p.name in constants)
    )
    return replace(
        kernel,
        params=params,
        sizes=tuple(name for name in kernel.sizes if name not in values),
        phases=rewrite(kernel.phases, {Var: lambda v: _typed(values.get(v.name, v), v)}),
        scratch=tuple(scratch(b) for b in kernel.scratch),
    )


def _typed(value: Expr, variable: Var) -> Expr:
    """A const parameter's value in the type that is meant: a size in an index (i64), the parameter itself elsewhere."""
    return replace(value, dtype=variable.dtype) if isinstance(value, Const) and value.dtype != variable.dtype else value


def _as_index(values: Mapping[str, Expr]) -> dict[str, Expr]:
    """Const parameters of another integer type, as the i64 that shapes are made of."""
    return {
        name: value if value.dtype == INDEX or not isinstance(value, Const) else index(int(value.value))
        for name, value in values.items()
    }
