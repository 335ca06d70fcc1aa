"""A `Kernel` (or any IR node) as JSON, and back, without executing anything.

Nodes are objects tagged with their class (`{"node": "For", …}`), element types `{"dtype": "f32"}`, floats
`{"float": "0x1.8p+0"}` (JSON knows neither inf nor nan); spans are left out. Decoding checks every field against the type
its class declares: bytes from elsewhere give a well-typed node or ValueError.
"""

from __future__ import annotations

import types
import typing
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import msgspec

from tridsl.dtypes import DTYPES, DType
from tridsl.ir import expr, loop, op
from tridsl.ir.expr import Node
from tridsl.structs import declared

N = TypeVar("N", bound=Node)

_NODES: dict[str, type[Node]] = {
    value.__name__: value
    for module in (expr, op, loop)
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Node) and value is not Node
}


def to_json(node: Node) -> bytes:
    """`node` as compact JSON; equal nodes give equal bytes."""
    return msgspec.json.encode(_plain(node))


def from_json(data: bytes | str, kind: type[N]) -> N:
    """The node of class `kind` that `to_json` wrote. Raises ValueError for anything else."""
    try:
        node = _node(msgspec.json.decode(data))
    except (msgspec.DecodeError, RecursionError) as problem:
        raise ValueError(f"not an IR node: {problem}") from None
    if not isinstance(node, kind):
        raise ValueError(f"not a {kind.__name__}")  # noqa: TRY004 (the data is wrong, not the caller's argument)
    return node


def _plain(value: Any) -> Any:
    match value:
        case Node():
            return {
                "node": type(value).__name__,
                **{name: _plain(getattr(value, name)) for name in _hints(type(value).__name__)},
            }
        case DType():
            return {"dtype": value.name}
        case tuple():
            return [_plain(item) for item in value]
        case float():
            return {"float": value.hex()}
    return value


@cache
def _hints(name: str) -> dict[str, Any]:
    """Of node class `name`: field name to declared type, in order, without the span."""
    kind = _NODES[name]
    hints = typing.get_type_hints(kind)
    return {name: hints[name] for name in declared(kind) if name != "span"}


def _value(value: Any) -> Any:
    match value:
        case list():
            return tuple(_value(item) for item in value)
        case {"dtype": str(name)} if len(value) == 1 and name in DTYPES:
            return DTYPES[name]
        case {"float": str(text)} if len(value) == 1:
            return float.fromhex(text)
        case dict():
            return _node(value)
        case None | bool() | int() | str():
            return value
    raise ValueError(f"{type(value).__name__} has no place in the IR")


def _node(value: Any) -> Node:
    name = value.get("node") if isinstance(value, dict) else None
    kind = _NODES.get(name) if isinstance(name, str) else None
    if kind is None:
        raise ValueError("not an IR node")
    hints = _hints(kind.__name__)
    if set(value) != {"node", *hints}:
        raise ValueError(f"{kind.__name__} has other fields than {', '.join(hints)}")
    decoded = {name: _value(value[name]) for name in hints}
    for name, hint in hints.items():
        if not _fits(decoded[name], hint):
            raise ValueError(f"{kind.__name__}.{name} has a wrong type")
    return kind(**decoded)


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(_fits(value, option) for option in get_args(hint))
    if origin is Literal:
        return isinstance(value, str) and value in get_args(hint)
    if origin is tuple:
        items = get_args(hint)
        if not isinstance(value, tuple):
            return False
        if len(items) == 2 and items[1] is Ellipsis:
            return all(_fits(item, items[0]) for item in value)
        return len(value) == len(items) and all(_fits(item, option) for item, option in zip(value, items))
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)
