"""Where ops come from: files, texts, the standard library."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tridsl.api.engine import Engine, Services
from tridsl.api.modules import Resolver, TriModule
from tridsl.api.ops import Namespace, OpObject, make_op
from tridsl.api.store import DiskStore
from tridsl.diagnostics import SourceFile, TriError, error
from tridsl.program.realise import Realiser
from tridsl.program.tuner import Tuner
from tridsl.runtime.artifacts import Artifacts

if TYPE_CHECKING:
    from tridsl.syntax.nodes import Module

Library = Callable[[str], SourceFile]
"""The standard library: the source that defines an op; raises TriError for a name it does not have."""


class Readable(Protocol):
    """A file in a package: `importlib.resources.files("pkg") / "kernels.tri"`."""

    @property
    def name(self) -> str: ...

    def read_text(self, encoding: str) -> str: ...


_TUNERS: list[Tuner] = []


def wire(tuner: Tuner) -> None:
    """Who is asked for winners from now on; said once, before the first op is made."""
    _TUNERS[:] = [tuner]


@cache
def default_services() -> Services:
    """Kernels and records in the user's cache directory, one table of loaded kernels for the process."""
    artifacts = Artifacts()
    return Services(realiser=Realiser(store=DiskStore(artifacts)), tuner=_TUNERS[0] if _TUNERS else None, native=artifacts)


def resolver_for(library: Library, folder: Path | None) -> Resolver:
    """`use stdlib: name` reads the library; `use other: name` reads `other.tri` in `folder`."""

    def resolve(module: str, name: str) -> SourceFile | None:
        try:
            if module == "stdlib":
                return library(name)
            path = None if folder is None else folder / f"{module}.tri"
            return (
                None
                if path is None or not path.is_file()
                else SourceFile(name=str(path), text=path.read_text(encoding="utf-8"))
            )
        except TriError:
            return None

    return resolve


def load(path: str | os.PathLike[str] | Readable, library: Library, services: Services) -> Namespace:
    """The ops of a `.tri` file: a path, `package:file.tri`, `stdlib:name`, or a file object of `importlib.resources`.

    Raises E0803 for a file that cannot be read, and everything that is wrong in it.
    """
    if isinstance(path, str) and ":" in path and not os.path.exists(path):
        module, _, inside = path.partition(":")
        if module == "stdlib":
            return _namespace(library(inside), resolver_for(library, None), services)
        path = _packaged(module, inside, path)
    if isinstance(path, (str, os.PathLike)):
        file = Path(path)
        source, folder = _read(file, str(path)), file.parent
    else:
        source, folder = _read(path, path.name), None
    return _namespace(source, resolver_for(library, folder), services)


def _packaged(package: str, inside: str, written: str) -> Readable:
    from importlib.resources import files  # start-up time: few programs keep their ops in a package

    try:
        return files(package).joinpath(inside)
    except (ImportError, ValueError) as problem:
        raise error(
            "E0803", f"cannot read `{written}`: {problem}", help="write package:file.tri, or the path of a file"
        ) from None


def compile_text(text: str, library: Library, services: Services) -> Namespace:
    """The ops of `.tri` text. Raises everything that is wrong in it."""
    return _namespace(SourceFile(name="<string>", text=text), resolver_for(library, None), services)


def standard_op(name: str, library: Library, services: Services, trees: Callable[[], str]) -> OpObject:
    """Op `name` of the standard library. `trees` gives the library's syntax trees, so that it is not parsed at all."""

    def syntax(source: SourceFile) -> Module | None:
        from tridsl.syntax import stored  # start-up time: a warm process has no need of syntax

        return stored.load(trees(), name, source)

    module = TriModule(library(name), resolver_for(library, None), services.realiser.store, trusted=True, syntax=syntax)
    return make_op(Engine(module=module, name=name, services=services))


def _namespace(source: SourceFile, resolver: Resolver, services: Services) -> Namespace:
    module = TriModule(source, resolver, services.realiser.store)
    _ = module.summary  # what is wrong in the text is said now
    return Namespace(module, services)


def _read(file: Path | Readable, name: str) -> SourceFile:
    try:
        return SourceFile(name=name, text=file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise error(
            "E0803", f"cannot read `{name}`: {problem}", help="give the path of a UTF-8 text file with ops"
        ) from None
