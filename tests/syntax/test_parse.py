"""Every construct gives its node, every node its span; newlines and precedence as the language document says."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from tests.syntax.programs import LANGUAGE, read, value
from tridsl.diagnostics import SourceFile, TriError
from tridsl.syntax import nodes
from tridsl.syntax.nodes import (
    Access,
    Conditional,
    Field,
    Index,
    Infix,
    Invoke,
    Keyword,
    Name,
    Number,
    Prefix,
    Range,
    Reduction,
    Word,
)  # fmt: skip
from tridsl.syntax.parse import parse


def walk(node: nodes.Syntax) -> Iterator[nodes.Syntax]:
    yield node
    for field in dataclasses.fields(node):
        inner = getattr(node, field.name)
        for child in inner if isinstance(inner, tuple) else (inner,):
            if isinstance(child, nodes.Syntax):
                yield from walk(child)


def written(node: nodes.Syntax) -> str:
    assert node.span is not None
    return node.span.source.text[node.span.start : node.span.end]


def a(name: str) -> Name:
    return Name(name=name)


def n(number: float) -> Number:
    return Number(value=number)


def infix(left: nodes.Expression, operator: str, right: nodes.Expression) -> Infix:
    return Infix(operator=operator, left=left, right=right)


def test_every_node_of_the_language_document_has_a_span_inside_its_parent() -> None:
    module = read(LANGUAGE)
    assert [type(item).__name__ for item in module.items].count("Operation") == 9
    for node in walk(module):
        assert node.span is not None
        for child in walk(node):
            assert child.span is not None
            assert node.span.start <= child.span.start <= child.span.end <= node.span.end
    kinds = {type(node) for node in walk(module)}
    assert kinds >= {nodes.Monoid, nodes.ScheduleBlock, nodes.BenchBlock, nodes.Use, nodes.Tunable, nodes.Directive}


def test_operation() -> None:
    (op,) = read(
        "op f[T in {f32, f16}, U in {T, f32} = T](dyn S, x: T[dyn L, D], const k: i32 = 1, inout c: U[S])\n"
        "    -> (y: f32[..L], z: U)\n    where k >= 1, L % 2 == 0 {\n  y, z = topk[n; k=k](x[n, 0])\n}"
    ).items
    assert isinstance(op, nodes.Operation)
    assert [size.name for size in op.dynamic] == ["S", "L"]
    assert [(p.name, p.qualifier) for p in op.parameters] == [("x", ""), ("k", "const"), ("c", "inout")]
    assert op.parameters[0].type == nodes.Type(dtype="T", dims=(a("L"), a("D")))
    assert op.parameters[1].default == n(1)
    assert op.type_parameters[1] == nodes.TypeParameter(name="U", choices=(a("T"), a("f32")), default=a("T"))
    assert op.results[0].type == nodes.Type(dtype="f32", dims=(a("L"),), upto=True)
    assert op.results[1].type == nodes.Type(dtype="U")
    assert len(op.where) == 2
    assert op.body[0].targets == (a("y"), a("z")) and op.body[0].indices is None
    assert op.name_span is not None and op.name_span.start == 3


def test_an_op_that_updates_in_place_needs_no_result() -> None:
    (op,) = read("op f(inout c: f32[N], x: f32[N]) {\n  c[i] = x[i]\n}").items
    assert isinstance(op, nodes.Operation) and op.results == ()


def test_monoid() -> None:
    (monoid,) = read(
        "monoid m[T in {f32}](s: T) -> T {\n  state m: T = -inf, l: T = 0\n  lift {\n    m = s\n    l = 1\n  }\n"
        "  merge a, b {\n    m = max(a.m, b.m)\n    l = a.l + b.l\n  }\n  result l\n}"
    ).items
    assert isinstance(monoid, nodes.Monoid)
    assert monoid.type_parameters[0].name == "T"
    assert monoid.state[0].identity == Prefix(operator="-", operand=Word(name="inf"))
    assert monoid.merge_names == ("a", "b")
    assert [s.targets[0].name for s in monoid.lift] == ["m", "l"]
    assert monoid.merge[0].value == Invoke(
        function="max", args=(Field(value=a("a"), name="m"), Field(value=a("b"), name="m"))
    )


def test_schedule() -> None:
    (block,) = read(
        "schedule f for gpu when T == f32 and chip.lanes(T) > 4 {\n  param t in {1, 2} = 2\n  param u in pow2(1, 8)\n"
        '  param v in 1..9 = 3\n  param w in chip.simd..2 * 8\n  param s in {"a", "b"}\n  require t <= 2\n'
        '  y.sum.split(k, 8).bind(j.o="group.x", r="lane")\n   .scan(j.o.i)\n  y.inline()\n}'
    ).items
    assert isinstance(block, nodes.ScheduleBlock)
    spaces = [item.space for item in block.items if isinstance(item, nodes.Tunable)]
    assert spaces[0] == nodes.Choices(items=(n(1), n(2)))
    assert spaces[1] == Invoke(function="pow2", args=(n(1), n(8)))
    assert spaces[2] == Range(low=n(1), high=n(9))
    assert spaces[3] == Range(low=Field(value=a("chip"), name="simd"), high=infix(n(2), "*", n(8)))
    directive = block.items[-2]
    assert isinstance(directive, nodes.Directive)
    assert directive.tensor == "y.sum"
    assert [call.verb for call in directive.calls] == ["split", "bind", "scan"]
    assert directive.calls[1].keywords[0] == Keyword(name="j.o", value=nodes.Text(value="group.x"))
    assert directive.calls[2].args == (Field(value=Field(value=a("j"), name="o"), name="i"),)
    assert directive.tensor_span is not None
    assert directive.tensor_span.source.text[directive.tensor_span.start : directive.tensor_span.end] == "y.sum"


def test_bench_and_use() -> None:
    bench, use = read("bench f {\n  N = 4,\n  T = f32\n}\nuse stdlib: a,\n  b").items
    assert bench == nodes.BenchBlock(op="f", values=(Keyword(name="N", value=n(4)), Keyword(name="T", value=a("f32"))))
    assert use == nodes.Use(module="stdlib", names=(a("a"), a("b")))


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("a or b and not c == d", infix(a("a"), "or", infix(a("b"), "and", Prefix(operator="not", operand=infix(a("c"), "==", a("d")))))),
        ("a == b | c", infix(a("a"), "==", infix(a("b"), "|", a("c")))),
        ("a | b ^ c & d", infix(a("a"), "|", infix(a("b"), "^", infix(a("c"), "&", a("d"))))),
        ("a & b << c", infix(a("a"), "&", infix(a("b"), "<<", a("c")))),
        ("a << b + c", infix(a("a"), "<<", infix(a("b"), "+", a("c")))),
        ("a < b >> c", infix(a("a"), "<", infix(a("b"), ">>", a("c")))),
        ("a - b - c", infix(infix(a("a"), "-", a("b")), "-", a("c"))),
        ("a + b * c", infix(a("a"), "+", infix(a("b"), "*", a("c")))),
        ("a // b % c", infix(infix(a("a"), "//", a("b")), "%", a("c"))),
        ("-a * b", infix(Prefix(operator="-", operand=a("a")), "*", a("b"))),
        ("-a.b", Prefix(operator="-", operand=Field(value=a("a"), name="b"))),
        ("(a + b) * c", infix(infix(a("a"), "+", a("b")), "*", a("c"))),
        ("if a then b else if c then d else e or f", Conditional(condition=a("a"), then=a("b"), otherwise=Conditional(condition=a("c"), then=a("d"), otherwise=infix(a("e"), "or", a("f"))))),
        ("sum[d in -1..2, k; acc=f32, exclusive](x[d], 2)", Reduction(reducer="sum", axes=(Index(name="d", range=Range(low=Prefix(operator="-", operand=n(1)), high=n(2))), Index(name="k")), options=(Keyword(name="acc", value=a("f32")), Keyword(name="exclusive", value=None)), args=(Access(tensor="x", index=(a("d"),)), n(2)))),
        ("scan max[i](x[i])", Reduction(reducer="max", axes=(Index(name="i"),), options=(), args=(Access(tensor="x", index=(a("i"),)),), scan=True)),
        ("x[y[i], 2; pad=-inf]", Access(tensor="x", index=(Access(tensor="y", index=(a("i"),)), n(2)), options=(Keyword(name="pad", value=Prefix(operator="-", operand=Word(name="inf"))),))),
        ("f(a, k=b)", Invoke(function="f", args=(a("a"),), keywords=(Keyword(name="k", value=a("b")),))),
        ("0xfF + 1.5e-3", infix(n(255), "+", n(0.0015))),
        ("iffy + notx + truer + opx + ina", infix(infix(infix(infix(a("iffy"), "+", a("notx")), "+", a("truer")), "+", a("opx")), "+", a("ina"))),
        ("state + result", infix(a("state"), "+", a("result"))),
    ],
)  # fmt: skip
def test_expressions(text: str, node: nodes.Expression) -> None:
    assert value(text) == node


def test_numbers_are_equal_by_value_and_kind() -> None:
    assert n(1) != n(1.0) and n(1) == Number(value=1, text="0x1") and hash(n(1)) != hash(n(1.0))


def test_spans_of_operators_and_names() -> None:
    node = value("a + (b * c[i])")
    assert isinstance(node, Infix) and isinstance(node.right, Infix) and isinstance(node.right.right, Access)
    assert written(node) == "a + (b * c[i])"
    assert written(node.right) == "b * c[i]"
    assert node.operator_span is not None and node.span is not None
    assert node.operator_span.start == node.span.start + 2
    assert node.right.right.name_span is not None
    assert node.right.right.name_span.end - node.right.right.name_span.start == 1


@pytest.mark.parametrize(
    "text",
    [
        "op f(\n  x: f32[N],\n\n  # why\n  z: f32\n)\n  -> y: f32[N]\n  where N > 1\n{\n\n  y[i] = x[i]\n\n}\n\n",
        "op f(x: f32[N]) -> y: f32[N] { y[i] = x[i] }",
        "op f(x: f32[N]) -> y: f32[N] {\n  y[i] =\n    x[\n i\n ]\n  + 1 # more\n\n  # and more\n  - 2\n}",
        "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = if x[i] > 0\n    then x[i]\n    else 0\n  z[i] = y[i]\n}",
        "op f(x: f32[N]) -> y: f32[N] {\r\n  y[i] = x[i]\r\n  z[i] = 1\r\n}\r\n",
        "schedule f for cpu\n  when N > 1 {\n  y.tile(i=1)\n   # comment\n\n   .split(k, 2)\n  z.\n inline()\n}",
        "# only a comment",
        "",
    ],
)
def test_newlines(text: str) -> None:
    read(text)


def test_a_newline_ends_a_statement() -> None:
    (op,) = read("op f(x: f32) -> y: f32 {\n  y = x\n\n # c\n\n  z = x\n}").items
    assert isinstance(op, nodes.Operation) and len(op.body) == 2
    with pytest.raises(TriError):
        read("op f(x: f32) -> y: f32 {\n  y = x z = x\n}")


def test_a_member_may_have_any_name_even_at_the_end_of_a_line() -> None:
    (block,) = read("schedule f for cpu {\n  require a.where\n  require b.scan\n}").items
    assert isinstance(block, nodes.ScheduleBlock) and len(block.items) == 2


def test_nesting_is_bounded() -> None:
    for deep in (
        "(" * 300 + "x" + ")" * 300,
        "-" * 300 + "x",
        "not " * 300 + "x",
        "x" + " + x" * 300,
        "if x then x else " * 300 + "x",
        "f(" * 150 + "-" * 100 + "x" + ")" * 150,
        "(" * 20000,
        "x" + " + x" * 50000,
        "x" + ".a" * 20000,
    ):
        with pytest.raises(TriError) as caught:
            value(deep)
        assert caught.value.code in ("E0104", "E0102"), deep[:40]
        assert len(str(caught.value)) < 2000
    assert value("(" * 150 + "x" + ")" * 150) == a("x")
    value("x" + " + x" * 150)


def test_length_is_bounded() -> None:
    with pytest.raises(TriError) as caught:
        parse(SourceFile(name="big", text="#" * (1 << 21)))
    assert caught.value.code == "E0106"


def test_source_and_spans_are_outside_equality() -> None:
    assert read("use a: b") == read("\n\n  use   a:\n b")
