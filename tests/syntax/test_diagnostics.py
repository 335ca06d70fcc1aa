"""How a diagnostic looks on a terminal."""

from __future__ import annotations

import pytest

from tridsl.diagnostics import Diagnostic, Label, SourceFile, Span


def render(text: str, start: int, end: int) -> list[str]:
    span = Span(source=SourceFile(name="a.tri", text=text), start=start, end=end)
    return Diagnostic(code="E0101", message="m", span=span, label="here").render().split("\n")[1:]


@pytest.mark.parametrize(
    ("text", "start", "end", "lines"),
    [
        ("y = x", 4, 5, [" --> a.tri:1:5", "  |", "1 | y = x", "  |     ^ here"]),
        ("\ty\tx\n", 1, 4, [" --> a.tri:1:2", "  |", "1 | \ty\tx", "  | \t^\t^ here"]),
        ("# 日本 x", 5, 6, [" --> a.tri:1:6", "  |", "1 | # 日本 x", "  |        ^ here"]),
        ("e\u0301 x", 3, 4, [" --> a.tri:1:4", "  |", "1 | e\u0301 x", "  |   ^ here"]),
        ("a\nb\n\n", 5, 5, [" --> a.tri:2:2", "  |", "2 | b", "  |  ^ here"]),
        ("", 0, 0, [" --> a.tri:1:1", "  |", "1 | ", "  | ^ here"]),
        ("abc\n", 3, 4, [" --> a.tri:1:4", "  |", "1 | abc", "  |    ^ here"]),
        ("ab\ncd", 1, 4, [" --> a.tri:1:2", "  |", "1 | ab", "  |  ^", "2 | cd", "  | ^ here"]),
        ("f(\n x,\n  y)", 1, 11, [" --> a.tri:1:2", "  |", "1 | f(", "  |  ^", "...", "3 |   y)", "  |   ^^ here"]),
        ("a \x1b[31m\r\nb", 2, 3, [" --> a.tri:1:3", "  |", "1 | a ␛[31m", "  |   ^ here"]),
        ("a \u202e b", 2, 3, [" --> a.tri:1:3", "  |", "1 | a \ufffd b", "  |   ^ here"]),
    ],
)
def test_snippets(text: str, start: int, end: int, lines: list[str]) -> None:
    assert render(text, start, end) == lines


def test_long_lines_are_cut_around_the_place() -> None:
    shown = render("a" * 500 + "bcd" + "a" * 500, 500, 503)
    assert all(len(line) < 180 for line in shown)
    assert [shown[2][i] for i, c in enumerate(shown[3]) if c == "^"] == ["b", "c", "d"]


def test_line_numbers_of_all_snippets_share_a_width() -> None:
    source = SourceFile(name="a.tri", text="x\n" * 12)
    here, there = Span(source=source, start=2, end=3), Span(source=source, start=20, end=21)
    text = Diagnostic(code="E0101", message="m", span=here, others=(Label(span=there, text="this"),), help="h").render()
    assert "\n 2 | x\n" in text and "\n11 | x\n" in text and "\n   = help: h" in text
