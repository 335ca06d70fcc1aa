"""The Lark parser for the grammar: built once a process. Imports Lark, so import this module only when text is parsed."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import lark
from lark import Lark, UnexpectedInput
from lark.grammar import Rule
from lark.lexer import TerminalDef

from tridsl import grammar

__all__ = ["UnexpectedInput", "parser"]


@cache
def parser(cache_dir: Path | None = None) -> Lark:
    """The LALR parser of `grammar/tri.lark`.

    With `cache_dir`, its tables are kept there as JSON (data only: nothing in it is executed), named by a hash of
    grammar and Lark version and checked against their own hash, so that later processes skip their construction. A
    cache that cannot be read or written costs time only.
    """
    if cache_dir is None:
        return _construct()
    key = hashlib.sha256(f"{grammar.text()}\0{lark.__version__}".encode()).hexdigest()[:16]
    path = cache_dir / f"grammar-{key}.json"
    stored = _read(path)
    if stored is not None:
        return stored
    made = _construct()
    _write(path, made)
    return made


def _construct() -> Lark:
    return Lark(grammar.text(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=True)


def _read(path: Path) -> Lark | None:
    try:
        checksum, _, body = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    if hashlib.sha256(body.encode()).hexdigest() != checksum:
        return None
    table = _whole_keys(json.loads(body))
    stored: Lark = Lark._load_from_dict(**table)  # type: ignore[no-untyped-call]  # as Lark's standalone parsers do
    return stored


def _write(path: Path, made: Lark) -> None:
    data, memo = made.memo_serialize([TerminalDef, Rule])
    body = json.dumps({"data": data, "memo": memo}, separators=(",", ":"), default=sorted)  # sets become lists
    checksum = hashlib.sha256(body.encode()).hexdigest()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{checksum}\n{body}")
        os.replace(name, path)  # atomic: a reader sees the old file, the new one or none
    except OSError:
        return


def _whole_keys(value: Any) -> Any:
    """JSON knows string keys only; the tables are keyed by state and token numbers."""
    if isinstance(value, dict):
        return {int(key) if key.isdigit() else key: _whole_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_keys(inner) for inner in value]
    return value
