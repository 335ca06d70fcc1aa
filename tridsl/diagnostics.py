"""Errors as values: where in the user's text, what is wrong, what to write instead.

The bottom of the import order. Stages return or raise `TriError` with every diagnostic they found; nothing here prints.
"""

from __future__ import annotations

import unicodedata
from dataclasses import field

from tridsl.structs import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A named text. `name` is what the user would type to find it: a path, `stdlib:matmul`, or `<string>`."""

    name: str
    text: str = field(repr=False)

    def line_column(self, offset: int) -> tuple[int, int]:
        """1-based line and column (in characters) of an offset into `text`."""
        line = self.text.count("\n", 0, offset) + 1
        return line, offset - (self.text.rfind("\n", 0, offset) + 1) + 1

    def line(self, number: int) -> str:
        """Line `number` (1-based) exactly as written, without its newline."""
        lines = self.text.split("\n")
        return lines[number - 1] if 0 < number <= len(lines) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Half-open range of characters `[start, end)` in a source.

    Where something stands says nothing about what it is: a span equals every span, and None. So spans are outside the equality and
    the hash of whatever has one, and nodes are still compared field by field in C.
    """

    source: SourceFile
    start: int
    end: int

    def __eq__(self, other: object) -> bool:
        return other is None or isinstance(other, Span)

    def __hash__(self) -> int:
        return hash(None)

    def to(self, other: Span) -> Span:
        return Span(source=self.source, start=min(self.start, other.start), end=max(self.end, other.end))


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A second place that explains the first, with a short text of its own."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One mistake.

    `message` stands alone without the snippet. `label` is the short text behind the carets. `help` says what to write
    instead; `example` is a correct line of `.tri` (tests parse it). `code` is a key of `tridsl explain`.
    """

    code: str
    message: str
    span: Span | None = None
    label: str = ""
    others: tuple[Label, ...] = ()
    notes: tuple[str, ...] = ()
    help: str = ""
    example: str = ""

    def render(self) -> str:
        """Plain text in the manner of rustc: header, `--> file:line:column`, the line as written, carets, notes, help."""
        out = [f"error[{self.code}]: {self.message}"]
        labelled = [(self.span, self.label)] if self.span else []
        labelled += [(other.span, other.text) for other in self.others]
        width = max((len(str(span.source.line_column(span.end)[0])) for span, _ in labelled), default=1)
        for position, (span, text) in enumerate(labelled):
            out += _snippet(span, text, width, "-->" if position == 0 else ":::")
        out += [f"{' ' * width} = note: {note}" for note in self.notes]
        if self.help:
            out.append(f"{' ' * width} = help: {self.help}")
        if self.example:
            out += [f"{' ' * width}   {line}" for line in ("example:", *("    " + line for line in self.example.split("\n")))]
        return "\n".join(out)


_WINDOW = (60, 100)
"""Of a long line, this many characters are shown before and after the place."""


def _snippet(span: Span, text: str, width: int, arrow: str) -> list[str]:
    """The first and the last line of a span as written, with carets; `text` behind the last carets.

    A span behind the end of the text is shown where the text ends, not on the empty line after its last newline.
    """
    source = span.source
    behind = span.start >= len(source.text)
    start = len(source.text.rstrip()) if behind else span.start
    end = start if behind else max(start, min(span.end, len(source.text)))
    number, column = source.line_column(start)
    last, last_column = source.line_column(max(start, end - 1))
    out = [f"{' ' * width}{arrow} {source.name}:{number}:{column}", f"{' ' * width} |"]
    if last == number:
        return out + _underlined(source.line(number), number, column - 1, column - 1 + end - start, width, text)
    first_line, last_line = source.line(number), source.line(last)
    out += _underlined(first_line, number, column - 1, len(first_line), width, "")
    if last > number + 1:
        out.append("...")
    indentation = len(last_line) - len(last_line.lstrip())
    return out + _underlined(last_line, last, min(indentation, last_column - 1), last_column, width, text)


def _underlined(line: str, number: int, start: int, end: int, width: int, text: str) -> list[str]:
    """A numbered line and, below it, carets under the characters `[start, end)`, at least one."""
    before, after = max(0, start - _WINDOW[0]), min(len(line), start + _WINDOW[1])
    cut = ("…" if before else "", "…" if after < len(line.rstrip("\r")) else "")
    shown = cut[0] + "".join(map(_visible, line[before:after].rstrip("\r"))) + cut[1]
    lead = " " * len(cut[0]) + "".join("\t" if c == "\t" else " " * _cells(c) for c in line[before:start])
    carets = "".join("\t" if c == "\t" else "^" * _cells(c) for c in line[start : min(end, after)].rstrip("\r"))
    if "^" not in carets:
        carets = "^"
    return [f"{number:>{width}} | {shown}", f"{' ' * width} | {lead}{carets}{' ' + text if text else ''}".rstrip()]


def _visible(character: str) -> str:
    """A character that is safe on a terminal: control characters and those that change the direction become signs."""
    if character == "\t" or unicodedata.category(character) not in ("Cc", "Cf", "Cs"):
        return character
    return chr(0x2400 + ord(character)) if ord(character) < 0x20 else "\N{REPLACEMENT CHARACTER}"


def _cells(character: str) -> int:
    """Terminal cells a character takes: two for East Asian wide forms, none for combining marks."""
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


class TriError(Exception):
    """Everything a user can cause. `str()` shows code, line and carets of every diagnostic of the stage that failed."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__(*diagnostics)
        self.diagnostics = diagnostics

    @property
    def code(self) -> str:
        return self.diagnostics[0].code

    def __str__(self) -> str:
        return "\n\n".join(d.render() for d in self.diagnostics)


class CheckFailed(TriError, IndexError):
    """A running kernel met an index outside its tensor, or a broken contract over a run-time length (E0541).

    Results of the call are unspecified. It is an IndexError too, as NumPy's indexing raises.
    """

    def __init__(self, message: str) -> None:
        super().__init__(Diagnostic(code="E0541", message=message))


def error(code: str, message: str, span: Span | None = None, **more: object) -> TriError:
    """A `TriError` of one diagnostic; `more` are further fields of `Diagnostic`."""
    return TriError(Diagnostic(code=code, message=message, span=span, **more))  # type: ignore[arg-type]
