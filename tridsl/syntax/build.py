"""Lark's tree to the nodes of `tridsl.syntax.nodes`, without recursion: one method per grammar rule."""

from __future__ import annotations

from typing import Any

from lark import Token, Tree

from tridsl.diagnostics import SourceFile, Span, error
from tridsl.structs import replace
from tridsl.syntax import nodes
from tridsl.syntax.layout import MAXIMUM_DEPTH

MAXIMUM_INTEGER = (1 << 64) - 1

_LISTS = frozenset(
    ["parameters", "declarations", "dimensions", "arguments", "entries", "options", "results", "where", "when", "body"]
)
"""Rules that make a list and no node: they add no depth."""


def build(tree: Tree[Token], source: SourceFile) -> nodes.Module:
    """The module of a parse tree whose offsets are those of `source`. Raises `TriError` E0101 for what the grammar
    accepts and the language does not, E0104 for nesting beyond `MAXIMUM_DEPTH`, E0105 for bad numbers."""
    builder = _Builder(source)
    order: list[Tree[Token]] = []  # parents before children, children from right to left
    waiting = [tree]
    while waiting:
        current = waiting.pop()
        order.append(current)
        waiting += [child for child in current.children if isinstance(child, Tree)]
    done: list[tuple[Any, int]] = []  # (value, depth) of the finished subtrees
    for current in reversed(order):
        count = sum(isinstance(child, Tree) for child in current.children)
        finished = iter(done[len(done) - count :])
        values, depth = [], 0
        for child in current.children:
            if isinstance(child, Tree):
                value, below = next(finished)
                values.append(value)
                depth = max(depth, below)
            else:
                values.append(child)
        del done[len(done) - count :]
        depth += current.data not in _LISTS
        span = builder.span_of(current)
        if depth > MAXIMUM_DEPTH:
            raise error(
                "E0104",
                f"this nests deeper than {MAXIMUM_DEPTH} levels",
                span,
                help="name the inner parts as stages of their own",
            )
        done.append((getattr(builder, str(current.data))(span, values), depth))
    module = done[0][0]
    assert isinstance(module, nodes.Module)
    return module


