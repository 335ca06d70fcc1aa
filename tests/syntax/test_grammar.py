"""The grammar as an artefact: no conflicts, linear lexing, tables that survive on disk."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from lark import Lark

from tests.syntax.programs import LANGUAGE, read
from tridsl import grammar
from tridsl.diagnostics import SourceFile
from tridsl.syntax import build, lalr
from tridsl.syntax.layout import RESERVED, scan
from tridsl.syntax.parse import parse


def test_strict_mode_finds_no_conflict_and_no_ambiguous_terminal() -> None:
    Lark(grammar.text(), parser="lalr", lexer="contextual", strict=True)


def test_reserved_words_are_those_of_the_grammar() -> None:
    (listed,) = re.findall(r"^NAME: /\(\?!\(\?:([a-z|]+)\)", grammar.text(), re.MULTILINE)
    assert set(listed.split("|")) == RESERVED


def test_every_rule_has_its_method() -> None:
    rules = {(rule.alias or rule.options.template_source or rule.origin.name) for rule in lalr.parser().rules}
    made = {name for name in rules if not name.startswith("_")}
    inlined = set(re.findall(r"^\?(\w+):", grammar.text(), re.MULTILINE)) | {"target"}
    assert {name for name in made if not hasattr(build._Builder, name)} <= inlined


MEGABYTE = 1 << 20
FILLERS = {
    "newlines": "\n", "blanks": " ", "empty comments": "#\n", "comments": "# comment # comment\n", "blank lines": " \n", "mixed": "\t# x\n\n",
    "crlf": "\r\n", "one comment": "#",
}  # fmt: skip
PLACES = {
    "top": ("", "use a: b"),
    "statements": ("op f(x: f32) -> y: f32 {\n  y = x", "z = x\n}"),
    "brackets": ("op f(x: f32", ") -> y: f32 {\n  y = x\n}"),
}


def nothing(place: str, filler: str, size: int) -> None:
    """A file of `size` bytes that are nearly all filler is read."""
    before, after = PLACES[place]
    end = "\n"
    room = size - len(before) - len(after) - 2
    text = before + end + FILLERS[filler] * (room // len(FILLERS[filler])) + end + after
    layout = scan(SourceFile(name="big", text=text))
    assert len(layout.text) == len(text)
    assert layout.text.count("\n") <= 2
    assert len(parse(SourceFile(name="big", text=text)).items) == 1


@pytest.mark.parametrize(("place", "filler"), list(zip(itertools.cycle(PLACES), FILLERS)))
def test_a_megabyte_of_nothing_is_read_in_linear_steps(place: str, filler: str) -> None:
    """Each filler and each place."""
    nothing(place, filler, MEGABYTE)


@pytest.mark.parametrize("filler", FILLERS)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_anywhere_needs_no_stack(place: str, filler: str) -> None:
    """Every filler in every place, far beyond what a recursive reader would bear."""
    nothing(place, filler, MEGABYTE >> 4)


def test_no_terminal_can_backtrack_over_blanks() -> None:
    for terminal in lalr.parser().terminals:
        assert "\\s" not in terminal.pattern.value
        if terminal.name != "_NL" and not terminal.name.startswith("__IGNORE"):
            assert not re.fullmatch(terminal.pattern.to_regexp(), "\n")


def test_tables_on_disk_give_the_same_trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grammar, "tables", lambda: "of another version of Lark")
    made = lalr.parser.__wrapped__(tmp_path)
    (file,) = tmp_path.iterdir()
    again = lalr._read(file, lalr._key())
    assert again is not None
    text = scan(SourceFile(name="x", text=LANGUAGE)).text
    assert again.parse(text) == made.parse(text)
    assert parse(SourceFile(name="x", text=LANGUAGE), cache_dir=tmp_path) == read(LANGUAGE)


@pytest.mark.parametrize("damage", [lambda body: body[:-9], lambda body: body.replace("0", "1", 1), lambda body: ""])
def test_damaged_tables_are_not_used(tmp_path: Path, damage) -> None:
    lalr._write(tmp_path / "table", grammar.tables())
    (tmp_path / "table").write_text(damage((tmp_path / "table").read_text()))
    assert lalr._read(tmp_path / "table", lalr._key()) is None


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert lalr.parser.__wrapped__(tmp_path / "file" / "below").parse("").data == "start"


def test_version_depends_on_the_text() -> None:
    assert re.fullmatch("[0-9a-f]{16}", grammar.version())


def test_a_code_explained_twice_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = '[E0999]\ntitle = "a"\ntext = "b"\nwrong = ""\nright = ""\n'
    (tmp_path / "errors").mkdir()
    (tmp_path / "mistakes.toml").write_text("mistake = []\n")
    (tmp_path / "errors" / "a.toml").write_text(entry)
    monkeypatch.setattr(grammar, "_file", tmp_path.joinpath)
    monkeypatch.setattr(grammar, "mistakes", lambda: ())
    assert grammar.explanations.__wrapped__()["E0999"].title == "a"
    (tmp_path / "errors" / "b.toml").write_text(entry)
    with pytest.raises(ValueError, match="E0999 is explained twice"):
        grammar.explanations.__wrapped__()
