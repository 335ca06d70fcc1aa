"""Every known mistake is told from its neighbours, with carets on the right column, and its example is right."""

from __future__ import annotations

import pytest

from tests.syntax.programs import read
from tridsl import grammar
from tridsl.diagnostics import TriError

BAD = [(mistake, snippet) for mistake in grammar.mistakes() for snippet in mistake.bad]


@pytest.mark.parametrize(("mistake", "snippet"), BAD, ids=[f"{m.code}-{n}" for n, (m, _) in enumerate(BAD)])
def test_every_bad_text_gets_its_own_message(mistake: grammar.Mistake, snippet: str) -> None:
    with pytest.raises(TriError) as caught:
        read(grammar.program(snippet))
    assert caught.value.code == mistake.code, str(caught.value)


@pytest.mark.parametrize("mistake", grammar.mistakes(), ids=lambda mistake: mistake.code)
def test_every_example_parses(mistake: grammar.Mistake) -> None:
    read(grammar.program(mistake.example))


def test_codes_are_distinct_and_in_the_range_of_syntax() -> None:
    codes = [mistake.code for mistake in grammar.mistakes()]
    assert len(codes) == len(set(codes)) >= 25
    assert all(code.startswith("E01") for code in codes)


@pytest.mark.parametrize("code", [code for code in grammar.explanations() if code.startswith("E01")])
def test_explanations_are_true(code: str) -> None:
    explanation = grammar.explanations()[code]
    read(explanation.right)
    if explanation.wrong:
        with pytest.raises(TriError) as caught:
            read(explanation.wrong)
        assert caught.value.code == code


@pytest.mark.parametrize(
    ("statement", "code", "marked"),
    [
        ("y[i] := x[i]", "E0120", ":="),
        ("y[i] += x[i]", "E0121", "+="),
        ("y[i] = x[i] ** 2", "E0129", "**"),
        ("y[i] = if a && b then 1 else 0", "E0126", "&&"),
        ("y[i] = if !a then 1 else 0", "E0128", "!"),
        ("y[i] = a ? 1 : 0", "E0130", "?"),
        ("for i in N { y[i] = x[i] }", "E0131", "for"),
        ("y[i] = sum[k, acc=f32](x[k])", "E0144", "="),
        ("y[i] = x[i][j]", "E0145", "["),
        ("y[i] = 1.5f", "E0143", "1.5f"),
        ("y[i] = if a == 1 then 2", "E0136", ""),
        ("y[i] = a < b < 1", "E0138", "<"),
        ("y[i] = x[i] $ 2", "E0114", "$"),
        ("y[i] = x[i] if x[i] > 0 else 0", "E0165", "if"),
        ("y[i] = x[i - 1; 0]", "E0167", "0"),
        ("y[i] = then", "E0115", "then"),
        ('y[i] = x[i; pad="edge"]', "E0107", '"edge"'),
        ("y[i] = x[i in 0..N]", "E0112", "i in 0..N"),
        ("y[i] = sum[k + 1](x[k])", "E0113", "k + 1"),
        ("y = f(a=1, x)", "E0111", "x"),
        ("y[i] = 18446744073709551616", "E0105", "18446744073709551616"),
        ("y[i] = 1e999", "E0105", "1e999"),
        ("y[i] = 0x10000000000000000", "E0105", "0x10000000000000000"),
        ("y[i] = exp(x[i]", "E0102", "("),
        ("y[i] = exp(x[i)]", "E0102", "["),
        ("y[i] = x[i])", "E0103", ")"),
    ],
)
def test_carets_cover_the_mistake(statement: str, code: str, marked: str) -> None:
    text = f"op f(x: f32[N]) -> y: f32[N] {{\n  {statement}\n}}"
    with pytest.raises(TriError) as caught:
        read(text)
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == code, str(caught.value)
    assert diagnostic.span is not None
    assert text[diagnostic.span.start : diagnostic.span.end] == marked
    assert diagnostic.span.source.line_column(diagnostic.span.start)[0] == 2


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        (
            "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = x[i] * / 2\n}",
            "error[E0101]: `/` cannot stand here\n --> test.tri:2:17\n  |\n2 |   y[i] = x[i] * / 2\n  |                 ^ expected a value",
        ),
        (
            "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = exp(x[i]\n}  # end\n",
            ("error[E0102]: `(` is never closed\n --> test.tri:2:13\n  |\n2 |   y[i] = exp(x[i]\n  |             ^\n"
            " ::: test.tri:3:1\n  |\n3 | }  # end\n  | ^ `}` closes an outer bracket\n  = help: write the missing `)`"),
        ),
        (
            "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = 2 ** x[i]\n}",
            ("error[E0129]: `**` is not an operator\n --> test.tri:2:12\n  |\n2 |   y[i] = 2 ** x[i]\n  |            ^^\n"
            "  = help: write `x * x`, or `pow(x, y)`\n    example:\n        y[i] = x[i] * x[i]"),
        ),
        (
            "op f(in: f32) -> y: f32 {\n}",
            ("error[E0115]: `in` is a word of the language and cannot be a name\n --> test.tri:1:6\n  |\n"
            "1 | op f(in: f32) -> y: f32 {\n  |      ^^ expected `)`, `const`, `inout`, `dyn` or a name\n"
            "  = help: choose another name, for example `in_`"),
        ),
        (
            "op f(x: f32) -> y: f32 {\n  y = x\n}\nuse # names\n\n",
            "error[E0101]: the file ends too early\n --> test.tri:4:4\n  |\n4 | use # names\n  |    ^ expected a name",
        ),
    ],
)
def test_rendered(text: str, rendered: str) -> None:
    with pytest.raises(TriError) as caught:
        read(text)
    assert str(caught.value) == rendered


def test_the_first_of_two_mistakes_is_reported() -> None:
    with pytest.raises(TriError) as caught:
        read("op f(x: f32[N]) -> y: f32[N]\n  y[i] = x[i]\n}")
    assert caught.value.code == "E0133"


def test_an_unclosed_brace_is_reported_where_it_opens() -> None:
    text = "op f(x: f32) -> y: f32 {\n  y = x\n\nop g(x: f32) -> y: f32 {\n  y = x\n}"
    with pytest.raises(TriError) as caught:
        read(text)
    span = caught.value.diagnostics[0].span
    assert caught.value.code == "E0102"
    assert span is not None and span.start == text.index("{")
