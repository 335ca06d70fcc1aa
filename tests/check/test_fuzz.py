"""Broken variants of real programs: always a diagnostic or a well-formed op, never another exception."""

from __future__ import annotations

import random
import re
from importlib.resources import files
from pathlib import Path

import pytest

from tridsl.check.resolve import bind
from tridsl.check.signature import type_choices
from tridsl.check.types import check_module, check_op
from tridsl.diagnostics import SourceFile, TriError
from tridsl.ir.verify import OP, verify
from tridsl.syntax.parse import parse

TOKEN = re.compile(r"[A-Za-z_][A-Za-z_0-9]*|\d+\.?\d*(?:e-?\d+)?|\.\.|//|->|[<>=!]=|<<|>>|\s+|.")
TEXTS = [(Path(__file__).parent / "language.tri").read_text(encoding="utf-8")] + [
    f.read_text(encoding="utf-8")
    for f in sorted(files("tridsl.stdlib").iterdir(), key=lambda f: f.name)
    if f.name.endswith(".tri")
]
VARIANTS = 250


def kind(token: str) -> tuple[bool, bool]:
    return token[0].isalpha(), token[0].isdigit()


def variant(text: str, chance: random.Random) -> str:
    """The text with one to three words exchanged for others of the same kind, doubled or left out."""
    tokens = TOKEN.findall(text)
    places = [i for i, token in enumerate(tokens) if token.strip()]
    words = [tokens[i] for i in places]
    for place in chance.sample(places, chance.randint(1, 3)):
        alike = [word for word in words if kind(word) == kind(tokens[place])]
        tokens[place] = chance.choice([chance.choice(alike)] * 6 + ["", tokens[place] * 2])
    return "".join(tokens)


@pytest.mark.parametrize("seed", range(8))
def test_variants(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(VARIANTS):
        text = variant(chance.choice(TEXTS), chance)
        try:
            bound = bind(parse(SourceFile(name="variant", text=text)), lambda module, name: None)
            check_module(bound)
        except TriError as problem:
            assert str(problem)
            continue
        for _, overloads in bound.own():
            for overload in overloads:
                types = next(type_choices(overload.operation))
                assert verify(check_op(bound, overload, types), OP) == (), text
