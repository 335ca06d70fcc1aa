"""One file per mistake: `<name>.tri` and, exactly as shown to the user, `<name>.stderr`.

`pytest tests/errors --update-golden` rewrites the `.stderr` files; read the difference before committing it.
"""

from __future__ import annotations

import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from tridsl.check.resolve import bind
from tridsl.check.types import check_module
from tridsl.diagnostics import Diagnostic, SourceFile, TriError
from tridsl.syntax.parse import parse

HERE = Path(__file__).parent
MISTAKES = sorted(HERE.glob("*.tri"))


def explained_codes() -> set[str]:
    tables = [f for f in (files("tridsl.grammar") / "errors").iterdir() if f.name.endswith(".toml")]
    return {code for table in tables for code in tomllib.loads(table.read_text(encoding="utf-8"))}


def resolver(module: str, name: str) -> SourceFile | None:
    path = HERE / "modules" / f"{module}.tri"
    return SourceFile(name=module, text=path.read_text(encoding="utf-8")) if path.exists() else None


def mistakes_of(path: Path) -> TriError:
    source = SourceFile(name=path.name, text=path.read_text(encoding="utf-8"))
    with pytest.raises(TriError) as caught:
        check_module(bind(parse(source), resolver))
    return caught.value


@pytest.mark.parametrize("path", MISTAKES, ids=lambda p: p.stem)
def test_message(path: Path, update_golden: bool) -> None:
    shown = str(mistakes_of(path)) + "\n"
    golden = path.with_suffix(".stderr")
    if update_golden:
        golden.write_text(shown, encoding="utf-8")
    assert shown == golden.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", MISTAKES, ids=lambda p: p.stem)
def test_diagnostics_are_complete(path: Path) -> None:
    known = explained_codes()
    for diagnostic in mistakes_of(path).diagnostics:
        assert diagnostic.code in known, f"{diagnostic.code} has no explanation in grammar/errors"
        assert diagnostic.span is not None
        assert diagnostic.help
        assert not diagnostic.message.endswith(".")
        if diagnostic.example:
            assert_parses(diagnostic)


def assert_parses(diagnostic: Diagnostic) -> None:
    """The example is a whole item, or a line of an op's body."""
    try:
        parse(SourceFile(name="example", text=diagnostic.example + "\n"))
    except TriError:
        parse(SourceFile(name="example", text=f"op f(x: f32[N]) -> y: f32[N] {{\n  {diagnostic.example}\n}}\n"))


def test_every_mistake_has_its_message() -> None:
    assert {p.stem for p in MISTAKES} == {p.stem for p in HERE.glob("*.stderr")}


def check_text(text: str) -> None:
    check_module(bind(parse(SourceFile(name="text", text=text.lstrip("\n"))), resolver))


def explanations() -> dict[str, dict[str, str]]:
    return tomllib.loads((files("tridsl.grammar") / "errors" / "check.toml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("code", [c for c, e in explanations().items() if e["wrong"]])
def test_explained_mistake_is_that_mistake(code: str) -> None:
    with pytest.raises(TriError) as caught:
        check_text(explanations()[code]["wrong"])
    assert code in {d.code for d in caught.value.diagnostics}


@pytest.mark.parametrize("code", [c for c, e in explanations().items() if e["right"] and "use " not in e["right"]])
def test_explained_correction_is_correct(code: str) -> None:
    check_text(explanations()[code]["right"])
