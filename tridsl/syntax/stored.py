"""Syntax trees as JSON: the standard library comes with its trees, so that its first use needs no parser.

A node is a list: its class's number, its span's ends, then its fields in order. Tuples and further spans are marked objects. What
is read is package data that belongs to a text by its hash; anything that does not fit is parsed instead.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec

from tridsl.diagnostics import SourceFile, Span
from tridsl.structs import declared
from tridsl.syntax import nodes
from tridsl.syntax.nodes import Module, Syntax

_CLASSES: tuple[type[Syntax], ...] = tuple(
    value for value in vars(nodes).values() if isinstance(value, type) and issubclass(value, Syntax) and value is not Syntax
)
_FIELDS = {kind: tuple(f for f in declared(kind) if f not in ("span", "source")) for kind in _CLASSES}


def digest(text: str) -> str:
    """Identifies a text and the shape of the nodes."""
    shape = [(kind.__name__, names) for kind, names in _FIELDS.items()]
    return sha256(repr((text, shape)).encode()).hexdigest()[:32]


def dump(name: str, module: Module) -> str:
    """One line for the tree of the op file `name`."""
    assert module.source is not None
    line = {"name": name, "digest": digest(module.source.text), "tree": _plain(module)}
    return msgspec.json.encode(line).decode()


def load(lines: str, name: str, source: SourceFile) -> Module | None:
    """The tree of `source` from such lines; None when it is not there or belongs to another text."""
    start = lines.find(f'{{"name":"{name}",')
    if start < 0:
        return None
    stored = msgspec.json.decode(lines[start : lines.find("\n", start)])
    if stored["digest"] != digest(source.text):
        return None
    module = _node(stored["tree"], source)
    assert isinstance(module, Module)
    return Module(items=module.items, span=module.span, source=source)


def _plain(value: Any) -> Any:
    if isinstance(value, Syntax):
        start, end = (-1, -1) if value.span is None else (value.span.start, value.span.end)
        return [_CLASSES.index(type(value)), start, end, *(_plain(getattr(value, n)) for n in _FIELDS[type(value)])]
    if isinstance(value, tuple):
        return {"t": [_plain(item) for item in value]}
    return {"s": [value.start, value.end]} if isinstance(value, Span) else value


def _node(value: Any, source: SourceFile) -> Any:
    if isinstance(value, list):
        number, start, end, *rest = value
        kind = _CLASSES[number]
        span = None if start < 0 else Span(source=source, start=start, end=end)
        return kind(span=span, **{n: _node(v, source) for n, v in zip(_FIELDS[kind], rest)})
    if isinstance(value, dict):
        if "t" in value:
            return tuple(_node(item, source) for item in value["t"])
        start, end = value["s"]
        return Span(source=source, start=start, end=end)
    return value
