"""The shipped parser tables belong to the grammar that is shipped with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lark
import pytest

from tridsl import grammar
from tridsl.diagnostics import SourceFile
from tridsl.syntax import lalr
from tridsl.syntax.layout import scan

ROOT = Path(__file__).parents[2]


def test_shipped_tables_are_current() -> None:
    """With another Lark than the one they were made by they are not used, which is right, and still those of the grammar."""
    made_for, _, version = grammar.tables().partition(" ")[0].partition("-lark-")
    assert made_for == grammar.version(), "run `make tables`"
    assert (lalr._load(grammar.tables(), lalr._key()) is not None) == (version == lark.__version__)
    text = "op f(x: f32[N]) -> y: f32[N] {\n  y[i] = if x[i] > 0 then x[i] else -x[i] << 2\n}\n"
    laid_out = scan(SourceFile(name="test", text=text)).text
    assert lalr.construct().parse(laid_out) == lalr.parser().parse(laid_out)


@pytest.mark.parametrize("seed", ["1", "2"])
def test_tables_are_the_same_however_often_they_are_made(seed: str) -> None:
    """Sets have another order in each process."""
    if lark.__version__ != grammar.tables().partition("-lark-")[2].partition(" ")[0]:
        pytest.skip("another version of Lark than the tables are made by")
    code = "from tridsl import generate; print(generate.tables(), end='')"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == grammar.tables(), "run `make tables`"


def test_damaged_tables_are_not_used() -> None:
    damaged = grammar.tables().replace("SHIFT", "SHAFT", 1)
    assert lalr._load(damaged, lalr._key()) is None
    assert lalr._load("", lalr._key()) is None
