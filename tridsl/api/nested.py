"""Containers of arguments and results: tuples, lists and dictionaries, flattened and put together again."""

from __future__ import annotations

from typing import Any

LEAF = "*"


def flatten(value: Any) -> tuple[tuple[str, ...], tuple[Any, ...], Any]:
    """Paths (`weights.0.up`), leaves, and the hashable structure around them."""
    paths: list[str] = []
    leaves: list[Any] = []

    def visit(item: Any, path: str) -> Any:
        if isinstance(item, dict):
            return ("dict", tuple((key, visit(child, _join(path, key))) for key, child in item.items()))
        if isinstance(item, (tuple, list)) and type(item) in (tuple, list):
            return (type(item).__name__, tuple(visit(child, _join(path, n)) for n, child in enumerate(item)))
        paths.append(path)
        leaves.append(item)
        return LEAF

    structure = visit(value, "")
    return tuple(paths), tuple(leaves), structure


def unflatten(structure: Any, leaves: tuple[Any, ...]) -> Any:
    """The value whose `flatten` gave `structure`, with other leaves."""
    rest = iter(leaves)

    def build(part: Any) -> Any:
        if part == LEAF:
            return next(rest)
        kind, children = part
        if kind == "dict":
            return {key: build(child) for key, child in children}
        items = [build(child) for child in children]
        return tuple(items) if kind == "tuple" else items

    return build(structure)


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)
