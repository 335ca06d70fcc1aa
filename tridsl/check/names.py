"""Words for messages: the nearest known name, and the user's own text."""

from __future__ import annotations

from collections.abc import Iterable

from tridsl.diagnostics import Span
from tridsl.dtypes import DType
from tridsl.syntax.nodes import Syntax


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, or nothing. Names that differ only in case come first."""
    from difflib import get_close_matches  # start-up time: needed only to phrase an error

    candidates = sorted(set(known) - {name})
    same = [k for k in candidates if k.lower() == name.lower()]
    close = same or get_close_matches(name, candidates, n=1, cutoff=0.6 if len(name) > 2 else 0.7)
    return f"did you mean '{close[0]}'?" if close else ""


def listing(items: Iterable[str], word: str = "and") -> str:
    """`a, b and c`."""
    parts = list(items)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}" if parts else "none"


def counted(number: int, word: str, plural: str = "") -> str:
    """`1 axis`, `2 axes`."""
    return f"{number} {word if number == 1 else plural or word + 's'}"


def written(node: Syntax) -> str:
    """The node as the user wrote it, on one line; its kind where a program made it."""
    return text_of(node.span) or "this value"


def text_of(span: Span | None) -> str:
    return " ".join(span.source.text[span.start : span.end].split()) if span else ""


def cast(dtype: DType, node: Syntax) -> str:
    """`f32(x[i])`, the cast to write around a node."""
    return f"{dtype}({text_of(node.span) or '…'})"
