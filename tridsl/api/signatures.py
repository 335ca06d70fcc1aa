"""What the call layer knows of a module without parsing it again: names, parameters, defaults, texts.

A `ModuleSummary` is made from syntax once and kept beside the compiled kernels, so that a warm process binds arguments,
prints help and answers `inspect.signature` without the parser.

Records of the call layer are named tuples: defining a frozen dataclass costs half a millisecond of every process's start.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from tridsl.diagnostics import TriError, error

Role = Literal["scalar", "const", "input", "inout"]
OPTIONS: tuple[tuple[str, str], ...] = (("out", "None"), ("device", "'auto'"), ("threads", "None"), ("tune", "False"))
"""Keywords every call takes beside the op's own, with their defaults as help shows them."""


class Parameter(NamedTuple):
    """`text` is the declaration as written (`A: T[M, K]`); `rank` counts core axes, 0 for scalars."""

    name: str
    text: str
    dtype: str
    role: Role
    rank: int = 0
    optional: bool = False
    default: bool | int | float | None = None


class TypeChoice(NamedTuple):
    """`T in {f32, f16} = f32`."""

    name: str
    choices: tuple[str, ...]
    default: str | None = None


class Overload(NamedTuple):
    """One `op` of a name. `text` is its whole source, `doc` the comment lines directly above it."""

    parameters: tuple[Parameter, ...]
    results: tuple[str, ...]
    result_names: tuple[str, ...]
    types: tuple[TypeChoice, ...]
    text: str
    doc: str = ""


class OpSummary(NamedTuple):
    name: str
    overloads: tuple[Overload, ...]


class ModuleSummary(NamedTuple):
    """`uses`: (module, name, digest of the text) of everything the text uses, directly or not."""

    ops: tuple[OpSummary, ...]
    uses: tuple[tuple[str, str, str], ...] = ()


def bind(
    name: str, overloads: Sequence[Overload], args: Sequence[Any], keywords: Mapping[str, Any]
) -> list[tuple[Overload, dict[str, Any]]]:
    """The overloads that accept these arguments by position and name, each with its arguments in declaration order.

    Left-out optional parameters are absent from the dictionary. Raises E0521 when no overload accepts them.
    """
    accepted: list[tuple[Overload, dict[str, Any]]] = []
    problem: TriError | None = None
    for overload in overloads:
        try:
            accepted.append((overload, _bind_one(name, overload, args, keywords)))
        except TriError as mistake:
            problem = problem or mistake
    if not accepted:
        assert problem is not None
        raise problem
    return accepted


def _bind_one(name: str, overload: Overload, args: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    parameters = overload.parameters
    if len(args) > len(parameters):
        raise _refused(name, overload, f"{name}() takes {_count(len(parameters), 'argument')}, got {len(args)}")
    bound = {p.name: value for p, value in zip(parameters, args)}
    if keywords:
        known = {p.name for p in parameters}
        for keyword, value in keywords.items():
            if keyword not in known:
                near = _nearest(
                    keyword, (*known, *(t.name for t in overload.types), *(option for option, _ in OPTIONS))
                )
                raise _refused(name, overload, f"{name}() has no parameter `{keyword}`{near}")
            if keyword in bound:
                raise _refused(name, overload, f"{name}() got `{keyword}` twice, by position and by name")
            bound[keyword] = value
    missing = [p.name for p in parameters if p.name not in bound and not p.optional]
    if missing:
        listed = ", ".join(f"`{m}`" for m in missing)
        raise _refused(name, overload, f"{name}() is missing {_count(len(missing), 'argument')}: {listed}")
    return {p.name: bound[p.name] for p in parameters if p.name in bound}


def _refused(name: str, overload: Overload, message: str) -> TriError:
    return error("E0521", message, help=f"the call is {signature_line(name, overload)}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # start-up time: needed only to phrase an error

    found = get_close_matches(word, tuple(known), n=1)
    return f"; did you mean `{found[0]}`?" if found else ""


def signature_line(name: str, overload: Overload) -> str:
    """`matmul(A: T[M, K], B: T[K, N]) -> C: U[M, N]`."""
    parameters = ", ".join(p.text for p in overload.parameters)
    results = overload.results[0] if len(overload.results) == 1 else f"({', '.join(overload.results)})"
    return f"{name}({parameters})" + (f" -> {results}" if overload.results else "")
