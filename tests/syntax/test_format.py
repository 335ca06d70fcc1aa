"""The formatter: nothing is lost, nothing changes twice, and the text looks as the language document writes it."""

from __future__ import annotations

from textwrap import dedent

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.properties.syntax_trees import modules
from tests.syntax.programs import LANGUAGE, read
from tridsl.diagnostics import SourceFile
from tridsl.syntax.format import format, format_source
from tridsl.syntax.layout import scan
from tridsl.syntax.nodes import Module, Name, Number, Operation, Parameter, Statement, Type

relaxed = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@relaxed
@given(modules, st.randoms(use_true_random=False))
def test_what_is_formatted_says_the_same_and_is_in_form(module: Module, random) -> None:
    text = format(module)
    assert read(text) == module
    assert format(read(text)) == text
    assert format_source(text) == text
    comments_and_blank_lines_anywhere_survive(module, text, random)


def comments_and_blank_lines_anywhere_survive(module: Module, plain: str, random) -> None:
    lines = []
    written = 0
    for line in plain.split("\n"):
        if random.random() < 0.3:
            lines += ["", f"   # {written}"]
            written += 1
        if line and random.random() < 0.3:
            line += f"# {written}"
            written += 1
        lines.append(line)
    text = "\n".join(lines)
    once = format_source(text)
    assert read(once) == module
    found = scan(SourceFile(name="x", text=once)).comments
    assert sorted(once[span.start : span.end] for span in found) == sorted(f"# {n}" for n in range(written))
    assert format_source(once) == once


def test_the_language_document_survives() -> None:
    once = format_source(LANGUAGE)
    assert read(once) == read(LANGUAGE)
    assert format_source(once) == once
    assert once.count("#") == LANGUAGE.count("#")


def check(written: str, formatted: str) -> None:
    assert format_source(dedent(written)) == dedent(formatted).lstrip("\n")


def test_statements_are_aligned_and_spaced() -> None:
    check(
        """
        op softmax(x:f32[N])->y:f32[N]{m=max[n](x[n])
        e[n]=exp(x[n]-m)

        # the sum is computed once
        y[n]=e[n]/sum[k](e[k])}
        """,
        """
        op softmax(x: f32[N]) -> y: f32[N] {
          m    = max[n](x[n])
          e[n] = exp(x[n] - m)

          # the sum is computed once
          y[n] = e[n] / sum[k](e[k])
        }
        """,
    )


def test_comments_keep_their_places() -> None:
    check(
        """
        # the file

        # the op
        op f(x: f32[N],   # the input
             z: f32[N])   # another
            -> y: f32[N] { # header
          # first
          a[i] = x[i]   # short
          bb[i] = x[i] + z[i] # long

          # last
        } # after
        # between
        schedule f for cpu {
          y.tile(i=8)  # tile
           # why
           .vector(i.i)
          # nothing more
        }
        # the end
        """,
        """
        # the file

        # the input
        # the op
        op f(x: f32[N], z: f32[N]) -> y: f32[N] {  # header
          # first
          a[i]  = x[i]         # short
          bb[i] = x[i] + z[i]  # long

          # last
        }  # after

        # between
        schedule f for cpu {
          # why
          y.tile(i=8).vector(i.i)  # tile
          # nothing more
        }

        # the end
        """.replace("        # the input\n        # the op\n", "        # the op\n        # the input\n        # another\n"),
    )


def test_monoid() -> None:
    check(
        """
        monoid mean(x: f32) -> f32 { # doc
          # states
          state total: f32 = 0, count: f32 = 0
          lift { # of one
            total = x
            count = 1
            # end of lift
          }
          # join
          merge a, b { total = a.total + b.total
            count = a.count + b.count }
          result total / count # divide
        }
        """,
        """
        monoid mean(x: f32) -> f32 {  # doc
          # states
          state total: f32 = 0, count: f32 = 0
          lift {  # of one
            total = x
            count = 1
            # end of lift
          }
          # join
          merge a, b {
            total = a.total + b.total
            count = a.count + b.count
          }
          result total / count  # divide
        }
        """,
    )


