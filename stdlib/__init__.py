"""The standard library: `from tridsl import stdlib; stdlib.softmax(x)`. One `<name>.tri` for each op, with its overloads.

Ops are attributes, made at first use. `source("softmax")` is the text a user knows as `stdlib:softmax`.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING

from tridsl.diagnostics import SourceFile, TriError, error

if TYPE_CHECKING:
    from tridsl.api.ops import OpObject


@cache
def _folder() -> str:
    # A path rather than importlib.resources, whose import takes a tenth of tridsl's start-up time; the files lie beside this one.
    return os.path.dirname(os.path.abspath(__file__))


@cache
def names() -> tuple[str, ...]:
    """The ops of the library, sorted."""
    return tuple(sorted(name.removesuffix(".tri") for name in os.listdir(_folder()) if name.endswith(".tri")))


def source(name: str) -> SourceFile:
    """The text of op `name`. Raises TriError E0534 when the library has no such op."""
    if name not in names():
        raise error("E0534", f"stdlib has no op `{name}`", help=f"its ops: {', '.join(names())}")
    with open(os.path.join(_folder(), f"{name}.tri"), encoding="utf-8") as file:
        return SourceFile(name=f"stdlib:{name}", text=file.read())


@cache
def trees() -> str:
    """Syntax trees of the library (`python -m tridsl.generate`), a line each; `syntax.stored` checks that they fit the texts."""
    try:
        with open(os.path.join(_folder(), "syntax.jsonl"), encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def resolve(module: str, name: str) -> SourceFile | None:
    """`check.resolve.Resolver` for `use stdlib: name`; None for another module or an unknown name."""
    return source(name) if module == "stdlib" and name in names() else None


def __getattr__(name: str) -> OpObject:
    if name.startswith("_"):
        raise AttributeError(name)
    # Start-up time: the first use of an op pays for the call layer.
    from tridsl.api.library import default_services, standard_op
    from tridsl.api.ops import UnknownOp

    try:
        op = globals()[name] = standard_op(name, source, default_services(), trees)  # from now on an ordinary attribute
    except TriError as problem:
        raise UnknownOp(*problem.diagnostics) from None
    return op


def __dir__() -> list[str]:
    return sorted({*globals(), *names()})
