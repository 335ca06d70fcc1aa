"""A parser's refusal to a diagnostic in the user's words: known mistakes by example, then what would have been accepted."""

from __future__ import annotations

import re
from functools import lru_cache

from lark import Lark, UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tridsl import grammar
from tridsl.diagnostics import SourceFile, Span, TriError, error
from tridsl.syntax.layout import RESERVED, Layout, scan

_READABLE = {
    "NAME": "a name",
    "MEMBER": "a name",
    "NUMBER": "a number",
    "STRING": "a string",
    "LITERAL": "`true`, `inf`, …",
    "QUALIFIER": "`const`, `inout`",
    "COMPARE": "a comparison",
    "_NL": "a new line",
    "$END": "the end of the file",
}
_OPERATORS = frozenset({"OR", "AND", "COMPARE", "BAR", "CARET", "AMPERSAND", "SHIFT", "PLUS", "MINUS", "STAR", "SLASH"})
_VALUES = frozenset({"NAME", "NUMBER", "STRING", "LITERAL", "LPAR", "PLUS", "MINUS", "TILDE", "NOT", "SCAN", "_IF"})


def diagnose(parser: Lark, source: SourceFile, layout: Layout, unexpected: UnexpectedInput) -> TriError:
    """The one error to report for a text that `parser` refuses.

    In order: a bracket without partner that stands before the refused place, a known mistake, a reserved word where a
    name belongs, a character outside the language, and at last what was found and what could have stood there.
    """
    found = _refused(source, layout, unexpected)
    if layout.bracket_error and layout.bracket_error.span and layout.bracket_error.span.start <= found.start:
        return TriError(layout.bracket_error)
    accepted = (isinstance(unexpected, UnexpectedToken) and unexpected.accepts) or set()
    for mistake in (*_anywhere(), *_by_example(parser).get(_place(unexpected), ())):
        span = _covered(mistake, layout, found)
        if span is not None and (not mistake.accepts or mistake.accepts in accepted):
            return error(mistake.code, mistake.message, span, help=mistake.help, example=mistake.example.strip("\n"))
    written = source.text[found.start : found.end]
    if isinstance(unexpected, UnexpectedCharacters):
        return error(
            "E0114",
            f"{_shown(written)} is not part of the language",
            found,
            help="remove it; names are made of the letters a-z and A-Z, digits and `_`",
        )
    assert isinstance(unexpected, UnexpectedToken)
    if written in RESERVED and accepted & {"NAME"}:
        return error(
            "E0115",
            f"`{written}` is a word of the language and cannot be a name",
            found,
            label=f"expected {expectation(parser, accepted)}",
            help=f"choose another name, for example `{written}_`",
        )
    what = "the file ends too early" if unexpected.token.type == "$END" else f"{_shown(written)} cannot stand here"
    return error("E0101", what, found, label=f"expected {expectation(parser, accepted)}")


def expectation(parser: Lark, accepted: set[str]) -> str:
    """A set of terminals in readable words: "`,`, `]` or an operator"."""
    accepted = set(accepted)
    groups = []
    if accepted >= {"NAME", "NUMBER", "LPAR", "MINUS"}:
        groups.append("a value")
        accepted -= _VALUES
    if accepted >= _OPERATORS - {"COMPARE", "OR", "AND"}:
        groups.append("an operator")
        accepted -= _OPERATORS
    words = sorted(_READABLE.get(name) or f"`{_spelling(parser, name)}`" for name in accepted)
    words = sorted(set(words), key=lambda word: (not word.startswith("`"), word)) + groups
    if not words:
        return "nothing more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _spelling(parser: Lark, terminal: str) -> str:
    """What a terminal looks like: its text, or the word before the lookahead that ends a word."""
    return re.sub(r"\(\?!.*\)$", "", parser.get_terminal(terminal).pattern.value).replace("\\", "")


def _shown(written: str) -> str:
    if written == "\n" or not written:
        return "the end of the line"
    return f"`{written}`" if written.isprintable() else f"the character U+{ord(written[0]):04X}"


def _refused(source: SourceFile, layout: Layout, unexpected: UnexpectedInput) -> Span:
    """Where the refused token or character stands; at the end of what is written when the file ends too early."""
    if isinstance(unexpected, UnexpectedToken) and unexpected.token.type == "$END":
        end = len(layout.text.rstrip())
        return Span(source=source, start=end, end=end)
    start = unexpected.pos_in_stream or 0
    length = len(unexpected.token) if isinstance(unexpected, UnexpectedToken) else 1
    return Span(source=source, start=start, end=start + length)


def _place(unexpected: UnexpectedInput) -> tuple[int, str]:
    """The parser's state and the kind of token that it refuses."""
    kind = unexpected.token.type if isinstance(unexpected, UnexpectedToken) else "character"
    return unexpected.state.position, kind


@lru_cache(maxsize=4)
def _by_example(parser: Lark) -> dict[tuple[int, str], tuple[grammar.Mistake, ...]]:
    """Every place where a text of `mistakes.toml` is refused. Lark's `match_examples` would take any token in a like
    state, and only at the same nesting depth; here state and kind of token must agree, at any depth."""
    places: dict[tuple[int, str], tuple[grammar.Mistake, ...]] = {}
    for mistake in grammar.mistakes():
        for snippet in mistake.bad:
            try:
                parser.parse(scan(SourceFile(name="example", text=grammar.program(snippet))).text)
            except UnexpectedInput as unexpected:
                known = places.get(_place(unexpected), ())
                if mistake not in known:
                    places[_place(unexpected)] = (*known, mistake)
    return places


def _anywhere() -> tuple[grammar.Mistake, ...]:
    return tuple(mistake for mistake in grammar.mistakes() if mistake.anywhere)


def _covered(mistake: grammar.Mistake, layout: Layout, found: Span) -> Span | None:
    """The place to mark, or None where the mistake does not apply: `covers` must match over the refused place."""
    text = found.source.text
    first = text.rfind("\n", 0, found.start) + 1
    if not mistake.covers:
        if text[found.start : found.end] != "}" or text[first : found.start].strip():
            return found
        end = len(layout.text[: found.start].rstrip())  # what is missing is missed above, not at the brace below
        return Span(source=found.source, start=end, end=end)
    last = text.find("\n", found.start)
    for match in re.finditer(mistake.covers, text[first : last if last >= 0 else len(text)]):
        if match.start() <= found.start - first < max(match.end(), match.start() + 1):
            return Span(source=found.source, start=first + match.start(), end=first + match.end())
    return None
