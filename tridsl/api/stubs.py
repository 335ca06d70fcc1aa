"""Type stubs of ops for editors and type checkers, generated from their text."""

from __future__ import annotations

from collections.abc import Iterable

from tridsl.api.signatures import OpSummary, Parameter, signature_line

HEADER = '''"""Generated from the `.tri` files by `tridsl.api.stubs`; a test keeps it up to date."""

from typing import Any

from tridsl.api.ops import OpObject
from tridsl.diagnostics import SourceFile

def names() -> tuple[str, ...]: ...
def source(name: str) -> SourceFile: ...
def resolve(module: str, name: str) -> SourceFile | None: ...
'''

PYTHON_TYPES = {"bool": "bool", "f16": "float", "bf16": "float", "f32": "float", "f64": "float"}


def library_stub(ops: Iterable[OpSummary]) -> str:
    """The stub of a module whose attributes are `ops`: a class with the call's signature for each, and the attribute."""
    return HEADER + "".join(_op(op) for op in ops)


def _op(op: OpSummary) -> str:
    first = op.overloads[0]
    named = {p.name for p in first.parameters}
    keywords = [*dict.fromkeys(t.name for o in op.overloads for t in o.types if t.name not in named)]
    optional_seen = False
    parameters = ["self"]
    late: list[str] = []
    for parameter in first.parameters:
        optional_seen = optional_seen or parameter.optional
        text = f"{parameter.name}: {_type(parameter)}" + (" = ..." if parameter.optional else "")
        (late if optional_seen and not parameter.optional else parameters).append(text)
    options = [f"{name}: Any = ..." for name in keywords]
    options += [
        text
        for name, text in (
            ("out", "out: Any = ..."),
            ("device", "device: str = ..."),
            ("threads", "threads: int | None = ..."),
            ("tune", "tune: bool = ..."),
        )
        if name not in named
    ]
    name = f"_{op.name}"
    lines = [f"class {name}(OpObject):"]
    lines += [f"    # {signature_line(op.name, overload)}" for overload in op.overloads]
    lines += ["    def __call__(", *(f"        {p}," for p in [*parameters, "*", *late, *options]), "    ) -> Any: ..."]
    return "\n" + "\n".join([*lines, "", f"{op.name}: {name}"]) + "\n"


def _type(parameter: Parameter) -> str:
    if parameter.role in ("input", "inout"):
        return "Any"
    return PYTHON_TYPES.get(parameter.dtype, "int" if parameter.dtype[:1] in "iu" else "Any")
