"""Any text at all gives a module that survives a round trip, or a `TriError` with a place inside the text."""

from __future__ import annotations

import random
import re

import pytest

from tests.syntax.programs import LANGUAGE
from tridsl.diagnostics import SourceFile, TriError
from tridsl.syntax.format import format, format_source
from tridsl.syntax.parse import parse

TOKENS = ["op", "monoid", "schedule", "bench", "use", "state", "lift", "merge", "result", "param", "require", "for", "when", "where", "in", "if", "then", "else", "and", "or", "not", "scan", "const", "inout", "dyn", "true", "inf", "lowest", "x", "y", "T", "f32", "sum", "k", "0", "1", "2.5", "0x1f", "(", ")", "[", "]", "{", "}", ",", ";", ":", ".", "..", "->", "=", "==", "<", "<<", "+", "-", "*", "//", "~", "&", "|", '"s"', "\n", "#", "$", "é"]
PIECES = re.findall(r"\w+|\s+|#[^\n]*|[^\w\s]", LANGUAGE)


def check(text: str) -> bool:
    """True where the text is a program."""
    source = SourceFile(name="fuzz", text=text)
    try:
        module = parse(source)
    except TriError as error:
        assert error.code.startswith("E01")
        assert str(error)
        for diagnostic in error.diagnostics:
            assert diagnostic.span is not None
            assert 0 <= diagnostic.span.start <= diagnostic.span.end <= len(text) + 1
        return False
    assert parse(SourceFile(name="again", text=format(module))) == module
    once = format_source(text)
    assert format_source(once) == once
    return True


def token_soup(random: random.Random) -> str:
    return " ".join(random.choices(TOKENS, k=random.randrange(1, 25)))


def mutated(random: random.Random) -> str:
    """A piece of the language document with a few tokens dropped, doubled, swapped or replaced."""
    start = random.randrange(len(PIECES))
    pieces = PIECES[start : start + random.randrange(1, 200)] if random.random() < 0.5 else list(PIECES[:260])
    for _ in range(random.randrange(1, 4)):
        place, other = random.randrange(len(pieces)), random.randrange(len(pieces))
        match random.randrange(4):
            case 0:
                pieces[place] = ""
            case 1:
                pieces[place] *= 2
            case 2:
                pieces[place], pieces[other] = pieces[other], pieces[place]
            case 3:
                pieces[place] = random.choice(TOKENS)
    return "".join(pieces)


def characters(random: random.Random) -> str:
    """Bytes as Latin-1, most of them printable, and sometimes spliced into a program."""
    noise = bytes(random.choice((random.randrange(256), random.randrange(32, 127))) for _ in range(random.randrange(40)))
    if random.random() < 0.5:
        return noise.decode("latin-1")
    place = random.randrange(400)
    return LANGUAGE[:place] + noise.decode("latin-1") + LANGUAGE[place:400]


def derived(random: random.Random, kind: str = "item", depth: int = 0) -> str:
    """A text of the grammar, now and then with a token too many."""
    rules = {
        "item": ("op f(x: TYPE) -> y: TYPE {\n STATEMENT\n STATEMENT\n}", "bench f { N = VALUE }", "use x: y"),
        "TYPE": ("f32", "T[VALUE]", "f32[..N]", "i32[N, dyn M]"),
        "STATEMENT": ("y = VALUE", "y[i] = VALUE", "y[i in VALUE..VALUE] = VALUE", "a, b = VALUE # c"),
        "VALUE": (
            "x", "1", "(VALUE)", "-VALUE", "VALUE + VALUE", "VALUE*VALUE", "x[VALUE; pad=VALUE]", "f(VALUE, k=VALUE)",
            "sum[k in 0..VALUE; acc=f32](VALUE)", "if VALUE < VALUE then VALUE else VALUE", "not VALUE", "scan max[i](x[i])",
        ),
    }  # fmt: skip
    options = rules[kind]
    chosen = options[0] if depth > 8 else random.choice(options)
    text = re.sub(r"[A-Z]{4,}", lambda match: derived(random, match.group(), depth + 1), chosen)
    return text + random.choice(TOKENS) if random.random() < 0.01 else text


MAKERS = (token_soup, mutated, characters, derived)


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("seed", range(2))
def test_fuzz(maker, seed: int) -> None:
    generator = random.Random(seed)
    programs = sum(check(maker(generator)) for _ in range(400))
    assert maker is not derived or programs > 100


@pytest.mark.full
@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("seed", range(100, 125))
def test_fuzz_at_length(maker, seed: int) -> None:
    generator = random.Random(seed)
    for _ in range(1000):
        check(maker(generator))
