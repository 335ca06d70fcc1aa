"""`tridsl fmt`."""

from __future__ import annotations

import difflib
import os
import tempfile
from pathlib import Path

from tridsl.cli.files import read_text
from tridsl.cli.output import OK, USER, Report
from tridsl.diagnostics import Diagnostic, TriError, error
from tridsl.syntax.format import format_source


def fmt(files: tuple[Path, ...], *, write: bool, diff: bool) -> Report:
    """Format `files` in place, or only say what would change. Nothing is written when any of them has a syntax error."""
    texts = {file: read_text(file) for file in files}
    formatted: dict[Path, str] = {}
    problems: list[Diagnostic] = []
    for file, text in texts.items():
        try:
            formatted[file] = format_source(text, str(file))
        except TriError as problem:
            problems += problem.diagnostics
    if problems:
        raise TriError(*problems)
    changed = [file for file in files if formatted[file] != texts[file]]
    lines: list[str] = []
    for file in changed:
        if write:
            _replace(file, formatted[file])
            lines.append(f"{file}: formatted")
        elif diff:
            before, after = texts[file].splitlines(keepends=True), formatted[file].splitlines(keepends=True)
            lines.append("".join(difflib.unified_diff(before, after, str(file), f"{file} (formatted)")).rstrip("\n"))
        else:
            lines.append(f"{file}: not formatted")
    data = {"changed": [str(file) for file in changed], "unchanged": [str(file) for file in files if file not in changed], "written": write}
    return Report(data=data, text=tuple(lines), status=USER if changed and not write else OK)


def _replace(file: Path, text: str) -> None:
    """Write beside the file and rename: a full disk or a crash leaves the old text. Its permissions are kept."""
    place = file.resolve()
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="", dir=place.parent, prefix=f".{place.name}.", delete=False) as stream:
            stream.write(text)
        os.chmod(stream.name, place.stat().st_mode)
        os.replace(stream.name, place)
    except OSError as problem:
        raise error("E0815", f"cannot write `{file}`: {problem.strerror}", help="check the folder's permissions") from None
