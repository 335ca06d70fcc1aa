"""Which newlines end a statement, which brackets belong together, where the comments are: one linear scan before parsing.

A newline ends a statement when it stands outside `()` and `[]`, after a token that can end a statement and before one
that can begin one. Every other newline, and every comment, becomes blanks of the same length, so that offsets stay
those of the user's text.
"""

from __future__ import annotations

import re

from tridsl.diagnostics import Diagnostic, Label, SourceFile, Span
from tridsl.structs import dataclass

MAXIMUM_LENGTH = 1 << 20
"""Characters in one source."""

MAXIMUM_DEPTH = 200
"""Nesting of brackets and of syntax nodes: keeps every recursive walk far from Python's recursion limit."""

RESERVED = frozenset(
    [
        "and",
        "const",
        "dyn",
        "else",
        "false",
        "for",
        "highest",
        "if",
        "in",
        "inf",
        "inout",
        "lowest",
        "nan",
        "not",
        "or",
        "scan",
        "then",
        "true",
        "when",
        "where",
    ]
)
"""Words that are never names (the same list as NAME's in the grammar; a test compares them)."""

LITERALS = frozenset(["true", "false", "inf", "nan", "lowest", "highest"])

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\f]+)|(?P<newline>\n)|(?P<comment>\#[^\n]*)|(?P<text>"[^"\n]*")|(?P<word>[A-Za-z0-9_]+)
       |(?P<open>[(\[{])|(?P<close>[)\]}])|(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_CLOSER = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """`text` is what the parser reads, as long as the source. `comments` are the spans of `# …`, in order.

    `bracket_error` is the first bracket without a partner, or a too deep one; an error of the grammar that stands
    before it is the better one to report.
    """

    text: str
    comments: tuple[Span, ...]
    bracket_error: Diagnostic | None


def scan(source: SourceFile) -> Layout:
    """Lay out a source of any content. Never fails; time is linear in its length."""
    pieces: list[str] = []
    comments: list[Span] = []
    brackets = _Brackets(source)
    newline: int | None = None  # index in `pieces` of the first newline since the last token
    ends = False  # can a statement end after the last token?
    dotted = False  # the last token was a dot: what follows is a member, whatever its name
    for match in _TOKEN.finditer(source.text):
        kind, written = match.lastgroup, match.group()
        if kind == "comment":
            comments.append(Span(source=source, start=match.start(), end=match.end()))
            pieces.append(" " * len(written))
            continue
        if kind == "newline":
            if newline is None and ends and not brackets.grouping:
                newline = len(pieces)
            pieces.append(" ")
            continue
        pieces.append(written)
        if kind == "blank":
            continue
        if newline is not None and kind == "word" and not written[0].isdigit() and written not in RESERVED:
            pieces[newline] = "\n"
        newline = None
        if kind == "open":
            brackets.open(match.start(), written)
        elif kind == "close":
            brackets.close(match.start(), written)
        ends = (
            kind in ("close", "text") or kind == "word" and (dotted or written in LITERALS or written not in RESERVED)
        )
        dotted = written == "."
    return Layout(text="".join(pieces), comments=tuple(comments), bracket_error=brackets.error())


class _Brackets:
    """The stack of open brackets and the first thing wrong with it."""

    def __init__(self, source: SourceFile) -> None:
        self._source = source
        self._open: list[tuple[int, str]] = []
        self._first: Diagnostic | None = None
        self.grouping = 0
        """How many `(` and `[` are open."""

    def open(self, offset: int, bracket: str) -> None:
        self._open.append((offset, bracket))
        self.grouping += bracket != "{"
        if len(self._open) == MAXIMUM_DEPTH + 1:
            self._report(
                "E0104",
                f"brackets nest deeper than {MAXIMUM_DEPTH} levels",
                offset,
                help="name the inner parts as stages of their own",
            )

    def close(self, offset: int, bracket: str) -> None:
        while self._open and _CLOSER[self._open[-1][1]] != bracket:
            if not any(_CLOSER[opened] == bracket for _, opened in self._open[-MAXIMUM_DEPTH:]):
                break
            here = Label(span=self._span(offset), text=f"`{bracket}` closes an outer bracket")
            self._unclosed(here)
        if self._open and _CLOSER[self._open[-1][1]] == bracket:
            self.grouping -= self._open.pop()[1] != "{"
        else:
            self._report(
                "E0103", f"`{bracket}` closes nothing", offset, help="remove it, or open the bracket it closes"
            )

    def error(self) -> Diagnostic | None:
        """The first error; call it at the end of the text."""
        while self._open and not self._first:
            self._unclosed()
        return self._first

    def _unclosed(self, *others: Label) -> None:
        offset, opened = self._open.pop()
        self.grouping -= opened != "{"
        self._report(
            "E0102",
            f"`{opened}` is never closed",
            offset,
            others=others,
            help=f"write the missing `{_CLOSER[opened]}`",
        )

    def _report(self, code: str, message: str, offset: int, *, help: str, others: tuple[Label, ...] = ()) -> None:
        self._first = self._first or Diagnostic(
            code=code, message=message, span=self._span(offset), help=help, others=others
        )

    def _span(self, offset: int) -> Span:
        return Span(source=self._source, start=offset, end=offset + 1)
