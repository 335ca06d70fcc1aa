"""The one traversal. A rewrite that changes nothing returns the very same object, so "unchanged" is an `is` test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tridsl.ir.expr import Expr, Node, Var
from tridsl.structs import declared, replace

N = TypeVar("N")


_PLAIN = frozenset({"str", "int", "float", "bool", "DType", "str | None", "int | None", "bool | None", "Span | None", "tuple[str, ...]"})
"""Annotations of fields that hold no nodes. Whatever else a field is declared as, it is looked into."""


class _Fields(dict[type, "tuple[str, ...] | None"]):
    """By class of a value: the fields of a node that may hold nodes; None for what is no node. One look-up says both: asking
    `isinstance` of every value took a third of a compilation's time."""

    def __missing__(self, kind: type) -> tuple[str, ...] | None:
        names = tuple(name for name, text in declared(kind).items() if text not in _PLAIN) if issubclass(kind, Node) else None
        self[kind] = names
        return names


_FIELDS = _Fields()


class _Backwards(dict[type, tuple[str, ...]]):
    """The same fields from the last to the first, as a stack takes them; none for what is no node."""

    def __missing__(self, kind: type) -> tuple[str, ...]:
        self[kind] = names = (_FIELDS[kind] or ())[::-1]
        return names


_BACKWARDS = _Backwards()


def children(node: Node) -> Iterator[Node]:
    """Direct child nodes, in field order, looking into tuples."""
    for name in _FIELDS[node.__class__] or ():
        value = getattr(node, name)
        if value.__class__ is tuple:
            yield from (item for item in value if _FIELDS[item.__class__] is not None)
        elif _FIELDS[value.__class__] is not None:
            yield value


def walk(node: Node | tuple[Node, ...]) -> Iterator[Node]:
    """Every node below and including `node`, parents before children."""
    stack: list[Any] = list(reversed(node)) if isinstance(node, tuple) else [node]
    pop, push, fields, backwards = stack.pop, stack.append, _FIELDS, _BACKWARDS  # as locals: this loop is a third of lowering
    while stack:
        current = pop()
        yield current
        for name in backwards[current.__class__]:
            value = getattr(current, name)
            kind = value.__class__
            if kind is tuple:
                for item in value[::-1]:
                    if fields[item.__class__] is not None:
                        push(item)
            elif fields[kind] is not None:
                push(value)


def map_children(node: N, function: Callable[[Any], Any]) -> N:
    """`node` with `function` applied to each direct child. `function` may return a tuple to splice into a block."""
    changed: dict[str, Any] = {}
    for name in _FIELDS[node.__class__] or ():
        value: Any = getattr(node, name)
        if value.__class__ is tuple:
            new = _map_tuple(value, function)
        elif _FIELDS[value.__class__] is not None:
            new = function(value)
        else:
            continue
        if new is not value:
            changed[name] = new
    return replace(node, **changed) if changed else node  # type: ignore[type-var]


def _map_tuple(items: tuple[Any, ...], function: Callable[[Any], Any]) -> tuple[Any, ...]:
    out: list[Any] = []
    same = True
    for item in items:
        new = item if _FIELDS[item.__class__] is None else function(item)
        same = same and new is item
        if new.__class__ is tuple:
            out += new
        else:
            out.append(new)
    return items if same else tuple(out)


def rewrite(node: N, rules: Mapping[type, Callable[[Any], Any]]) -> N:
    """Bottom-up rewrite: children first, then the rule of the node's type.

    A rule returns its argument when it has nothing to say, another node, or (for a statement in a block) a tuple of
    statements to stand in its place. `node` may be a tuple of nodes.
    """

    def visit(current: Any) -> Any:
        new = map_children(current, visit) if _FIELDS[current.__class__] else current
        rule = rules.get(new.__class__)
        return rule(new) if rule else new

    if isinstance(node, tuple):
        return _map_tuple(node, visit)  # type: ignore[return-value]
    return visit(node)  # type: ignore[no-any-return]


def substitute(node: N, values: Mapping[str, Expr]) -> N:
    """Replace variables by name. Binders are unique in a kernel, so nothing can be captured."""
    return rewrite(node, {Var: lambda v: values.get(v.name, v)}) if values else node


def variables(node: Node | tuple[Node, ...]) -> frozenset[str]:
    """Names of all `Var`s read in `node`."""
    if node.__class__ is Var:
        return frozenset((node.name,))  # what most are asked of
    return frozenset(n.name for n in walk(node) if isinstance(n, Var))
