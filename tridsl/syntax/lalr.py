"""The Lark parser for the grammar: built once a process. Imports Lark, so import this module only when text is parsed."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from functools import cache
from pathlib import Path
from typing import Any

import lark
from lark import Lark, UnexpectedInput
from lark.grammar import Rule
from lark.lexer import TerminalDef

from tridsl import grammar
from tridsl.whole_files import write_whole

__all__ = ["UnexpectedInput", "parser"]


@cache
def parser(cache_dir: Path | None = None) -> Lark:
    """The LALR parser of `grammar/tri.lark`.

    Constructing its tables takes hundreds of milliseconds, so they come with the package as JSON (`grammar/tables.json`, data
    only: nothing in it is executed), made for this grammar and one version of Lark. With another version of Lark they
    are made once and kept in `cache_dir`; a cache that cannot be read or written costs time only.
    """
    key = _key()
    shipped = _load(grammar.tables(), key)
    if shipped is not None:
        return shipped
    if cache_dir is None:
        return construct()
    path = cache_dir / f"grammar-{key}.json"
    stored = _read(path, key)
    if stored is not None:
        return stored
    made = construct()
    _write(path, serialise(made))
    return made


def _key() -> str:
    return f"{grammar.version()}-lark-{lark.__version__}"


def construct() -> Lark:
    """A parser made from the grammar itself."""
    return Lark(grammar.text(), parser="lalr", lexer="contextual", propagate_positions=True, maybe_placeholders=True)


def serialise(made: Lark) -> str:
    """Key, checksum and tables of a parser, as `parser` reads them; what `grammar/tables.json` holds. The same text for the same grammar."""
    data, memo = made.memo_serialize([TerminalDef, Rule])
    data["parser"]["parser"] = _numbered(data["parser"]["parser"])
    body = json.dumps({"data": data, "memo": memo}, separators=(",", ":"), default=sorted)  # sets become lists
    return f"{_key()} {hashlib.sha256(body.encode()).hexdigest()}\n{body}\n"


def _numbered(table: dict[str, Any]) -> dict[str, Any]:
    """The parse table with its tokens numbered by name, and its states as a parser comes to them: Lark's numbers follow the order of sets, which
    is another in each process."""
    names: dict[int, str] = table["tokens"]
    tokens = {name: number for number, name in enumerate(sorted(names.values()))}
    states: dict[int, int] = {}
    rows: dict[int, dict[int, Any]] = {}
    waiting = deque(table["start_states"].values())
    while waiting:
        state = waiting.popleft()
        if state in states:
            continue
        states[state] = len(states)
        row = sorted((tokens[names[token]], action) for token, action in table["states"][state].items())
        rows[state] = dict(row)
        waiting += [target for _, (reduces, target) in row if not reduces]

    def renamed(ends: dict[str, int]) -> dict[str, int]:
        return {rule: states[state] for rule, state in ends.items()}

    return {
        "tokens": {number: name for name, number in tokens.items()},
        "states": {
            states[state]: {token: (reduces, target if reduces else states[target]) for token, (reduces, target) in row.items()}
            for state, row in rows.items()
        },
        "start_states": renamed(table["start_states"]),
        "end_states": renamed(table["end_states"]),
    }


def _load(text: str, key: str) -> Lark | None:
    header, _, body = text.partition("\n")
    body = body.removesuffix("\n")
    if header != f"{key} {hashlib.sha256(body.encode()).hexdigest()}":
        return None
    stored: Lark = Lark._load_from_dict(**_whole_keys(json.loads(body)))  # type: ignore[no-untyped-call]  # as Lark's standalone parsers do
    return stored


def _read(path: Path, key: str) -> Lark | None:
    try:
        return _load(path.read_text(encoding="utf-8"), key)
    except (OSError, UnicodeDecodeError):
        return None


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_whole(path, text.encode())
    except OSError:
        return


def _whole_keys(value: Any) -> Any:
    """JSON knows string keys only; the tables are keyed by state and token numbers."""
    if isinstance(value, dict):
        return {int(key) if key.isdigit() else key: _whole_keys(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_keys(inner) for inner in value]
    return value
