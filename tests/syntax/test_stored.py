"""Stored syntax trees are the trees of the texts, or are not used."""

from __future__ import annotations

import pytest

from tridsl import generate, stdlib
from tridsl.diagnostics import SourceFile
from tridsl.syntax import stored
from tridsl.syntax.parse import parse


def test_the_library_s_trees_are_current() -> None:
    assert generate.trees() == stdlib.trees(), "run `python -m tridsl.generate`"


@pytest.mark.parametrize("name", stdlib.names())
def test_round_trip_with_spans(name: str) -> None:
    source = stdlib.source(name)
    read, parsed = stored.load(stdlib.trees(), name, source), parse(source)
    assert read == parsed and read is not None and read.source is source
    assert repr(_spans(read)) == repr(_spans(parsed))


def _spans(node: object) -> list[object]:
    found = []
    for kind in getattr(node, "__dataclass_fields__", ()):
        value = getattr(node, kind)
        if type(value).__name__ == "Span":
            found.append((kind, value.start, value.end))
        for item in value if isinstance(value, tuple) else (value,):
            if hasattr(item, "__dataclass_fields__") and type(item).__name__ not in ("Span", "SourceFile"):
                found.append(_spans(item))
    return found


def test_another_text_is_parsed() -> None:
    source = SourceFile(name="stdlib:softmax", text=stdlib.source("softmax").text + "\n# more\n")
    assert stored.load(stdlib.trees(), "softmax", source) is None
    assert stored.load("", "softmax", stdlib.source("softmax")) is None