class _Builder:
    """Methods are named after rules; each takes the rule's span and its built children, absent ones as None."""

    def __init__(self, source: SourceFile) -> None:
        self.source = source
        self._strings: list[nodes.Text] = []  # not yet known to stand inside a schedule

    def span_of(self, tree: Tree[Token]) -> Span:
        meta = tree.meta
        if meta.empty:
            return Span(source=self.source, start=0, end=0)
        return Span(source=self.source, start=meta.start_pos, end=meta.end_pos)

    def _token(self, token: Token) -> Span:
        assert token.start_pos is not None and token.end_pos is not None
        return Span(source=self.source, start=token.start_pos, end=token.end_pos)

    def _no_strings(self) -> None:
        if self._strings:
            raise error(
                "E0107",
                "a string stands outside a schedule",
                self._strings[0].span,
                help="strings name intrinsics and hardware axes in schedules; values are numbers and names",
                example='schedule f for gpu {\n  y.bind(i="group.x")\n}',
            )

    def start(self, span: Span, items: list[Any]) -> nodes.Module:
        whole = Span(source=self.source, start=0, end=len(self.source.text))
        return nodes.Module(items=tuple(items), source=self.source, span=whole)

    # ---- ops

    def operation(self, span: Span, children: list[Any]) -> nodes.Operation:
        self._no_strings()
        name, types, signature, results, where, body = children
        signature, results = signature or (), results or ()
        parameters = tuple(entry for entry in signature if isinstance(entry, nodes.Parameter))
        dynamic = {entry.name: entry for entry in signature if isinstance(entry, nodes.DynamicSize)}
        for parameter in parameters + results:
            for size in parameter.type.dims or ():
                if isinstance(size, nodes.DynamicSize):
                    dynamic.setdefault(size.name, size)
        if not results and not any(parameter.qualifier == "inout" for parameter in parameters):
            raise error(
                "E0108",
                f"`{name}` has no result",
                self._token(name),
                help="write `-> name: type` after the parameters, or mark the parameter it updates `inout`",
                example="op double(x: f32[N]) -> y: f32[N] {\n  y[i] = 2 * x[i]\n}",
            )
        return nodes.Operation(
            name=str(name),
            type_parameters=types or (),
            dynamic=tuple(dynamic.values()),
            parameters=tuple(map(_without_dynamic, parameters)),
            results=tuple(map(_without_dynamic, results)),
            where=where or (),
            body=body or (),
            name_span=self._token(name),
            span=span,
        )

    def type_parameters(self, span: Span, children: list[Any]) -> tuple[nodes.TypeParameter, ...]:
        return tuple(children)

    def type_parameter(self, span: Span, children: list[Any]) -> nodes.TypeParameter:
        name, *choices, default = children
        return nodes.TypeParameter(name=str(name), choices=tuple(choices), default=default, span=span)

    def parameters(self, span: Span, children: list[Any]) -> tuple[nodes.Parameter | nodes.DynamicSize, ...]:
        return tuple(children)

    def dynamic(self, span: Span, children: list[Any]) -> nodes.DynamicSize:
        return nodes.DynamicSize(name=str(children[0]), span=span)

    def parameter(self, span: Span, children: list[Any]) -> nodes.Parameter:
        qualifier, name, type_, default = children
        return nodes.Parameter(
            name=str(name),
            type=type_,
            qualifier="" if qualifier is None else str(qualifier),  # type: ignore[arg-type]
            default=default,
            span=span,
        )

    def results(self, span: Span, children: list[Any]) -> tuple[nodes.Parameter, ...]:
        return tuple(children)

    def declarations(self, span: Span, children: list[Any]) -> tuple[nodes.Parameter, ...]:
        return tuple(children)

    def declaration(self, span: Span, children: list[Any]) -> nodes.Parameter:
        return nodes.Parameter(name=str(children[0]), type=children[1], span=span)

    def type(self, span: Span, children: list[Any]) -> nodes.Type:
        name, dims = children
        upto = bool(dims) and isinstance(dims[0], _Upto)
        if dims:
            for dim in dims[1:]:
                if isinstance(dim, _Upto):
                    raise error(
                        "E0109",
                        "only the first dimension may have a length known at run time",
                        dim.span,
                        help="write `..` in front of the first dimension only, as in `f32[..N, D]`",
                    )
            dims = (dims[0].size, *dims[1:]) if upto else dims
        return nodes.Type(dtype=str(name), dims=dims, upto=upto, span=span)

    def dimensions(self, span: Span, children: list[Any]) -> tuple[Any, ...]:
        return tuple(children)

    def upto(self, span: Span, children: list[Any]) -> _Upto:
        return _Upto(children[0], span)

    def where(self, span: Span, children: list[Any]) -> tuple[nodes.Expression, ...]:
        return tuple(children)

    def body(self, span: Span, children: list[Any]) -> tuple[nodes.Statement, ...]:
        return tuple(children)

    def statement(self, span: Span, children: list[Any]) -> nodes.Statement:
        (targets, indices), value = children
        return nodes.Statement(targets=targets, indices=indices, value=value, span=span)

    def element(self, span: Span, children: list[Any]) -> tuple[tuple[nodes.Name, ...], tuple[nodes.Index, ...]]:
        name, *indices = children
        return (nodes.Name(name=str(name), span=self._token(name)),), tuple(indices)

    def targets(self, span: Span, children: list[Any]) -> tuple[tuple[nodes.Name, ...], None]:
        return tuple(children), None

    def index(self, span: Span, children: list[Any]) -> nodes.Index:
        return nodes.Index(name=str(children[0]), range=children[1], span=span)

    def range(self, span: Span, children: list[Any]) -> nodes.Range:
        return nodes.Range(low=children[0], high=children[1], span=span)

    # ---- monoids

    def monoid(self, span: Span, children: list[Any]) -> nodes.Monoid:
        self._no_strings()
        name, types, parameters, result_type, state, lift, (merge_names, merge), result = children
        for type_ in (
            [parameter.type for parameter in parameters] + [result_type] + [variable.type for variable in state]
        ):
            for size in type_.dims or ():
                if isinstance(size, nodes.DynamicSize):
                    raise error("E0110", "`dyn` belongs to the parameters of an op", size.span, help="remove `dyn`")
        return nodes.Monoid(
            name=str(name),
            type_parameters=types or (),
            parameters=parameters,
            result_type=result_type,
            state=state,
            lift=lift,
            merge_names=merge_names,
            merge=merge,
            result=result,
            name_span=self._token(name),
            span=span,
        )

    def state(self, span: Span, children: list[Any]) -> tuple[nodes.StateVariable, ...]:
        return tuple(children)

    def state_variable(self, span: Span, children: list[Any]) -> nodes.StateVariable:
        name, type_, identity = children
        return nodes.StateVariable(name=str(name), type=type_, identity=identity, span=span)

    def lift(self, span: Span, children: list[Any]) -> tuple[nodes.Statement, ...]:
        return children[0] or ()

    def merge(self, span: Span, children: list[Any]) -> tuple[tuple[str, str], tuple[nodes.Statement, ...]]:
        first, second, body = children
        return (str(first), str(second)), body or ()

    # ---- schedules and sizes

    def schedule(self, span: Span, children: list[Any]) -> nodes.ScheduleBlock:
        self._strings.clear()
        op, device, when, *items = children
        return nodes.ScheduleBlock(
            op=str(op), device=str(device), when=when, items=tuple(items), op_span=self._token(op), span=span
        )

    def when(self, span: Span, children: list[Any]) -> Any:
        return children[0]

    def tunable(self, span: Span, children: list[Any]) -> nodes.Tunable:
        name, space, default = children
        return nodes.Tunable(name=str(name), space=space, default=default, span=span)

    def choices(self, span: Span, children: list[Any]) -> nodes.Choices:
        return nodes.Choices(items=tuple(children), span=span)

    def require(self, span: Span, children: list[Any]) -> nodes.Require:
        return nodes.Require(condition=children[0], span=span)

    def directive(self, span: Span, children: list[Any]) -> nodes.Directive:
        stage = [child for child in children if isinstance(child, Token)]
        return nodes.Directive(
            tensor=".".join(stage),
            calls=tuple(children[len(stage) :]),
            tensor_span=self._token(stage[0]).to(self._token(stage[-1])),
            span=span,
        )

    def call(self, span: Span, children: list[Any]) -> nodes.VerbCall:
        verb, arguments = children
        args, keywords = arguments or ((), ())
        return nodes.VerbCall(verb=str(verb), args=args, keywords=keywords, verb_span=self._token(verb), span=span)

    def bench(self, span: Span, children: list[Any]) -> nodes.BenchBlock:
        self._no_strings()
        op, *values = children
        return nodes.BenchBlock(op=str(op), values=tuple(values), span=span)

    def setting(self, span: Span, children: list[Any]) -> nodes.Keyword:
        return nodes.Keyword(name=str(children[0]), value=children[1], span=span)

    def use(self, span: Span, children: list[Any]) -> nodes.Use:
        module, *names = children
        return nodes.Use(module=str(module), names=tuple(names), span=span)

    # ---- expressions

    def conditional(self, span: Span, children: list[Any]) -> nodes.Conditional:
        condition, then, otherwise = children
        return nodes.Conditional(condition=condition, then=then, otherwise=otherwise, span=span)

    def infix(self, span: Span, children: list[Any]) -> nodes.Infix:
        left, operator, right = children
        return nodes.Infix(
            operator=str(operator), left=left, right=right, operator_span=self._token(operator), span=span
        )

    def prefix(self, span: Span, children: list[Any]) -> nodes.Prefix:
        operator, operand = children
        return nodes.Prefix(operator=str(operator), operand=operand, span=span)

    def number(self, span: Span, children: list[Any]) -> nodes.Number:
        written = str(children[0])
        value: int | float
        if written.startswith("0x"):
            value = int(written, 16) if len(written.lstrip("0x")) <= 16 else MAXIMUM_INTEGER + 1
        elif written.isdigit():
            value = int(written) if len(written.lstrip("0")) <= 20 else MAXIMUM_INTEGER + 1
        else:
            value = float(written)
        if value == float("inf") or isinstance(value, int) and value > MAXIMUM_INTEGER:
            raise error("E0105", "this number is too large for every type", span, help="write `inf` for infinity")
        return nodes.Number(value=value, text=written, span=span)

    def word(self, span: Span, children: list[Any]) -> nodes.Word:
        return nodes.Word(name=str(children[0]), span=span)

    def text(self, span: Span, children: list[Any]) -> nodes.Text:
        node = nodes.Text(value=str(children[0])[1:-1], span=span)
        self._strings.append(node)
        return node

    def name(self, span: Span, children: list[Any]) -> nodes.Name:
        return nodes.Name(name=str(children[0]), span=span)

    def field(self, span: Span, children: list[Any]) -> nodes.Field:
        return nodes.Field(value=children[0], name=str(children[1]), span=span)

    def invoke(self, span: Span, children: list[Any]) -> nodes.Invoke:
        path, arguments = children
        args, keywords = arguments or ((), ())
        return nodes.Invoke(function=_dotted(path), args=args, keywords=keywords, name_span=path.span, span=span)

    def arguments(
        self, span: Span, children: list[Any]
    ) -> tuple[tuple[nodes.Expression, ...], tuple[nodes.Keyword, ...]]:
        keywords = [child for child in children if isinstance(child, nodes.Keyword)]
        args = children[: len(children) - len(keywords)]
        for child in args:
            if isinstance(child, nodes.Keyword):
                late = next(c for c in children[children.index(child) :] if not isinstance(c, nodes.Keyword))
                raise error(
                    "E0111",
                    "an argument without a name follows one with a name",
                    late.span,
                    help="write the arguments without names first",
                )
        return tuple(args), tuple(keywords)

    def keyword(self, span: Span, children: list[Any]) -> nodes.Keyword:
        return nodes.Keyword(name=_dotted(children[0]), value=children[1], span=span)

    def access(self, span: Span, children: list[Any]) -> nodes.Access:
        tensor, entries, options = children
        for entry in entries:
            if isinstance(entry, nodes.Index):
                raise error(
                    "E0112",
                    "`in` does not belong in an access",
                    entry.span,
                    help="write the range where the index is bound: in the reducer, or left of `=`",
                    example="op f(x: f32[N]) -> y: f32[N] {\n  y[i] = sum[d in -1..2](x[i + d; pad=0])\n}",
                )
        return nodes.Access(
            tensor=str(tensor), index=entries, options=options or (), name_span=self._token(tensor), span=span
        )

    def reduction(self, span: Span, children: list[Any]) -> nodes.Reduction:
        scan, reducer, entries, options, *args = children
        axes = []
        for entry in entries:
            if isinstance(entry, nodes.Name):
                entry = nodes.Index(name=entry.name, span=entry.span)
            if not isinstance(entry, nodes.Index):
                raise error(
                    "E0113",
                    f"`{reducer}` is given an expression where it binds an index",
                    entry.span,
                    help="name the index, with its range where the shapes do not tell it: `sum[k in 0..N](…)`",
                )
            axes.append(entry)
        return nodes.Reduction(
            reducer=str(reducer),
            axes=tuple(axes),
            options=options or (),
            args=tuple(args),
            scan=scan is not None,
            name_span=self._token(reducer),
            span=span,
        )

    def entries(self, span: Span, children: list[Any]) -> tuple[nodes.Expression | nodes.Index, ...]:
        return tuple(children)

    def ranged(self, span: Span, children: list[Any]) -> nodes.Index:
        return nodes.Index(name=str(children[0]), range=children[1], span=span)

    def options(self, span: Span, children: list[Any]) -> tuple[nodes.Keyword, ...]:
        return tuple(children)

    def option(self, span: Span, children: list[Any]) -> nodes.Keyword:
        return nodes.Keyword(name=str(children[0]), value=children[1], span=span)


class _Upto:
    """A dimension written `..size`, until its type takes it up."""

    def __init__(self, size: nodes.Expression, span: Span) -> None:
        self.size, self.span = size, span


def _without_dynamic(parameter: nodes.Parameter) -> nodes.Parameter:
    """`x: f32[dyn T]` with the mark, which the op keeps, taken off the size."""
    dims = parameter.type.dims
    if dims is None or not any(isinstance(size, nodes.DynamicSize) for size in dims):
        return parameter
    names = tuple(nodes.Name(name=s.name, span=s.span) if isinstance(s, nodes.DynamicSize) else s for s in dims)
    return replace(parameter, type=replace(parameter.type, dims=names))


def _dotted(path: nodes.Expression) -> str:
    """`chip.lanes` of the path's nodes."""
    return f"{_dotted(path.value)}.{path.name}" if isinstance(path, nodes.Field) else path.name  # type: ignore[union-attr]