def test_long_headers_and_chains_are_wrapped() -> None:
    long = "op attention(" + ", ".join(f"argument_{n}: f32[H, S]" for n in range(6)) + ") -> O: f32[H] where H > 1 {\n}\n"
    once = format_source(long)
    assert max(map(len, once.split("\n"))) <= 100
    assert once.split("\n")[1] == "    argument_0: f32[H, S],"
    assert once.split("\n")[-3] == ") -> O: f32[H] where H > 1 {"
    verbs = "".join(f".verb{n}(axis.i, {n})" for n in range(9))
    once = format_source(f"schedule f for cpu {{\n  C{verbs}\n}}")
    assert max(map(len, once.split("\n"))) <= 76
    assert all(line.startswith("   .verb") for line in once.split("\n")[2:-2])


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("((a + b)) * c", "(a + b) * c"),
        ("a + (b * c)", "a + b * c"),
        ("a - (b - c)", "a - (b - c)"),
        ("(a - b) - c", "a - b - c"),
        ("-(-a)", "--a"),
        ("-(a * b)", "-(a * b)"),
        ("(-a) * b", "-a * b"),
        ("not (a == b)", "not a == b"),
        ("(not a) == b", "(not a) == b"),
        ("(a < b) < c", "(a < b) < c"),
        ("(a or b) and c", "(a or b) and c"),
        ("(a | b) ^ c & d", "(a | b) ^ c & d"),
        ("(a << b) + c", "(a << b) + c"),
        ("if a then b else (if c then d else e)", "if a then b else if c then d else e"),
        ("(if a then b else c) + d", "(if a then b else c) + d"),
        ("x[b, y * s+r - p;pad = 0]", "x[b, y*s + r - p; pad=0]"),
        ("x[h // (H // G)]", "x[h // (H // G)]"),
        ("sum[k in 0..N - 1;acc=f32,order=seq](x[k])", "sum[k in 0..N-1; acc=f32, order=seq](x[k])"),
        ("scan  sum[ i;exclusive ](x[i])", "scan sum[i; exclusive](x[i])"),
        ("0xFF + 1.50 + 1E-3", "0xFF + 1.50 + 1E-3"),
    ],
)
def test_expressions(written: str, printed: str) -> None:
    text = f"op f(x: f32) -> y: f32 {{\n  y = {written}\n}}\n"
    assert format_source(text) == f"op f(x: f32) -> y: f32 {{\n  y = {printed}\n}}\n"


def test_items_are_set_apart_but_not_runs_of_short_ones() -> None:
    check(
        "use a: b\nuse c: d\nop f(x: f32) -> y: f32 {\n}\nop g(x: f32) -> y: f32 {\n}\nbench f { N = 1 }\nbench g { N = 2 }",
        """
        use a: b
        use c: d

        op f(x: f32) -> y: f32 {
        }

        op g(x: f32) -> y: f32 {
        }

        bench f { N = 1 }
        bench g { N = 2 }
        """,
    )


def test_dyn_is_printed_in_the_parameter_list() -> None:
    check(
        "op f(x: f32[dyn T, D], dyn S) -> y: f32[T] {\n}",
        """
        op f(dyn S, dyn T, x: f32[T, D]) -> y: f32[T] {
        }
        """,
    )


def test_a_program_may_build_numbers_without_text() -> None:
    statement = Statement(targets=(Name(name="y"),), indices=None, value=Number(value=0.5, text="7"))
    result = Parameter(name="y", type=Type(dtype="f32"))
    op = Operation(
        name="f", type_parameters=(), dynamic=(), parameters=(), results=(result,), where=(), body=(statement,)
    )
    assert "y = 0.5" in format(Module(items=(op,)))


@pytest.mark.parametrize("text", ["", "\n\n", "# only\n"])
def test_files_without_items(text: str) -> None:
    assert format_source(text) == text.lstrip("\n")
    assert format(Module(items=())) == ""
