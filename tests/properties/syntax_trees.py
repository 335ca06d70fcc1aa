"""Random syntax trees that the grammar can express, for round trips and for everything that takes a `Module`.

The trees are well-formed, not well-typed: names need not exist.
"""

from __future__ import annotations

import string

from hypothesis import strategies as st

from tridsl.syntax import nodes
from tridsl.syntax.layout import LITERALS, RESERVED

SOFT_WORDS = ("op", "monoid", "schedule", "bench", "use", "state", "lift", "merge", "result", "param", "require")
"""Words of the language that are names wherever it does not ask for them."""

ARITHMETIC = ("+", "-", "*", "/", "//", "%", "&", "|", "^", "<<", ">>")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")

FIRST = string.ascii_letters + "_"
names = st.sampled_from(("x", "y", "T", "N", "sum", "f32", "_", "a1", "orx", "iffy", "notes", *SOFT_WORDS)) | st.builds(
    str.__add__, st.sampled_from(FIRST), st.text(FIRST + string.digits, max_size=6)  # drawn in a third of the time of a regular expression's
).filter(lambda name: name not in RESERVED)
members = names | st.sampled_from(sorted(RESERVED))
numbers = st.builds(
    nodes.Number,
    value=st.integers(0, 300)
    | st.integers(0, (1 << 64) - 1)
    | st.floats(min_value=0, allow_nan=False, allow_infinity=False).map(abs),
)
words = st.builds(nodes.Word, name=st.sampled_from(sorted(LITERALS)))
strings = st.builds(nodes.Text, value=st.text(st.characters(exclude_characters='"\n', exclude_categories=("Cs",)), max_size=8))


def tuples(elements: st.SearchStrategy, least: int = 0, most: int = 3) -> st.SearchStrategy[tuple]:
    return st.lists(elements, min_size=least, max_size=most).map(tuple)


def maybe(elements: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | elements


@st.composite
def paths(draw: st.DrawFn) -> nodes.Expression:
    """`a`, `chip.lanes`, `k.o.i`."""
    path: nodes.Expression = nodes.Name(name=draw(names))
    for member in draw(st.lists(members, max_size=2)):
        path = nodes.Field(value=path, name=member)
    return path


dotted = st.builds(lambda first, rest: ".".join([first, *rest]), names, st.lists(members, max_size=2))


def _compound(inner: st.SearchStrategy) -> st.SearchStrategy:
    ranges = st.builds(nodes.Range, low=inner, high=inner)
    keywords = st.builds(nodes.Keyword, name=dotted, value=inner)
    options = tuples(st.builds(nodes.Keyword, name=names, value=maybe(inner)), most=2)
    return st.one_of(
        st.builds(nodes.Infix, operator=st.sampled_from(ARITHMETIC + COMPARISONS + ("and", "or")), left=inner, right=inner),
        st.builds(nodes.Prefix, operator=st.sampled_from(("-", "+", "~", "not")), operand=inner),
        st.builds(nodes.Conditional, condition=inner, then=inner, otherwise=inner),
        st.builds(nodes.Invoke, function=dotted, args=tuples(inner), keywords=tuples(keywords, most=2)),
        st.builds(nodes.Access, tensor=names, index=tuples(inner, 1), options=options),
        st.builds(
            nodes.Reduction,
            reducer=names,
            axes=tuples(st.builds(nodes.Index, name=names, range=maybe(ranges)), 1),
            options=options,
            args=tuples(inner, 1, 2),
            scan=st.booleans(),
        ),
    )


expressions = st.recursive(numbers | words | paths(), _compound, max_leaves=8)
schedule_expressions = st.recursive(numbers | words | paths() | strings, _compound, max_leaves=8)
ranges = st.builds(nodes.Range, low=expressions, high=expressions)
indices = st.builds(nodes.Index, name=names, range=maybe(ranges))

types = st.builds(nodes.Type, dtype=names) | st.builds(
    nodes.Type, dtype=names, dims=tuples(expressions, 1), upto=st.booleans()
)
declarations = st.builds(nodes.Parameter, name=names, type=types)
parameters = st.builds(
    nodes.Parameter,
    name=names,
    type=types,
    qualifier=st.sampled_from(("", "const", "inout")),
    default=maybe(expressions),
)
name_nodes = st.builds(nodes.Name, name=names)
type_parameters = tuples(
    st.builds(nodes.TypeParameter, name=names, choices=tuples(name_nodes, 1), default=maybe(name_nodes)), most=2
)
statements = st.builds(
    nodes.Statement, targets=tuples(name_nodes, 1), indices=st.none(), value=expressions
) | st.builds(nodes.Statement, targets=tuples(name_nodes, 1, 1), indices=tuples(indices, 1), value=expressions)

operations = st.builds(
    nodes.Operation,
    name=names,
    type_parameters=type_parameters,
    dynamic=st.lists(st.builds(nodes.DynamicSize, name=names), max_size=2, unique=True).map(tuple),
    parameters=tuples(parameters),
    results=tuples(declarations),
    where=tuples(expressions, most=2),
    body=tuples(statements),
).filter(lambda op: op.results or any(parameter.qualifier == "inout" for parameter in op.parameters))

monoids = st.builds(
    nodes.Monoid,
    name=names,
    type_parameters=type_parameters,
    parameters=tuples(declarations, 1),
    result_type=types,
    state=tuples(st.builds(nodes.StateVariable, name=names, type=types, identity=expressions), 1, 2),
    lift=tuples(statements, most=2),
    merge_names=st.tuples(names, names),
    merge=tuples(statements, most=2),
    result=expressions,
)

stages = dotted.filter(lambda stage: stage.split(".")[0] not in ("param", "require"))
calls = st.builds(
    nodes.VerbCall,
    verb=members,
    args=tuples(schedule_expressions),
    keywords=tuples(st.builds(nodes.Keyword, name=dotted, value=schedule_expressions), most=2),
)
spaces = st.one_of(
    st.builds(nodes.Choices, items=tuples(schedule_expressions, 1)),
    st.builds(nodes.Invoke, function=dotted, args=tuples(schedule_expressions)),
    st.builds(nodes.Range, low=schedule_expressions, high=schedule_expressions),
)
schedules = st.builds(
    nodes.ScheduleBlock,
    op=names,
    device=st.sampled_from(("cpu", "gpu", "npu", "any")),
    when=maybe(schedule_expressions),
    items=tuples(
        st.one_of(
            st.builds(nodes.Tunable, name=names, space=spaces, default=maybe(schedule_expressions)),
            st.builds(nodes.Require, condition=schedule_expressions),
            st.builds(nodes.Directive, tensor=stages, calls=tuples(calls, 1, 5)),
        ),
        most=4,
    ),
)
benches = st.builds(
    nodes.BenchBlock, op=names, values=tuples(st.builds(nodes.Keyword, name=names, value=expressions))
)
uses = st.builds(nodes.Use, module=names, names=tuples(name_nodes, 1))

items = st.one_of(operations, monoids, schedules, benches, uses)
modules = st.builds(nodes.Module, items=tuples(items, most=3))
