"""Checking a text, and running what comes of it on the oracle."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from tridsl.check.lift import lift
from tridsl.check.resolve import BoundModule, bind
from tridsl.check.sizes import solve
from tridsl.check.types import check_module, check_op
from tridsl.diagnostics import SourceFile
from tridsl.dtypes import DTYPES
from tridsl.ir.evaluate_op import evaluate_op
from tridsl.ir.op import Op, Scalar
from tridsl.ir.verify import OP, verify
from tridsl.syntax.parse import parse

Array = np.ndarray[Any, Any]


def bound_text(text: str, imports: Mapping[str, str] | None = None) -> BoundModule:
    """The module of a text; `imports` are texts by module name."""

    def resolver(module: str, name: str) -> SourceFile | None:
        found = (imports or {}).get(module)
        return SourceFile(name=module, text=found) if found is not None else None

    return bind(parse(SourceFile(name="test.tri", text=text.strip("\n") + "\n")), resolver)


def checked(
    text: str, name: str | None = None, *, overload: int = 0, imports: Mapping[str, str] | None = None, **types: str
) -> Op:
    """The op `name` (the last of the text when left out) of type parameters such as T="f32"; the module must be free of mistakes."""
    return _checked(text, name, overload, tuple((imports or {}).items()), tuple(types.items()))


@cache  # a property test asks for one text many times
def _checked(
    text: str, name: str | None, overload: int, imports: tuple[tuple[str, str], ...], types: tuple[tuple[str, str], ...]
) -> Op:
    bound = bound_text(text, dict(imports))
    check_module(bound)
    own = dict(bound.own())
    chosen = own[name or list(own)[-1]][overload]
    op = check_op(bound, chosen, {k: DTYPES[v] for k, v in types})
    assert verify(op, OP) == ()
    return op


def computed(op: Op, *arguments: Array | float, batch: tuple[int, ...] | None = None) -> dict[str, Array]:
    """What the oracle makes of the inputs, in call order; `batch` lifts first."""
    if batch is not None:
        op = lift(op, batch)
        assert verify(op, OP) == ()
    given = {p.name: a for p, a in zip(op.inputs, arguments)}
    scalars = {p.name: given[p.name] for p in op.inputs if isinstance(p, Scalar) and p.name in given}
    shapes = {n: np.shape(a) for n, a in given.items() if n not in scalars}
    return evaluate_op(op, given, solve(op, shapes, scalars))
