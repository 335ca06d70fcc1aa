"""The standard library's texts: one `<name>.tri` for each op `name`, with its overloads.

`source("softmax")` is the file a user knows as `stdlib:softmax`. This module only reads package data.
"""

from __future__ import annotations

from functools import cache
from importlib import resources

from tridsl.diagnostics import SourceFile, error


@cache
def names() -> tuple[str, ...]:
    """The ops of the library, sorted."""
    folder = resources.files("tridsl.stdlib")
    return tuple(sorted(p.name.removesuffix(".tri") for p in folder.iterdir() if p.name.endswith(".tri")))


def source(name: str) -> SourceFile:
    """The text of op `name`. Raises TriError E0801 when the library has no such op."""
    if name not in names():
        raise error("E0801", f"the standard library has no op `{name}`", help=f"it has {', '.join(names())}")
    text = resources.files("tridsl.stdlib").joinpath(f"{name}.tri").read_text(encoding="utf-8")
    return SourceFile(name=f"stdlib:{name}", text=text)
