"""Files of the package that are made from other files of it: `python -m tridsl.generate` (or `make tables`).

`grammar/tables.json` are the parser's tables, `stdlib/syntax.jsonl` the standard library's syntax trees. Tests say when they
are out of date.
"""

from __future__ import annotations

from pathlib import Path

from tridsl import grammar, stdlib
from tridsl.syntax import lalr, stored
from tridsl.syntax.parse import parse


def tables() -> str:
    """What `grammar/tables.json` should hold."""
    return lalr.serialise(lalr.construct())


def trees() -> str:
    """What `stdlib/syntax.jsonl` should hold."""
    return "".join(stored.dump(name, parse(stdlib.source(name))) + "\n" for name in stdlib.names())


def main() -> None:
    """Write both files beside their sources."""
    Path(grammar.__file__).with_name("tables.json").write_text(tables(), encoding="utf-8")
    Path(stdlib.__file__).with_name("syntax.jsonl").write_text(trees(), encoding="utf-8")


if __name__ == "__main__":
    main()
