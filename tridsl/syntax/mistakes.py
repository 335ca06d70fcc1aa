"""A parser's refusal to a diagnostic in the user's words."""

from __future__ import annotations

from lark import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

from tridsl.diagnostics import Diagnostic, SourceFile, Span, TriError
from tridsl.syntax.layout import Layout


def diagnose(source: SourceFile, layout: Layout, unexpected: UnexpectedInput) -> TriError:
    """The one error to report for a text that the grammar refuses."""
    start = min(unexpected.pos_in_stream or 0, len(source.text))
    if isinstance(unexpected, UnexpectedToken) and unexpected.token.type == "$END":
        start = len(source.text.rstrip())
    bracket = layout.bracket_error
    if bracket and bracket.span and bracket.span.start <= start:
        return TriError(bracket)
    if isinstance(unexpected, UnexpectedCharacters):
        span = Span(source=source, start=start, end=start + 1)
        return TriError(Diagnostic(code="E0101", message=f"`{source.text[start]}` is not part of the language", span=span))
    assert isinstance(unexpected, UnexpectedToken)
    span = Span(source=source, start=start, end=start + len(unexpected.token))
    expected = ", ".join(sorted(unexpected.accepts or ()))
    return TriError(
        Diagnostic(code="E0101", message=f"unexpected `{unexpected.token}`", span=span, label=f"expected {expected}")
    )
