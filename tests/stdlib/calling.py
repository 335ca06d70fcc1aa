"""A call of a library op by its parts: text, checked op, mapped over leading axes, evaluated by the oracle."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from tridsl.api.library import resolver_for
from tridsl.check.lift import lift
from tridsl.check.overloads import select
from tridsl.check.resolve import BoundModule, bind
from tridsl.check.sizes import solve
from tridsl.check.types import check_op
from tridsl.diagnostics import SourceFile
from tridsl.dtypes import DTYPES, NUMPY_TYPES, TRIT, DType
from tridsl.ir.evaluate import evaluate_kernel, evaluate_op
from tridsl.ir.op import Op, Scalar, Tensor
from tridsl.ir.verify import LOOPS, OP, describe, verify
from tridsl.passes.to_loops import to_loops
from tridsl.stdlib import source
from tridsl.syntax.parse import parse

_BY_NUMPY = {numpy_type: dtype for dtype, numpy_type in NUMPY_TYPES.items() if dtype != TRIT}


class Trits(np.ndarray[Any, Any]):
    """An int8 array of -1, 0, 1 that is meant as `trit`."""


@cache
def module(name: str) -> BoundModule:
    """The library's file of that name, or the text of a file."""
    file = SourceFile(name="<text>", text=name) if "\n" in name else source(name)
    return bind(parse(file), resolver_for(source, None))


def dtype_of(value: Any) -> DType | None:
    if isinstance(value, Trits):
        return TRIT
    return _BY_NUMPY[value.dtype] if isinstance(value, np.ndarray) else None


def prepared(
    name: str, args: tuple[Any, ...], types: dict[str, str], keywords: dict[str, Any]
) -> tuple[Op, dict[str, Any], dict[str, int]]:
    """The op for these arguments, mapped over their leading axes, with the arguments broadcast and the sizes solved. `name`: of a library op, or the
    text of a file, whose last op is called."""
    bound = module(name)
    name = list(bound.operations)[-1] if "\n" in name else name
    given = {n: (dtype_of(v), np.ndim(v)) for n, v in keywords.items()}
    overload, chosen = select(
        bound,
        name,
        [dtype_of(a) for a in args],
        [np.ndim(a) for a in args],
        {n: DTYPES[t] for n, t in types.items()},
        keywords=given,
    )
    op = check_op(bound, overload, chosen)
    assert not verify(op, OP), describe(verify(op, OP))
    arguments = dict(zip([p.name for p in op.inputs], args)) | keywords
    tensors = [t for t in op.tensors if t.role != "output"]
    extra = tuple(np.ndim(arguments[t.name]) - len(t.shape) for t in tensors)
    leading = np.broadcast_shapes(*(np.shape(arguments[t.name])[:n] for t, n in zip(tensors, extra)))
    for tensor, count in zip(tensors, extra):
        array = np.asarray(arguments[tensor.name])
        arguments[tensor.name] = np.broadcast_to(array, leading[len(leading) - count :] + array.shape[count:])
    lifted = lift(op, extra)
    assert not verify(lifted, OP), describe(verify(lifted, OP))
    scalars = {p.name: arguments[p.name] for p in op.inputs if isinstance(p, Scalar) and p.name in arguments}
    sizes = solve(lifted, {t.name: arguments[t.name].shape for t in tensors}, scalars)
    return lifted, arguments, sizes


def call(name: str, *args: Any, types: dict[str, str] | None = None, exact: bool = False, **keywords: Any) -> Any:
    """The op's result, or a tuple of its results. `..N` results are cut to their length."""
    op, arguments, sizes = prepared(name, args, types or {}, keywords)
    return _results(op, evaluate_op(op, arguments, sizes, exact=exact))


def call_kernel(name: str, *args: Any, types: dict[str, str] | None = None, **keywords: Any) -> Any:
    """The same through the naive kernel, verified."""
    op, arguments, sizes = prepared(name, args, types or {}, keywords)
    kernel = to_loops(op)
    assert not verify(kernel, LOOPS), describe(verify(kernel, LOOPS))
    return _results(op, evaluate_kernel(kernel, arguments, sizes))


def _results(op: Op, found: dict[str, np.ndarray]) -> Any:
    def cut(tensor: Tensor) -> np.ndarray:
        return found[tensor.name][: int(found[tensor.length])] if tensor.length else found[tensor.name]

    results = tuple(cut(t) for t in op.outputs)
    return results[0] if len(results) == 1 else results
