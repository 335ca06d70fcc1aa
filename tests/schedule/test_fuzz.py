"""Broken variants of real schedules: a diagnostic or a well-formed kernel, never another exception."""

from __future__ import annotations

import random
import re

import pytest

from tests.schedule import test_found, test_steps
from tests.schedule.programs import op_of, scheduled, steps_of
from tridsl.devices.spec import DeviceSpec
from tridsl.diagnostics import TriError
from tridsl.ir.verify import LOWERED, describe, verify

TOKEN = re.compile(r'[A-Za-z_][A-Za-z_0-9]*|\d+|"[^"]*"|\s+|.')
LEGAL = [(text, directives, spec) for text, directives, _, spec in test_found.LEGAL]
ILLEGAL = [(text, directives, test_found.GPU if "lane" in directives else test_found.CPU) for text, directives, _ in (*test_found.ILLEGAL, *test_steps.ILLEGAL)]
PROGRAMS = [*LEGAL, *ILLEGAL]
NUMBERS = ("0", "1", "2", "3", "7", "64", "100000000000", "-1")
VARIANTS = 60


def kind(token: str) -> str:
    return "name" if token[0].isalpha() else "number" if token[0].isdigit() else "text" if token[0] == '"' else token


def variant(directives: str, chance: random.Random) -> str:
    """The directives with one to three words exchanged for others of their kind, or their lines in another order."""
    if chance.random() < 0.15:
        return "\n".join(chance.sample(directives.split("\n"), directives.count("\n") + 1))
    tokens = TOKEN.findall(directives)
    places = [n for n, token in enumerate(tokens) if token.strip()]
    every = [token for _, other, _ in chance.sample(PROGRAMS, 3) for token in TOKEN.findall(other)]
    for place in chance.sample(places, min(len(places), chance.choice((1, 1, 1, 2, 3)))):
        sort = kind(tokens[place])
        own = [tokens[n] for n in places if tokens[n] and kind(tokens[n]) == sort]
        alike = [*own, *(NUMBERS if sort == "number" else (t for t in every if kind(t) == sort))]
        tokens[place] = chance.choice([chance.choice(alike)] * 20 + ["", tokens[place] * 2])
    return "".join(tokens)


def check(text: str, directives: str, spec: DeviceSpec) -> bool:
    """Whether the directives are legal."""
    op = op_of(text)
    try:
        kernel = scheduled(op, steps_of(op, directives, spec), spec=spec, lowered=True)
    except TriError as problem:
        assert str(problem)
        return False
    problems = verify(kernel, LOWERED)
    assert not problems, f"{text}{directives}\n{describe(problems)}"
    return True


@pytest.mark.parametrize("seed", range(4))
def test_variants(seed: int) -> None:
    chance = random.Random(seed)
    legal = 0
    for _ in range(VARIANTS):
        text, directives, spec = chance.choice(chance.choice((LEGAL, ILLEGAL)))
        broken = variant(directives, chance)
        try:
            legal += check(text, broken, spec)
        except Exception as problem:
            problem.add_note(f"{text}{broken}\non {spec.name}")
            raise
    assert legal > 2, "too broken to say anything"


@pytest.mark.full
@pytest.mark.parametrize("seed", range(100, 150))
def test_variants_at_length(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        text, directives, spec = chance.choice(chance.choice((LEGAL, ILLEGAL)))
        check(text, variant(directives, chance), spec)
