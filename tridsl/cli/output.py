"""What a command found, and how it is shown: text for people, `--json` for programs, errors, exit status."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from tridsl.cli.settings import Settings
from tridsl.diagnostics import Diagnostic, TriError
from tridsl.structs import dataclass

OK, USER, USAGE, NOTHING_MEASURED, OUR_BUG, INTERRUPTED, NO_READER = 0, 1, 2, 3, 70, 130, 141
"""Exit statuses. 70 is EX_SOFTWARE of sysexits.h; 130 and 141 are what a shell reports for SIGINT and SIGPIPE."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """`data` is the JSON document; `text` the lines and rich tables that a person reads; `status` the exit status."""

    data: Mapping[str, Any]
    text: tuple[Any, ...] = ()
    status: int = OK


def present(command: Callable[[Settings], Report], read: Callable[[], Settings], *, as_json: bool) -> int:
    """Run a command and show what it returns or raises; the exit status."""
    settings = Settings()
    try:
        settings = read()
        report = command(settings)
        if as_json:
            print(json.dumps(report.data, indent=2, ensure_ascii=False, default=_plain))
        else:
            _show(report.text, settings)
        sys.stdout.flush()
        return report.status
    except TriError as problem:
        if as_json:
            print(json.dumps({"errors": [diagnostic_data(d) for d in problem.diagnostics]}, indent=2, ensure_ascii=False))
        else:
            print(rendered(problem, settings.colour), file=sys.stderr)
        return USER
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes stdout once more at its end
        return NO_READER
    except Exception:  # noqa: BLE001 (whatever is no TriError is our bug, and says so)
        traceback.print_exc()
        print(
            "\nThis is a bug of tridsl, not of your input. Please report it with the lines above, the command and your file.",
            file=sys.stderr,
        )
        return OUR_BUG


def _show(text: tuple[Any, ...], settings: Settings) -> None:
    """Strings as they are; everything else is rich's to lay out (unwrapped where no terminal sets a width)."""
    console: Any = None
    for part in text:
        if isinstance(part, str):
            print(part)
            continue
        if console is None:
            from rich.console import Console  # start-up time: only commands with tables pay for it

            sys.stdout.flush()
            width = settings.width or (None if sys.stdout.isatty() else 160)
            console = Console(width=width, no_color=not settings.colour, highlight=False, soft_wrap=False)
        console.print(part)


def diagnostic_data(diagnostic: Diagnostic) -> dict[str, Any]:
    """A diagnostic as JSON; lines and columns are 1-based."""
    data: dict[str, Any] = {"code": diagnostic.code, "message": diagnostic.message}
    if diagnostic.span is not None:
        source = diagnostic.span.source
        (line, column), (end_line, end_column) = source.line_column(diagnostic.span.start), source.line_column(diagnostic.span.end)
        data |= {"file": source.name, "line": line, "column": column, "end_line": end_line, "end_column": end_column}
    more = {"label": diagnostic.label, "notes": list(diagnostic.notes), "help": diagnostic.help, "example": diagnostic.example}
    return data | {name: value for name, value in more.items() if value}


def rendered(problem: TriError, colour: bool) -> str:
    """The text of an error, with ANSI colours on a terminal: codes and carets red, help and notes cyan."""
    lines = str(problem).split("\n")
    return "\n".join(_coloured(line) for line in lines) if colour else "\n".join(lines)


def _coloured(line: str) -> str:
    bare = line.lstrip(" |0123456789")
    if line.startswith("error["):
        head, _, rest = line.partition(":")
        return f"\x1b[1;31m{head}\x1b[0;1m:{rest}\x1b[0m"
    if bare.startswith("^"):
        return f"\x1b[31m{line}\x1b[0m"
    if bare.startswith(("= help", "= note", "-->", ":::")):
        return f"\x1b[36m{line}\x1b[0m"
    return line


def _plain(value: Any) -> Any:
    """Values that JSON lacks: NumPy scalars, paths, sets."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(value)
