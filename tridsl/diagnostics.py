"""Errors as values: where in the user's text, what is wrong, what to write instead.

The bottom of the import order. Stages return or raise `TriError` with every diagnostic they found; nothing here prints.
"""

from __future__ import annotations

from dataclasses import dataclass, field


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
    """Half-open range of characters `[start, end)` in a source."""

    source: SourceFile
    start: int
    end: int

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
        width = max((len(str(span.source.line_column(span.start)[0])) for span, _ in labelled), default=1)
        for position, (span, text) in enumerate(labelled):
            out += _snippet(span, text, width, "-->" if position == 0 else ":::")
        out += [f"{' ' * width} = note: {note}" for note in self.notes]
        if self.help:
            out.append(f"{' ' * width} = help: {self.help}")
        if self.example:
            out += [f"{' ' * width}   {line}" for line in ("example:", *("    " + line for line in self.example.split("\n")))]
        return "\n".join(out)


def _snippet(span: Span, text: str, width: int, arrow: str) -> list[str]:
    line, column = span.source.line_column(span.start)
    written = span.source.line(line)
    length = max(1, min(span.end - span.start, len(written) - column + 1))
    lead = "".join("\t" if c == "\t" else " " * _cells(c) for c in written[: column - 1])
    carets = "^" * max(1, sum(_cells(c) for c in written[column - 1 : column - 1 + length]))
    return [
        f"{' ' * width}{arrow} {span.source.name}:{line}:{column}",
        f"{' ' * width} |",
        f"{line:>{width}} | {written}",
        f"{' ' * width} | {lead}{carets}{' ' + text if text else ''}",
    ]


def _cells(character: str) -> int:
    """Terminal cells a character takes: two for East Asian wide forms, none for combining marks."""
    import unicodedata

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


def error(code: str, message: str, span: Span | None = None, **more: object) -> TriError:
    """A `TriError` of one diagnostic; `more` are further fields of `Diagnostic`."""
    return TriError(Diagnostic(code=code, message=message, span=span, **more))  # type: ignore[arg-type]
