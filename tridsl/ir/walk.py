"""The one traversal. A rewrite that changes nothing returns the very same object, so "unchanged" is an `is` test."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from tridsl.ir.expr import Expr, Node, Var
from tridsl.structs import declared, replace

N = TypeVar("N")


_PLAIN = frozenset({"str", "int", "float", "bool", "DType", "str | None", "int | None", "bool | None", "Span | None", "tuple[str, ...]"})
"""Annotations of fields that hold no nodes. Whatever else a field is declared as, it is looked into."""

_CHILD_FIELDS: dict[Any, tuple[str, ...]] = {}


def _child_fields(kind: Any) -> tuple[str, ...]:
    names = _CHILD_FIELDS.get(kind)
    if names is None:
        names = _CHILD_FIELDS[kind] = tuple(name for name, text in declared(kind).items() if text not in _PLAIN)
    return names


def children(node: Node) -> Iterator[Node]:
    """Direct child nodes, in field order, looking into tuples."""
    for name in _child_fields(node.__class__):
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Node))


def walk(node: Node | tuple[Node, ...]) -> Iterator[Node]:
    """Every node below and including `node`, parents before children."""
    stack: list[Node] = list(reversed(node)) if isinstance(node, tuple) else [node]
    while stack:
        current = stack.pop()
        yield current
        for name in reversed(_child_fields(current.__class__)):
            value = getattr(current, name)
            if isinstance(value, Node):
                stack.append(value)
            elif isinstance(value, tuple):
                stack.extend(item for item in reversed(value) if isinstance(item, Node))


def map_children(node: N, function: Callable[[Any], Any]) -> N:
    """`node` with `function` applied to each direct child. `function` may return a tuple to splice into a block."""
    changed: dict[str, Any] = {}
    for name in _child_fields(node.__class__):
        value = getattr(node, name)
        if isinstance(value, Node):
            new = function(value)
            if new is not value:
                changed[name] = new
        elif isinstance(value, tuple) and value and any(isinstance(item, Node) for item in value):
            new = _map_tuple(value, function)
            if new is not value:
                changed[name] = new
    return replace(node, **changed) if changed else node  # type: ignore[type-var]


def _map_tuple(items: tuple[Any, ...], function: Callable[[Any], Any]) -> tuple[Any, ...]:
    out: list[Any] = []
    same = True
    for item in items:
        new = function(item) if isinstance(item, Node) else item
        same = same and new is item
        if isinstance(new, tuple):
            out.extend(new)
        else:
            out.append(new)
    return items if same else tuple(out)


def rewrite(node: N, rules: Mapping[type, Callable[[Any], Any]]) -> N:
    """Bottom-up rewrite: children first, then the rule of the node's type.

    A rule returns its argument when it has nothing to say, another node, or (for a statement in a block) a tuple of
    statements to stand in its place. `node` may be a tuple of nodes.
    """

    def visit(current: Any) -> Any:
        new = map_children(current, visit)
        rule = rules.get(type(new))
        return rule(new) if rule else new

    if isinstance(node, tuple):
        return _map_tuple(node, visit)  # type: ignore[return-value]
    return visit(node)  # type: ignore[no-any-return]


def substitute(node: N, values: Mapping[str, Expr]) -> N:
    """Replace variables by name. Binders are unique in a kernel, so nothing can be captured."""
    return rewrite(node, {Var: lambda v: values.get(v.name, v)}) if values else node


def variables(node: Node | tuple[Node, ...]) -> frozenset[str]:
    """Names of all `Var`s read in `node`."""
    return frozenset(n.name for n in walk(node) if isinstance(n, Var))
