"""The grammar of `.tri`, its syntax errors by example, and the explanation of every error code: data, read once."""

from __future__ import annotations

import hashlib
import re
import tomllib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable

import msgspec

_FRAME = "op f(x: f32[N], A: f32[N, N], a: f32, b: f32) -> y: f32[N] {\n  %s\n}"
_ITEM = re.compile(r"(?:op|monoid|schedule|bench|use|def|import|@jit)\b")


class Mistake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A syntax error by example; `mistakes.toml` describes the fields."""

    code: str
    message: str
    help: str
    example: str
    bad: tuple[str, ...]
    covers: str = ""
    anywhere: bool = False
    accepts: str = ""


class Explanation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What `tridsl explain` says of a code: `wrong` is a minimal wrong program (or empty), `right` the corrected one."""

    title: str
    text: str
    wrong: str
    right: str


class _Mistakes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    mistake: tuple[Mistake, ...]


@cache
def text() -> str:
    """The Lark grammar."""
    return _file("tri.lark").read_text(encoding="utf-8")


@cache
def tables() -> str:
    """The parser's tables made from the grammar (`make tables`); `syntax.lalr` checks that they belong to it."""
    return _file("tables.json").read_text(encoding="utf-8")


@cache
def version() -> str:
    """Hash of the grammar: part of every cache key that depends on how text is read."""
    return hashlib.sha256(text().encode()).hexdigest()[:16]


@cache
def mistakes() -> tuple[Mistake, ...]:
    """Every known syntax error, in the order in which they are tried."""
    return msgspec.toml.decode(_file("mistakes.toml").read_bytes(), type=_Mistakes).mistake


@cache
def explanations() -> dict[str, Explanation]:
    """Error code to its explanation, from `mistakes.toml` and all of `errors/*.toml`.

    ValueError where two of them explain one code.
    """
    found = {
        mistake.code: Explanation(
            title=mistake.message,
            text=f"Help: {mistake.help}.",
            wrong=program(mistake.bad[0]),
            right=program(mistake.example),
        )
        for mistake in reversed(mistakes())
    }
    for file in sorted(_file("errors").iterdir(), key=lambda entry: entry.name):
        if not file.name.endswith(".toml"):
            continue
        for code, fields in tomllib.loads(file.read_text(encoding="utf-8")).items():
            if code in found:
                raise ValueError(f"{code} is explained twice, the second time in grammar/errors/{file.name}")
            found[code] = msgspec.convert(fields, Explanation)
    return dict(sorted(found.items()))


def program(snippet: str) -> str:
    """A whole text for a snippet of `mistakes.toml`: statements are put into an op, everything else stands for itself."""
    snippet = snippet.strip("\n")
    return snippet if _ITEM.match(snippet) else _FRAME % snippet


def _file(name: str) -> Traversable:
    return files(__name__).joinpath(name)
