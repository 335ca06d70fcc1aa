"""`tridsl explain [CODE]`."""

from __future__ import annotations

import textwrap
from difflib import get_close_matches

from tridsl import grammar
from tridsl.cli.output import Report
from tridsl.diagnostics import error
from tridsl.grammar import Explanation


def explain(code: str | None) -> Report:
    """The explanation of a code, or the list of all. E0810: no such code."""
    known = grammar.explanations()
    if code is None:
        lines = [f"{name}  {found.title}" for name, found in known.items()]
        return Report(data={name: found.title for name, found in known.items()}, text=("\n".join(lines),))
    wanted = code.strip().strip("[]").upper()
    digits = wanted.removeprefix("E")
    wanted = f"E{digits.zfill(4)}" if digits.isdigit() else wanted
    if wanted not in known:
        near = get_close_matches(wanted, known, 3, 0.6)
        raise error("E0810", f"there is no error code `{code}`", help=f"close ones: {', '.join(near)}" if near else "`tridsl explain` lists them all")
    found = known[wanted]
    data = {"code": wanted, "title": found.title, "text": found.text.strip(), "wrong": found.wrong, "right": found.right}
    return Report(data=data, text=(_text(wanted, found),))


def _text(code: str, found: Explanation) -> str:
    parts = [f"{code}: {found.title}", found.text.strip()]
    for heading, program in (("Wrong:", found.wrong), ("Right:", found.right)):
        if program.strip():
            parts.append(f"{heading}\n\n{textwrap.indent(program.strip(), '    ')}")
    return "\n\n".join(parts)
